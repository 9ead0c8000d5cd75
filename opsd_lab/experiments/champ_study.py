"""CHAMP's annotated solutions scored under privileged views, by any causal language model."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from opsd_lab.basics.growing_table import SETTINGS, GrowingTable
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
from opsd_lab.diagnostics.first_wrong_step import SIGNALS, score_steps
from opsd_lab.identity.digest import digest
from opsd_lab.identity.parts import parts_of, policy_parts, versions
from opsd_lab.objectives import OPSD, Objective
from opsd_lab.policies.policy import Policy
from opsd_lab.policies.teachers import Teacher, live_teacher
from opsd_lab.problems.champ import AnnotatedSolution
from opsd_lab.problems.problem import Problem
from opsd_lab.scoring.batching import Example
from opsd_lab.supervision.views import build_examples, score_views, text_rollout
from opsd_lab.tokens.table import TokenTable

Plan = Mapping[str, tuple[Sequence[Problem], Mapping[str, View]]]
"""What is scored, by scope: some problems, and the views under which their solutions are scored."""
CHUNK = 6


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
    **options: object,
) -> dict[str, TokenTable]:
    """Score the annotated solutions of some problems under each view; rollout i of every table is the i-th of those solutions.

    `policy` is the student. `solutions` of other problems than `problems` are left out. `views` maps a view's name to what the
    teacher sees. `chat` is both sides' format. `teacher` says whose weights teach, the policy's own where left out. `objective`
    gives the loss of each token, OPSD's where left out. `options` are those of `score_views`.

    Raises:
        ValueError: when a view does not apply to a problem, a solution does not fit the model's context, or there are none.
    """
    chat, by_id = chat or ChatFormat(), {problem.id: problem for problem in problems}
    student = ContextBuilder(policy.tokenizer, student=chat)
    rollouts = [text_rollout(student, by_id[s.problem_id], s.text) for s in solutions if s.problem_id in by_id]
    examples: dict[str, list[Example]] = {}
    for name, view in views.items():
        examples[name] = build_examples(ContextBuilder(policy.tokenizer, view, student=chat, teacher=chat), problems, rollouts)
    return score_views(policy, teacher or live_teacher(), objective or OPSD(), examples, **options)


def step_rows(tables: Mapping[str, TokenTable], problems: Sequence[Problem], solutions: Sequence[AnnotatedSolution]) -> pd.DataFrame:
    """Return the rows of `score_steps` for each view's table from `score_solutions`, after view, author and category; no text.

    `tables` are of the solutions of these `problems`. A row's `rollout` is the place of its solution among all `solutions`.
    """
    categories = {problem.id: problem.meta.get("category") for problem in problems}
    chosen = [(i, solution) for i, solution in enumerate(solutions) if solution.problem_id in categories]
    parts = []
    for name, table in tables.items():
        steps = score_steps(table, [solution.wrong_step for _, solution in chosen])
        steps.insert(0, "category", steps["problem_id"].map(categories))
        steps.insert(0, "author", [chosen[i][1].author for i in steps["rollout"]])
        steps.insert(0, "view", name)
        parts.append(steps.assign(rollout=[chosen[i][0] for i in steps["rollout"]]))
    return pd.concat(parts, ignore_index=True)


def measure_champ(
    policy: Policy,
    plan: Plan,
    solutions: Sequence[AnnotatedSolution],
    path: Path,
    *,
    model: str,
    chunk: int = CHUNK,
    progress: bool = True,
) -> pd.DataFrame:
    """Return the rows of `step_rows` for each scope of a plan, kept in a file that grows by a few problems at a time.

    A call that was interrupted goes on with the problems that the file does not have. Columns beside those of `step_rows` are
    `scope`, `model`, and `settings`, a digest of what the numbers depend on.

    Args:
        policy: the model, student and teacher.
        plan: each scope's problems, and the views under which their solutions are scored.
        solutions: CHAMP's.
        path: the Parquet file.
        model: what the rows call it.
        chunk: how many problems are scored before the file is written.
        progress: whether a bar shows the problems, and the time that is left.

    Raises:
        ValueError: when the file holds another measurement, that of another model, of other views or of other versions.
    """
    own, parts, written = policy_parts(policy) | versions(), {}, {}
    for solution in solutions:
        written.setdefault(solution.problem_id, []).append(solution)
    for scope, (problems, views) in plan.items():
        shown = digest(own | {key: text for name, view in views.items() for key, text in parts_of(name, view).items()})
        parts |= {digest([scope, shown, problem, written.get(problem.id)]): (scope, problem) for problem in problems}
    table = GrowingTable(path, list(parts))
    with tqdm(total=len(parts), initial=len(parts) - len(table.missing), desc="CHAMP", unit="problem", disable=not progress) as bar:
        for scope, (_, views) in plan.items():
            left = {parts[key][1].id: key for key in table.missing if parts[key][0] == scope}
            problems = [parts[key][1] for key in left.values()]
            for start in range(0, len(problems), chunk):
                some = problems[start : start + chunk]
                rows = step_rows(score_solutions(policy, some, solutions, views, progress=progress), some, solutions)
                rows[list(SIGNALS)] = rows[list(SIGNALS)].astype("float32")
                table.add(rows.assign(scope=scope, model=model, **{SETTINGS: rows["problem_id"].map(left)}))
                bar.update(len(some))
    return table.rows
