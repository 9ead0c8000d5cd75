"""Intervals from leaving one problem out at a time: for means, ratios, areas, and their differences.

Samples, tokens and steps of one problem resemble each other, so that a problem is what counts as independent. A statistic is
computed once with all problems and once without each; how far the latter lie from the former says how sure it is (the delete-one
jackknife; Efron and Tibshirani 1993, chapter 11). Where problems differ in size, Student's t has as many degrees of freedom as
the problems that would weigh as much if they were equal (Kish 1965) allow. Nothing is drawn at random.

`tests/simulated_coverage.py` simulates how often the bounds hold the truth. `few_problems` says where they are rough, and `too_few`
where there are none: no interval can be made of a handful of values that are not 0.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

Bounds = tuple[np.ndarray, np.ndarray]

FEW_PROBLEMS = 30
"""With fewer problems of equal weight than this, an interval is only as good as its values are near to normal; tables then say so."""

FEWEST_NONZERO = 5
"""With fewer problems than this whose value is not 0, a mean that may be of any size has no bounds."""


@dataclass(frozen=True)
class Jackknife:
    """G statistics of P problems, and what each problem does to them.

    `mean` [G] are the statistics, NaN where there is none. `shifts` [P, G] say what leaving a problem out adds. `problems` [G]
    counts the problems that a statistic rests on, `nonzero` [G] those whose part of it is not 0, and `effective` [G] those that
    would weigh as much if they were equal.
    """

    mean: np.ndarray
    shifts: np.ndarray
    problems: np.ndarray
    nonzero: np.ndarray
    effective: np.ndarray

    @classmethod
    def of_ratios(cls, top: np.ndarray, bottom: np.ndarray) -> "Jackknife":
        """Return the ratios of the sums over problems of `top` to those of `bottom`, both [P, G].

        A ratio whose bottom is not positive has no value, and one that loses its value without some problem has no bounds.
        """
        whole, below = top.sum(axis=0), bottom.sum(axis=0)
        mean = _divide(whole, below)
        shifts = _divide(whole - top, below - bottom) - mean
        used = (bottom != 0) | (top != 0)
        sizes = np.abs(bottom).sum(axis=0)
        effective = np.divide(sizes**2, (bottom**2).sum(axis=0), out=np.zeros(len(sizes)), where=sizes > 0)
        return cls(mean, np.where(used, shifts, 0.0), used.sum(axis=0), (top != 0).sum(axis=0), effective)

    @classmethod
    def of_means(cls, values: np.ndarray) -> "Jackknife":
        """Return the means of one value per problem, [P, G]."""
        return cls.of_ratios(values, np.ones(values.shape))

    @property
    def parts(self) -> np.ndarray:
        """What each problem adds to each statistic [P, G], so that the squares add up to the variance; NaN for a single problem."""
        few = self.problems < 2
        factor = np.where(few, np.nan, (self.problems - 1) / np.maximum(self.problems, 1))
        return -self.shifts * np.sqrt(factor)  # without a large value a mean is lower

    @property
    def variance(self) -> np.ndarray:
        """The squared standard error of each statistic [G]; NaN with fewer than two problems."""
        return (self.parts**2).sum(axis=0)

    def quantile(self, confidence: float = 0.95) -> np.ndarray:
        """Return Student's t [G] at the confidence."""
        return stats.t.ppf((1 + confidence) / 2, np.maximum(self.effective - 1, 1.0))

    @property
    def too_few(self) -> np.ndarray:
        """Which statistics of any size rest on too few problems that are not 0 to have bounds [G]."""
        return self.nonzero < np.minimum(FEWEST_NONZERO, self.problems)

    def bounds(self, confidence: float = 0.95) -> Bounds:
        """Return the lower and upper bounds [G] of statistics of any size; NaN with fewer than two problems, and where `too_few`."""
        parts = np.where(self.too_few, np.nan, self.parts)
        return wider_bounds(self.mean, parts, self.quantile(confidence))

    def difference_bounds(
        self, first: np.ndarray, second: np.ndarray, least: np.ndarray | float = 0.0, confidence: float = 0.95
    ) -> Bounds:
        """Return the bounds [D] of the statistics `second` [D] minus the statistics `first` [D], problem by problem.

        Both are given by their numbers among the G. `least` [D] is the smallest standard error that is taken for possible
        (`least_error`); without one, differences of which a side is `too_few` have no bounds. `confidence` is that of both bounds
        together, 0.95 for 95 %.
        """
        sparse = (self.too_few[first] | self.too_few[second]) & (np.asarray(least) == 0)
        parts = np.where(sparse, np.nan, self.parts[:, second] - self.parts[:, first])
        quantile = np.maximum(*(self.quantile(confidence)[side] for side in (first, second)))
        return wider_bounds(self.mean[second] - self.mean[first], parts, quantile, least)

    def share_bounds(self, units: np.ndarray, confidence: float = 0.95) -> Bounds:
        """Return the bounds [G] of statistics in [0, 1], which stay inside and have a width at 0 and 1.

        Agresti and Coull's interval (1998) for as many independent trials as would have this variance, `units` [G] at most (as Dean
        and Pagano 2015 use it for clustered samples). Without any variance a problem counts as one trial. On the side of the longer
        tail, that of the few problems unlike the others, `skewed_bounds` are taken where they are farther.
        """
        variance, t = self.variance, self.quantile(confidence)
        inside = self.mean * (1 - self.mean)
        trials = np.divide(inside, variance, out=np.where(np.isnan(variance), np.nan, self.problems), where=variance > 1e-15)
        trials = np.where(inside > 1e-15, np.minimum(trials, np.maximum(units, 1)), trials)
        low, high = share_bounds(self.mean, trials, t)
        skewness = skewness_of(self.parts)
        below, above = (bound.clip(0, 1) for bound in skewed_bounds(self.mean, np.sqrt(variance), t, skewness))
        return np.where(skewness < 0, np.minimum(low, below), low), np.where(skewness > 0, np.maximum(high, above), high)


def wider_bounds(mean: np.ndarray, parts: np.ndarray, quantile: np.ndarray, least: np.ndarray | float = 0.0) -> Bounds:
    """Return the bounds [G] of statistics with the parts [P, G]: on each side the farther of Student's and `skewed_bounds`.

    `mean` [G] are the statistics. `quantile` [G] is Student's t at the confidence wanted. `least` [G] is the smallest standard error
    that is taken for possible.
    """
    error = np.maximum(np.sqrt((parts**2).sum(axis=0)), least)
    low, high = skewed_bounds(mean, error, quantile, skewness_of(parts))
    return np.minimum(mean - quantile * error, low), np.maximum(mean + quantile * error, high)  # NaN where one of them is


def skewness_of(parts: np.ndarray) -> np.ndarray:
    """Return the skewness of parts [P, G], divided by the root of their number [G]."""
    squares = (parts**2).sum(axis=0)
    return np.divide((parts**3).sum(axis=0), squares**1.5, out=np.zeros(len(squares)), where=squares > 0)


def skewed_bounds(mean: np.ndarray, error: np.ndarray, quantile: np.ndarray, skewness: np.ndarray) -> Bounds:
    """Return the bounds [G] by the inverse of Hall's cubic transformation of Student's statistic (1992).

    `mean` [G] are the statistics, and `error` [G] their standard errors. `quantile` [G] is Student's t at the confidence wanted.
    `skewness` [G] is that of the observations, divided by the root of their number.
    """
    return mean - unskewed(quantile, skewness) * error, mean - unskewed(-quantile, skewness) * error


def least_error(problems: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Return the least standard error of a difference of shares: half a problem won and half one lost, by one of its samples.

    So Agresti and Min (2005) add them; with it, equal sides are not known to be equal.
    """
    return 1 / np.sqrt(samples * (problems + 2.0) ** 2)


def unskewed(value: np.ndarray, skewness: np.ndarray) -> np.ndarray:
    """Return the value of Student's statistic that Hall's cubic transformation takes to `value`, both [G].

    `skewness` [G] is that of the observations, divided by the root of their number.
    """
    straight = np.abs(skewness) < 1e-6
    skewness = np.where(straight, 1e-6, skewness)
    return np.where(straight, value, 3 / skewness * (np.cbrt(1 + skewness * (value - skewness / 6)) - 1))


def share_bounds(mean: np.ndarray, trials: np.ndarray, quantile: np.ndarray) -> Bounds:
    """Return Agresti and Coull's bounds of shares for so many trials at a quantile of the normal or of Student's t, all [G]."""
    more = trials + quantile**2
    centre = (mean * trials + quantile**2 / 2) / more
    half = quantile * np.sqrt(centre * (1 - centre) / more)
    return (centre - half).clip(min=0), (centre + half).clip(max=1)


def _divide(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return np.divide(top, bottom, out=np.full(np.shape(top), np.nan), where=bottom > 0)


def few_problems(count: int, effective: float = np.inf, nonzero: int | None = None) -> str:
    """Return what a table says of bounds that rest on so many problems; nothing where they are many.

    `effective` is their number if they weighed alike, `nonzero` counts those that are not 0 where that matters (`too_few`).
    """
    if count < 2:
        return "too few problems for bounds" if count else ""
    if nonzero is not None and nonzero < min(FEWEST_NONZERO, count):
        return f"no bounds: {nonzero} of {count} problems differ from 0"
    if count < FEW_PROBLEMS:
        return f"rough bounds: {count} problems"
    return f"rough bounds: {count} problems weigh like {effective:.0f} equal ones" if effective < FEW_PROBLEMS else ""
