"""Ratios of sums over problems, with their cluster bootstrap: the one kind of number that every diagnostic is made of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from opsd_lab.statistics import percentile_bounds, resample_sums
from opsd_lab.token_table import TokenTable

UNSCORED = "the table is empty; score some rollouts first (opsd_lab.supervision.score_rollouts)"
UNLABELLED = "no step of the table is labelled; label its steps first (opsd_lab.labels.label_steps)"
UNJUDGED = "no rollout of the table has an outcome; set them first (opsd_lab.diagnostics.with_outcomes)"

Key = tuple[object, ...]


@dataclass(frozen=True)
class Units:
    """What is averaged: U tokens, steps or rollouts, and where each belongs.

    `problem` [U] and `rollout` [U] number problems and rollouts from 0, `step` [U] the steps of the whole table (-1: in none);
    `tokens` [U] says how many tokens a unit is made of.
    """

    problem: np.ndarray
    rollout: np.ndarray
    step: np.ndarray
    tokens: np.ndarray

    def __len__(self) -> int:
        return len(self.problem)

    def averages(self, values: np.ndarray, number: np.ndarray) -> tuple["Units", np.ndarray, np.ndarray]:
        """Return larger units, each the mean of those that have the same `number` [U] (-1: left out).

        The second result holds their means, the third the index of each one's first part; the units stand in ascending number.
        """
        inside = np.flatnonzero(number >= 0)
        _, firsts, codes = np.unique(number[inside], return_index=True, return_inverse=True)
        first = inside[firsts]
        tokens = np.bincount(codes, self.tokens[inside], len(first)).astype(np.int64)
        means = np.bincount(codes, values[inside], len(first)) / np.bincount(codes, minlength=len(first))
        return Units(self.problem[first], self.rollout[first], self.step[first], tokens), means, first


COUNTS: dict[str, Callable[[Units, np.ndarray], int]] = {
    "n_problems": lambda units, chosen: _distinct(units.problem[chosen]),
    "n_rollouts": lambda units, chosen: _distinct(units.rollout[chosen]),
    "n_steps": lambda units, chosen: _distinct(units.step[chosen]),
    "n_tokens": lambda units, chosen: int(units.tokens[chosen].sum()),
}


def _distinct(codes: np.ndarray) -> int:
    return int(np.count_nonzero(np.bincount(codes[codes >= 0])))


@dataclass(frozen=True)
class Prepared:
    """A table's rows in reading order, rollout by rollout, with what the diagnostics ask of each.

    `place` [N] is a token's index among its rollout's tokens in the table, `length` [N] their number.
    """

    table: TokenTable
    units: Units
    place: np.ndarray
    length: np.ndarray

    @property
    def frame(self) -> pd.DataFrame:
        """The rows."""
        return self.table.frame

    @property
    def quarter(self) -> np.ndarray:
        """The quarter of its rollout that each token lies in [N], from 0: token i of n lies in quarter floor(4 i / n)."""
        return 4 * self.place // self.length

    def values(self, column: str, name: str) -> np.ndarray:
        """Return a column of numbers [N].

        Raises:
            ValueError: when the table has no such column.
        """
        if column not in self.frame or self.frame[column].dtype != np.float64:
            numbers = [c for c in self.frame if self.frame[c].dtype == np.float64]
            raise ValueError(f"{name}: column {column!r} holds no numbers to average; choose one of {numbers}")
        return self.frame[column].to_numpy()

    def firsts(self) -> np.ndarray:
        """Return the index of each rollout's first token [R]."""
        return np.flatnonzero(self.place == 0)

    def texts(self) -> list[str]:
        """Return each rollout's joined tokens [R]."""
        tokens = self.frame["token"].tolist()
        bounds = [*self.firsts().tolist(), len(tokens)]
        return ["".join(tokens[start:end]) for start, end in pairwise(bounds)]


def prepare(table: TokenTable, name: str) -> Prepared:
    """Return the table's rows in reading order, for the diagnostic called `name`.

    Raises:
        ValueError: when the table is empty.
    """
    if not len(table):
        raise ValueError(f"{name}: {UNSCORED}")
    order = np.lexsort([table.frame["position"].to_numpy(), table.frame["rollout"].to_numpy()])
    if (np.diff(order) < 0).any():
        table = TokenTable(table.frame.iloc[order], None if table.top is None else table.top.rows(order))
    frame = table.frame
    rollout = frame["rollout"].to_numpy()
    first = np.append(True, rollout[1:] != rollout[:-1])
    codes = np.cumsum(first) - 1
    place = np.arange(len(frame)) - np.flatnonzero(first)[codes]
    length = np.bincount(codes)[codes]
    step = frame["step"].to_numpy()
    steps = np.where(step >= 0, codes * (step.max() + 2) + step, -1)
    steps[step >= 0] = np.unique(steps[step >= 0], return_inverse=True)[1]
    # Sorted ids: tables of the same problems are resampled alike, whatever order their rollouts stand in.
    problem = pd.factorize(frame["problem_id"], sort=True)[0]
    return Prepared(table, Units(problem, codes, steps, np.ones(len(frame), dtype=np.int64)), place, length)


class Estimates:
    """Gathers the rows of a diagnostic, then resamples whole problems once for all of them.

    `names` are the grouping columns, `counts` the names in `COUNTS` that the result has.
    """

    def __init__(self, names: Sequence[str], counts: Sequence[str] = ("n_problems", "n_rollouts", "n_tokens")) -> None:
        self.names = list(names)
        self.counts = list(counts)
        self.sums: dict[Key, tuple[np.ndarray, np.ndarray]] = {}
        self.parts: dict[Key, tuple[Units, np.ndarray]] = {}
        self.minus: dict[Key, tuple[Key, Key]] = {}

    def add(self, key: Key, units: Units, top: np.ndarray, chosen: np.ndarray, bottom: np.ndarray | None = None) -> None:
        """Add the row `key`: the sum of `top` [U] over the units in the mask `chosen` [U], by the sum of `bottom` [U].

        Without `bottom` that is the mean over the chosen units. A `bottom` that is given is summed over all units.
        """
        problems = int(units.problem.max(initial=-1)) + 1
        above = np.bincount(units.problem[chosen], np.asarray(top, dtype=np.float64)[chosen], problems)
        if bottom is None:
            below = np.bincount(units.problem[chosen], minlength=problems).astype(np.float64)
        else:
            below = np.bincount(units.problem, bottom, problems)
        self.sums[key] = above, below
        self.parts[key] = units, chosen

    def subtract(self, key: Key, plus: Key, minus: Key) -> None:
        """Add the row `key`: row `plus` minus row `minus`, both of the same units."""
        units, chosen = self.parts[plus]
        self.parts[key] = units, chosen | self.parts[minus][1]
        self.minus[key] = plus, minus

    def frame(self, resamples: int, seed: int) -> pd.DataFrame:
        """Return the rows: the grouping columns, `mean`, `low` and `high` (95 %, percentile), and the counts.

        A row without units, or whose denominator is not positive, has no mean; one with fewer than two problems, on either
        side of a difference, no bounds. Resamples in which a row has no value do not count for its bounds.

        Raises:
            ValueError: when `resamples` is not positive.
        """
        width = max(len(above) for above, _ in self.sums.values())
        sums = np.zeros((width, 2, len(self.sums)))
        for i, parts in enumerate(self.sums.values()):
            for j, part in enumerate(parts):
                sums[: len(part), j, i] = part
        keys = list(self.sums)
        counts = {key: [COUNTS[name](*part) for name in self.counts] for key, part in self.parts.items()}
        empty = np.array([not self.parts[key][1].any() for key in keys])
        few = np.array([COUNTS["n_problems"](*self.parts[key]) < 2 for key in keys])
        mean = _ratios(sums.sum(axis=0), empty)
        draws = _ratios(resample_sums(sums, resamples, seed), empty | few)
        columns = {key: (mean[i], draws[:, i]) for i, key in enumerate(keys)}
        for key, (plus, minus) in self.minus.items():
            columns[key] = tuple(a - b for a, b in zip(columns[plus], columns[minus], strict=True))
        low, high = percentile_bounds(np.stack([columns[key][1] for key in self.parts], axis=1))
        rows = [
            (*key, columns[key][0], low[i], high[i], *counts[key])  # the order in which the rows were added
            for i, key in enumerate(self.parts)
        ]
        return pd.DataFrame(rows, columns=[*self.names, "mean", "low", "high", *self.counts])


def _ratios(sums: np.ndarray, without: np.ndarray) -> np.ndarray:
    """Return top by bottom [..., G] of sums [..., 2, G], NaN where the bottom is not positive or a group is to go without."""
    top, bottom = sums[..., 0, :], sums[..., 1, :]
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=(bottom > 0) & ~without)
