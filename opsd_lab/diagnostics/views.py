"""The same completions under several privileged views: any diagnostic side by side, and the views' paired differences."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from opsd_lab.diagnostics.alignment import CONTRAST, LABEL_GROUPS
from opsd_lab.diagnostics.estimates import Estimates, prepare
from opsd_lab.tokens.table import TokenTable


def by_view(function: Callable[..., pd.DataFrame], tables: Mapping[str, TokenTable], **options: object) -> pd.DataFrame:
    """Return a diagnostic of each view's table, below one another, with the view's name in a first column `view`.

    `options` go to the function.

    Raises:
        ValueError: when there are no views, or they hold different completions; and as the function does.
    """
    _check_completions(tables, "by_view")
    parts = []
    for view, table in tables.items():
        part = function(table, **options)
        part.insert(0, "view", view)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def compare_views(tables: Mapping[str, TokenTable], baseline: str, column: str = "gap") -> pd.DataFrame:
    """Return a column's mean over tokens minus that under the view `baseline`, which a column of that name repeats.

    The difference is paired, token by token. `label` is "all" and, where steps are
    labelled, the step's verdict as in `step_gap`, with the difference "incorrect - correct" of the differences.

    Raises:
        ValueError: when there is no other view than the baseline, the views hold different completions or labels, a table is
            empty, or the column holds no numbers.
    """
    if baseline not in tables or len(tables) < 2:
        raise ValueError(f"compare_views: the views are {list(tables)}; name one of two or more as the baseline, not {baseline!r}")
    _check_completions(tables, "compare_views")
    prepared = {view: prepare(table, f"compare_views, view {view!r}") for view, table in tables.items()}
    values = {view: rows.values(column, "compare_views") for view, rows in prepared.items()}
    label = prepared[baseline].frame["label"].to_numpy(dtype=object)
    estimates = Estimates(["view", "baseline", "label"])
    for view, rows in prepared.items():
        if (rows.frame["label"].to_numpy(dtype=object) != label).any():
            raise ValueError(f"compare_views: view {view!r} has other step labels than {baseline!r}; label the steps of all alike")
        if view == baseline:
            continue
        difference = values[view] - values[baseline]
        groups = {"all": np.ones(len(label), dtype=bool)}
        if (label != "").any():
            groups |= {name: label == ("" if name == "none" else name) for name in LABEL_GROUPS}
        for name, chosen in groups.items():
            estimates.add((view, baseline, name), rows.units, difference, chosen)
        if "none" in groups:
            estimates.subtract(*((view, baseline, name) for name in (CONTRAST, "incorrect", "correct")))
    return estimates.frame()


def teacher_contrast(first: TokenTable, second: TokenTable) -> TokenTable:
    """Return the second view's table with the first view's teacher in the student's place, so that its gap tells the two apart.

    The gap is how much more likely (nats) the second view's teacher finds a token than the first view's: the second gap minus the
    first, and any diagnostic of it is a paired comparison. Labels, outcomes, divergences and losses stay those of `second`.

    Raises:
        ValueError: when the two hold different completions, or the same ones in another order.
    """
    _check_completions({"first": first, "second": second}, "teacher_contrast")
    if not second.frame[["rollout", "position"]].equals(first.frame[["rollout", "position"]]):
        raise ValueError("teacher_contrast: the two tables hold their tokens in different orders; sort neither, or both alike")
    theirs = {f"student_{name}": first.frame[f"teacher_{name}"] for name in ("logprob", "entropy", "rank")}
    gap = second.frame["teacher_logprob"] - first.frame["teacher_logprob"]
    return TokenTable(second.frame.assign(**theirs, gap=gap))


def _check_completions(tables: Mapping[str, TokenTable], name: str) -> None:
    if not tables:
        raise ValueError(f"{name}: there are no views; give it a mapping from each view's name to its table")
    columns = ["rollout", "position", "token_id", "problem_id"]
    first, *others = ((view, _in_order(table)[columns]) for view, table in tables.items())
    for view, frame in others:
        shared = min(len(frame), len(first[1]))
        differs = np.zeros(shared, dtype=bool)
        for column in columns:
            differs |= frame[column].to_numpy()[:shared] != first[1][column].to_numpy()[:shared]
        if differs.any() or len(frame) != len(first[1]):
            at = int(differs.argmax()) if differs.any() else shared
            row = (frame if at < len(frame) else first[1]).iloc[at]
            raise ValueError(
                f"{name}: view {view!r} holds other completions than view {first[0]!r}, first at rollout {row['rollout']}, position "
                f"{row['position']}; score the same rollouts under every view (opsd_lab.supervision.score_views)"
            )


def _in_order(table: TokenTable) -> pd.DataFrame:
    return table.frame.sort_values(["rollout", "position"], ignore_index=True)
