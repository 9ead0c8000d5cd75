"""TokenTables made by hand, for diagnostics whose result is then known."""

import numpy as np
import pandas as pd

from opsd_lab.tokens.table import COLUMNS, TokenTable
from opsd_lab.tokens.top import TopTokens


def build(*rollouts: dict, top: TopTokens | None = None) -> TokenTable:
    """Return the table of some rollouts, each given by some of its columns: lists with one value per token, or one value for all.

    What is left out is 0 or "", and the problem "p0"; the teacher's log-probability is the gap, the student's 0.
    """
    parts = []
    for number, given in enumerate(rollouts):
        length = max(len(value) for value in given.values() if np.ndim(value))
        parts.append(pd.DataFrame({"rollout": number, "position": range(length), "problem_id": "p0", **given}))
    return complete(pd.concat(parts, ignore_index=True), top)


def complete(frame: pd.DataFrame, top: TopTokens | None = None) -> TokenTable:
    """Return the table of a frame that lacks columns."""
    default = {"token": "a", "step": -1} | {name: "" for name, kind in COLUMNS.items() if kind == "string" and name != "token"}
    columns = {name: frame[name].fillna(default.get(name, 0)) for name in frame}
    columns = {name: default.get(name, 0) for name in COLUMNS} | columns | {"teacher_logprob": columns.get("gap", 0)}
    return TokenTable(pd.DataFrame(columns, index=frame.index), top)


def simulated(seed: int, problems: int = 20, rollouts: int = 3, tokens: int = 16) -> TokenTable:
    """Return rollouts of steps of four tokens, whose gaps and outcomes are alike by problem and by rollout.

    The gaps are independent of labels and outcomes: every true contrast is 0.
    """
    rng = np.random.default_rng(seed)
    shape = (problems, rollouts, tokens)
    problem, rollout, position = (index.ravel() for index in np.indices(shape))
    gap = rng.normal(size=shape) + rng.normal(size=(problems, rollouts, 1)) + rng.normal(size=(problems, 1, 1))
    ease, labels = rng.beta(2, 2, size=(problems, 1, 1)), rng.random((problems, rollouts, tokens // 4))
    wrong = np.repeat(labels > ease, 4, axis=2).ravel()
    frame = pd.DataFrame(
        {"problem_id": [f"p{i:03d}" for i in problem], "rollout": problem * rollouts + rollout, "position": position}
    )
    frame["gap"], frame["divergence"] = gap.ravel(), np.abs(gap).ravel()
    frame["step"], frame["label"] = position // 4, np.where(wrong, "incorrect", "correct")
    frame["outcome"] = np.where(rollout == problem % rollouts, "correct", "incorrect")
    return complete(frame)


def row(result: pd.DataFrame, *key: object) -> pd.Series:
    """Return the one row whose grouping columns, which stand before `mean`, have these values."""
    names = list(result.columns[: result.columns.get_loc("mean")])[: len(key)]
    chosen = np.logical_and.reduce([result[name] == value for name, value in zip(names, key, strict=True)])
    assert chosen.sum() == 1, f"{key}: {chosen.sum()} rows"
    return result[chosen].iloc[0]
