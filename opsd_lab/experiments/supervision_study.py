"""Notebook 02's experiment as functions: rollouts of the built-in problems, graded, and scored under privileged views."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from opsd_lab.contexts import (
    ChatFormat,
    ContextBuilder,
    View,
    answer_only,
    hints,
    no_privilege,
    other_problem,
    partial_solution,
    wrong_solution,
)
from opsd_lab.diagnostics import with_outcomes
from opsd_lab.evaluation.outcomes import grade_rollouts
from opsd_lab.experiments.walkthrough import CHAT, reference_view
from opsd_lab.grading import Grader
from opsd_lab.objectives import OPSD, Objective
from opsd_lab.policies.policy import Policy
from opsd_lab.policies.teachers import Teacher
from opsd_lab.problems.problem import Problem
from opsd_lab.problems.word_problems import builtin, one_per_key
from opsd_lab.rollouts import HFSampler, Rollout, SamplingParams, sample_rollouts
from opsd_lab.steps.labels import label_steps
from opsd_lab.supervision.views import build_examples, score_views
from opsd_lab.tokens.table import TokenTable


@dataclass(frozen=True)
class StudySettings:
    """What the study fixes beforehand: `problems` of each family, of which no two ask for the same calculation."""

    seed: int = 0
    problems: int = 64
    families: tuple[str, ...] = ("one_step", "two_step")
    chat: ChatFormat = CHAT
    sampling: SamplingParams = field(default_factory=lambda: SamplingParams(max_new_tokens=48, temperature=0.8, n=3))


def study_problems(settings: StudySettings) -> list[Problem]:
    """Return the test problems whose rollouts are looked at."""
    return [problem for family in settings.families for problem in one_per_key(builtin(family, "test"))[: settings.problems]]


def study_views(problems: Sequence[Problem]) -> dict[str, View]:
    """Return the privileged views that are compared; the problems themselves are donors for the other problem's solution."""
    return {
        "reference": reference_view(),
        "answer": answer_only,
        "hints": hints,
        "half": partial_solution(0.5, closing=""),
        "wrong": wrong_solution(closing=""),
        "other problem": other_problem(problems, closing=""),
        "none": no_privilege,
    }


def write_rollouts(policy: Policy, problems: Sequence[Problem], settings: StudySettings) -> list[Rollout]:
    """Return `settings.sampling.n` rollouts of each problem, problem by problem."""
    contexts = ContextBuilder(policy.tokenizer, student=settings.chat)
    return sample_rollouts(HFSampler(policy), contexts, problems, replace(settings.sampling, seed=settings.seed))


def study_tables(
    policy: Policy,
    teacher: Teacher,
    problems: Sequence[Problem],
    rollouts: Sequence[Rollout],
    views: dict[str, View],
    *,
    chat: ChatFormat = CHAT,
    teacher_chat: ChatFormat | None = None,
    objective: Objective | None = None,
    **options: object,
) -> dict[str, TokenTable]:
    """Return the rollouts' table under each view, with steps labelled and outcomes graded.

    `policy` is the student, and `teacher` says whose weights teach. `rollouts` are of these `problems`. `views` maps a view's name to
    what the teacher sees. `chat` is both sides' format, unless `teacher_chat` is
    the teacher's. `objective` gives the loss of each token, OPSD's where left out. `options`
    are those of `score_views`.

    Raises:
        ValueError: as `grade_rollouts`, `build_examples` and `score_views` do.
    """
    examples = {
        name: build_examples(ContextBuilder(policy.tokenizer, view, student=chat, teacher=teacher_chat or chat), problems, rollouts)
        for name, view in views.items()
    }
    with Grader() as grader:
        outcomes = [grade.final for grade in grade_rollouts(grader, rollouts, problems)]
    tables = score_views(policy, teacher, objective or OPSD(), examples, **options)
    return {name: with_outcomes(label_steps(table), outcomes) for name, table in tables.items()}
