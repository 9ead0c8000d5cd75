from dataclasses import replace

import pandas as pd
import pytest

from opsd_lab.contexts import no_privilege
from opsd_lab.experiments.supervision_study import (
    StudySettings,
    study_problems,
    study_tables,
    study_views,
    write_rollouts,
)
from opsd_lab.experiments.walkthrough import train_problems
from opsd_lab.policies.teachers import fixed_teacher
from opsd_lab.problems.word_problems import key
from opsd_lab.rollouts import SamplingParams

SETTINGS = StudySettings(problems=3, sampling=SamplingParams(8, temperature=0.8, n=2))


def test_the_problems_are_distinct_calculations_of_both_families_that_no_training_uses():
    problems = study_problems(StudySettings())
    assert len({key(problem) for problem in problems}) == len(problems) == 2 * StudySettings().problems
    assert not {key(problem) for problem in problems} & {key(problem) for problem in train_problems()}
    assert {problem.meta["family"] for problem in problems} == {"one_step", "two_step"}


def test_every_view_applies_to_every_problem_and_only_one_shows_nothing():
    problems = study_problems(SETTINGS)
    shown = {name: [view(problem) for problem in problems] for name, view in study_views(problems).items()}
    assert [name for name, texts in shown.items() if not any(texts)] == ["none"]
    assert all(all(texts) for name, texts in shown.items() if name != "none")


def test_rollouts_carry_their_problem_and_come_problem_by_problem(policy):
    problems = study_problems(SETTINGS)
    rollouts = write_rollouts(policy, problems, SETTINGS)
    assert [rollout.problem_id for rollout in rollouts] == [problem.id for problem in problems for _ in range(2)]
    assert rollouts == write_rollouts(policy, problems, SETTINGS)
    assert rollouts != write_rollouts(policy, problems, replace(SETTINGS, seed=1))


def test_tables_have_labels_and_outcomes_and_the_same_tokens_in_every_view(policy):
    problems = study_problems(SETTINGS)
    rollouts = write_rollouts(policy, problems, SETTINGS)
    right = replace(rollouts[0], text=f"So it is {problems[0].answer}.")
    rollouts = [right, replace(rollouts[1], text="I do not know."), *rollouts[2:]]
    views = {name: view for name, view in study_views(problems).items() if name in ("reference", "none")}
    tables = study_tables(policy, fixed_teacher(policy), problems, rollouts, views, top_k=3, progress=False)
    columns = ["rollout", "position", "token_id"]
    pd.testing.assert_frame_equal(tables["reference"].frame[columns], tables["none"].frame[columns])
    assert tables["none"].frame["gap"].abs().max() < 1e-4 < tables["reference"].frame["gap"].abs().max()
    assert set(tables["none"].frame["error_phase"]) <= {"before", "first_error", "after"}
    outcomes = tables["reference"].frame.groupby("rollout")["outcome"].first().tolist()
    assert outcomes[:2] == ["correct", "incorrect"]  # no answer is no right one
    assert tables["reference"].top.k == 3


def test_views_that_show_nothing_leave_the_students_own_prompt():
    assert study_views(study_problems(SETTINGS))["none"] is no_privilege


def test_an_unknown_family_is_refused():
    with pytest.raises(ValueError, match="no family 'three_step'"):
        study_problems(StudySettings(families=("three_step",)))
