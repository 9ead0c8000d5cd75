"""Ratios of sums over problems, with their bounds: the one kind of number that every diagnostic is made of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pandas as pd

from opsd_lab.evaluation.estimate import ESTIMATE
from opsd_lab.evaluation.jackknife import Jackknife, few_problems, least_error
from opsd_lab.tokens.table import TokenTable

UNSCORED = "the table is empty; score some rollouts first (opsd_lab.supervision.score_rollouts)"
UNLABELLED = "no step of the table is labelled; label its steps first (opsd_lab.steps.labels.label_steps)"
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
    "n": lambda units, chosen: _distinct(units.problem[chosen]),
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
    # Sorted ids: tables of the same problems number them alike, whatever order their rollouts stand in.
    problem = pd.factorize(frame["problem_id"], sort=True)[0]
    return Prepared(table, Units(problem, codes, steps, np.ones(len(frame), dtype=np.int64)), place, length)


@dataclass(frozen=True)
class _Row:
    """Sums over each problem [P] of a row's top and bottom, where they come from, and what kind of number their ratio is."""

    top: np.ndarray
    bottom: np.ndarray
    units: Units
    chosen: np.ndarray
    share: bool
    around: float | None


class Estimates:
    """Gathers the rows of a diagnostic, then leaves out each problem once for all of them.

    `names` are the grouping columns, `counts` the names in `COUNTS` that the result has beside the number of problems.
    """

    def __init__(self, names: Sequence[str], counts: Sequence[str] = ("n_rollouts", "n_tokens")) -> None:
        self.names = list(names)
        self.counts = list(counts)
        self.rows: dict[Key, _Row] = {}
        self.minus: dict[Key, tuple[Key, Key]] = {}
        self.keys: list[Key] = []

    def add(
        self,
        key: Key,
        units: Units,
        top: np.ndarray,
        chosen: np.ndarray,
        bottom: np.ndarray | None = None,
        *,
        share: bool = False,
        around: float | None = None,
    ) -> None:
        """Add the row `key`: the sum of `top` [U] over the units in the mask `chosen` [U], by the sum of `bottom` [U].

        Without `bottom` that is the mean over the chosen units. A `bottom` that is given is summed over all units. A `share` lies
        in [0, 1], and so do its bounds; `around` is shown in place of its value, as the middle of its bounds.
        """
        problems = int(units.problem.max(initial=-1)) + 1
        above = np.bincount(units.problem[chosen], np.asarray(top, dtype=np.float64)[chosen], problems)
        if bottom is None:
            below = np.bincount(units.problem[chosen], minlength=problems).astype(np.float64)
        else:
            below = np.bincount(units.problem, bottom, problems)
        self.rows[key] = _Row(above, below, units, chosen, share, around)
        self.keys.append(key)

    def subtract(self, key: Key, plus: Key, minus: Key) -> None:
        """Add the row `key`: row `plus` minus row `minus`, both of the same units."""
        self.minus[key] = plus, minus
        self.keys.append(key)

    def frame(self) -> pd.DataFrame:
        """Return the rows in the order they were added: grouping columns, `mean`, `low`, `high` (95 %), `n`, `unit`, counts, `note`.

        A row without units, or whose denominator is not positive, has no mean; one with fewer than two problems, on either side of a
        difference, no bounds, and neither has a mean of any size of which nearly all problems' parts are 0 (`Jackknife.too_few`).
        `note` says so, and which rows rest on few problems.
        """
        place = {key: i for i, key in enumerate(self.rows)}
        found, bounds, units = self._bounds()
        numbers = {key: (found.mean[i], *bounds[:, i]) for key, i in place.items()}
        plus, minus = (np.array([place[pair[side]] for pair in self.minus.values()], dtype=np.int64) for side in (0, 1))
        if self.minus:
            # Shares that always agree are not known to be equal; means of any size have no least spread.
            shares = np.array([row.share for row in self.rows.values()])
            per_problem = np.divide(units, found.problems, out=np.ones(len(units)), where=found.problems > 0)
            least = np.where(shares[plus], least_error(found.problems, per_problem)[plus], 0.0)
            low, high = found.difference_bounds(minus, plus, least)
            for i, key in enumerate(self.minus):
                numbers[key] = (found.mean[plus[i]] - found.mean[minus[i]], low[i], high[i])
        rows = []
        for key in self.keys:
            sides = self.minus.get(key, (key,))
            parts = [self.rows[side] for side in sides]
            chosen = np.logical_or.reduce([part.chosen for part in parts])
            counts = [COUNTS[name](parts[0].units, chosen) for name in self.counts]
            note = self._note(found, [place[side] for side in sides])
            rows.append((*key, *numbers[key], COUNTS["n"](parts[0].units, chosen), "problems", *counts, note))
        return pd.DataFrame(rows, columns=[*self.names, *ESTIMATE, *self.counts, "note"])

    def _note(self, found: Jackknife, places: Sequence[int]) -> str:
        """Return what is said of the side of an estimate that rests on the fewest problems."""
        rows = list(self.rows.values())
        weakest = min(places, key=lambda i: (COUNTS["n"](rows[i].units, rows[i].chosen), found.effective[i]))
        sparse = [i for i in places if found.too_few[i] and not rows[i].share]
        i = sparse[0] if sparse else weakest
        nonzero = int(found.nonzero[i]) if sparse else None
        return few_problems(COUNTS["n"](rows[i].units, rows[i].chosen), float(found.effective[i]), nonzero)

    def _bounds(self) -> tuple[Jackknife, np.ndarray, np.ndarray]:
        """Return the rows that are no differences [G], their bounds [2, G], and their numbers of units [G]."""
        sums = np.zeros((2, max(len(row.top) for row in self.rows.values()), len(self.rows)))
        for i, row in enumerate(self.rows.values()):
            if row.chosen.any():
                sums[0, : len(row.top), i], sums[1, : len(row.top), i] = row.top, row.bottom
        found = Jackknife.of_ratios(*sums)
        around = np.array([np.nan if row.around is None else row.around for row in self.rows.values()])
        found = replace(found, mean=np.where(np.isnan(around) | np.isnan(found.mean), found.mean, around))
        units = np.array([row.chosen.sum() for row in self.rows.values()], dtype=np.float64)
        # A divergence that a clip has made negative can put a share outside [0, 1].
        shares = np.array([row.share for row in self.rows.values()]) & (found.mean >= 0) & (found.mean <= 1)
        with np.errstate(invalid="ignore"):
            return found, np.where(shares, found.share_bounds(units), found.bounds()), units
