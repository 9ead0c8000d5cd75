"""What a teacher says of the solutions that a model wrote itself: at its first wrong step, and at sound steps after it."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from opsd_lab.contexts import ChatFormat, View, answer_only, no_privilege, other_problem, reference_solution
from opsd_lab.diagnostics import result_digits, step_gap
from opsd_lab.divergences import forward_kl
from opsd_lab.experiments.supervision_study import study_tables
from opsd_lab.objectives import OPSD, Pushed, Sum
from opsd_lab.policies.policy import Policy
from opsd_lab.policies.teachers import live_teacher
from opsd_lab.problems.problem import Problem
from opsd_lab.rollouts import SamplingParams
from opsd_lab.supervision.kept_rollouts import kept_rollouts

CLIPS = {"push": None, "push_clipped": 0.05}  # the second is that of version 3 of OPSD, arXiv 2601.18734
LABELLED = ("correct", "incorrect")


def own_solutions(
    policy: Policy, problems: Sequence[Problem], sampling: SamplingParams, parts: str | Path, *, chat: ChatFormat | None = None
) -> pd.DataFrame:
    """Return estimates of what a model's own steps are told under each view, with 95 % intervals over problems.

    One row for each view, `clip` (0 for none), `column`, label of a step and place of it relative to the first wrong one (`step_gap`
    by both), and for the digits of results (`result_digits`, in `group`). `column` is "gap", or "push": minus the derivative of the
    forward KL by the token's own logit. The clip does not change the gap, so its rows have pushes only.

    Args:
        policy: the model, student and teacher.
        problems: what it writes about; they need solutions, and are the donors of the other problem's.
        sampling: how its solutions are drawn.
        parts: a folder for the rollouts and finished parts of the scoring; a call that was interrupted goes on there.
        chat: both sides' format; None is `ChatFormat()`.

    Raises:
        ValueError: where no step can be judged, or `parts` holds other rollouts or the parts of another scoring.
    """
    chat, folder, found = chat or ChatFormat(), Path(parts), []
    views = solution_views(problems)
    rollouts = kept_rollouts(policy, problems, sampling, chat, folder)
    pushed = tuple(Pushed(OPSD(forward_kl, pointwise_clip=clip), column) for column, clip in CLIPS.items())
    both = Sum(pushed, (1.0,) * len(pushed))  # one pass for all; the sum itself is not looked at
    tables = study_tables(policy, live_teacher(), problems, rollouts, views, chat=chat, objective=both, parts=folder / "scores")
    for view, table in tables.items():
        if not table.frame["label"].isin(LABELLED).any():
            raise ValueError(f"own_solutions: none of the {len(rollouts)} solutions has an equation that can be judged")
        for column in ("gap", *CLIPS):
            by_phase, digits = step_gap(table, column, ("label", "error_phase")), result_digits(table, column)
            told = {"view": view, "clip": CLIPS.get(column) or 0.0, "column": column.removesuffix("_clipped")}
            found.append(pd.concat([by_phase, digits]).assign(**told))
    return pd.concat(found, ignore_index=True).assign(
        n_solutions=len(rollouts), n_right=int(table.frame.drop_duplicates("rollout")["outcome"].eq("correct").sum())
    )


def solution_views(problems: Sequence[Problem]) -> dict[str, View]:
    """Return the views that are compared; `problems` are the donors of the other problem's solution."""
    return {"reference": reference_solution, "answer": answer_only, "other problem": other_problem(problems), "none": no_privilege}
