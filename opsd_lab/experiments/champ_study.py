"""CHAMP's annotated solutions scored under privileged views, by any causal language model."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from opsd_lab.contexts import (
    ChatFormat,
    ContextBuilder,
    View,
    answer_only,
    change_numbers,
    hints,
    other_problem,
    partial_solution,
    reference_solution,
    wrong_solution,
)
from opsd_lab.diagnostics.first_wrong_step import score_steps
from opsd_lab.objectives import OPSD, Objective
from opsd_lab.policies.policy import Policy
from opsd_lab.policies.teachers import Teacher, live_teacher
from opsd_lab.problems.champ import AnnotatedSolution
from opsd_lab.problems.problem import Problem
from opsd_lab.scoring.batching import Example
from opsd_lab.supervision.views import build_examples, score_views, text_rollout
from opsd_lab.tokens.table import TokenTable


def champ_views(problems: Sequence[Problem]) -> dict[str, View]:
    """Return the privileged views that are compared on CHAMP; `problems` are also the donors of the other problem's solution."""
    return {
        "reference": reference_solution,
        "answer": answer_only,
        "hints": hints,
        "half": partial_solution(0.5),
        "wrong numbers": wrong_solution(change_numbers),
        "other problem": other_problem(problems),
    }


def with_all_views(problems: Sequence[Problem], count: int, seed: int = 0) -> list[Problem]:
    """Return `count` problems to which every view of `champ_views` applies, drawn with a seed, in their own order.

    Raises:
        ValueError: when there are fewer.
    """
    views = champ_views(problems)
    fitting = [problem for problem in problems if all(applies(view, problem) for view in views.values())]
    if count > len(fitting):
        raise ValueError(f"with_all_views: {count} problems are wanted, but all views apply to {len(fitting)} only")
    chosen = np.random.default_rng(seed).choice(len(fitting), count, replace=False)
    return [fitting[i] for i in sorted(chosen)]


def applies(view: View, problem: Problem) -> bool:
    """Return whether a view has something to show of a problem."""
    try:
        view(problem)
    except ValueError:
        return False
    return True


def score_solutions(
    policy: Policy,
    problems: Sequence[Problem],
    solutions: Sequence[AnnotatedSolution],
    views: Mapping[str, View],
    *,
    chat: ChatFormat | None = None,
    teacher: Teacher | None = None,
    objective: Objective | None = None,
    parts: str | Path | None = None,
    **options: object,
) -> dict[str, TokenTable]:
    """Score the annotated solutions of some problems under each view; rollout i of every table is the i-th of those solutions.

    `policy` is the student. `solutions` of other problems than `problems` are left out. `views` maps a view's name to what the
    teacher sees. `chat` is both sides' format. `teacher` says whose weights teach, the policy's own where left out. `objective`
    gives the loss of each token, OPSD's where left out. `parts` is the folder for finished parts. `options` are those of
    `score_views`.

    Raises:
        ValueError: when a view does not apply to a problem, a solution does not fit the model's context, or there are none.
    """
    chat, by_id = chat or ChatFormat(), {problem.id: problem for problem in problems}
    student = ContextBuilder(policy.tokenizer, student=chat)
    rollouts = [text_rollout(student, by_id[s.problem_id], s.text) for s in solutions if s.problem_id in by_id]
    examples: dict[str, list[Example]] = {}
    for name, view in views.items():
        examples[name] = build_examples(ContextBuilder(policy.tokenizer, view, student=chat, teacher=chat), problems, rollouts)
    return score_views(policy, teacher or live_teacher(), objective or OPSD(), examples, parts=parts, **options)


def step_rows(tables: Mapping[str, TokenTable], problems: Sequence[Problem], solutions: Sequence[AnnotatedSolution]) -> pd.DataFrame:
    """Return the rows of `score_steps` for each view's table from `score_solutions`, after view, author and category; no text."""
    categories = {problem.id: problem.meta.get("category") for problem in problems}
    chosen = [solution for solution in solutions if solution.problem_id in categories]
    parts = []
    for name, table in tables.items():
        steps = score_steps(table, [solution.wrong_step for solution in chosen])
        steps.insert(0, "category", steps["problem_id"].map(categories))
        steps.insert(0, "author", [chosen[i].author for i in steps["rollout"]])
        steps.insert(0, "view", name)
        parts.append(steps)
    return pd.concat(parts, ignore_index=True)
