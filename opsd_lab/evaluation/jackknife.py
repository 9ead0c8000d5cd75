"""Intervals from leaving one problem out at a time: for means, ratios, areas, and their differences.

Samples, tokens and steps of one problem resemble each other, so that a problem is what counts as independent. A statistic is
computed once with all problems and once without each; how far the latter lie from the former says how sure it is (the delete-one
jackknife; Efron and Tibshirani 1993, chapter 11). Where problems differ in size, Student's t has as many degrees of freedom as
the problems that would weigh as much if they were equal (Kish 1965) allow. Nothing is drawn at random.

Few values other than 0 are too few for this: where a problem has .8 values on average and nine of ten are 0, 95 % intervals held the
simulated truth in .65, .81 and .89 of the cases with 20, 50 and 200 problems. Shares of very unequal problems came to .91 with 20.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

Bounds = tuple[np.ndarray, np.ndarray]

FEW_PROBLEMS = 30
"""With fewer problems than this, an interval is only as good as its values are near to normal; tables then say so."""


@dataclass(frozen=True)
class Jackknife:
    """G statistics of P problems, and what each problem does to them.

    `mean` [G] are the statistics, NaN where there is none. `shifts` [P, G] say what leaving a problem out adds. `problems` [G]
    counts the problems that a statistic rests on, `effective` [G] those that would weigh as much if they were equal.
    """

    mean: np.ndarray
    shifts: np.ndarray
    problems: np.ndarray
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
        return cls(mean, np.where(used, shifts, 0.0), used.sum(axis=0), effective)

    @classmethod
    def of_means(cls, values: np.ndarray) -> "Jackknife":
        """Return the means of one value per problem, [P, G]."""
        return cls.of_ratios(values, np.ones(values.shape))

    @property
    def variance(self) -> np.ndarray:
        """The squared standard error of each statistic [G]; NaN with fewer than two problems."""
        few = self.problems < 2
        factor = np.where(few, np.nan, (self.problems - 1) / np.maximum(self.problems, 1))
        return factor * (self.shifts**2).sum(axis=0)

    def quantile(self, confidence: float = 0.95) -> np.ndarray:
        """Return Student's t [G] at the confidence."""
        return stats.t.ppf((1 + confidence) / 2, np.maximum(self.effective - 1, 1.0))

    def bounds(self, confidence: float = 0.95) -> Bounds:
        """Return the lower and upper bounds [G] of statistics of any size; NaN with fewer than two problems."""
        half = self.quantile(confidence) * np.sqrt(self.variance)
        return self.mean - half, self.mean + half

    def share_bounds(self, units: np.ndarray, confidence: float = 0.95) -> Bounds:
        """Return the bounds [G] of statistics in [0, 1], which stay inside and have a width at 0 and 1.

        Wilson's score interval (1927) for as many independent trials as would have this variance, `units` [G] at most (Korn and
        Graubard 1998 do the same with another interval). Without any variance a problem counts as one trial.
        """
        variance, t = self.variance, self.quantile(confidence)
        inside = self.mean * (1 - self.mean)
        trials = np.divide(inside, variance, out=np.where(np.isnan(variance), np.nan, self.problems), where=variance > 1e-15)
        trials = np.where(inside > 1e-15, np.minimum(trials, np.maximum(units, 1)), trials)
        return wilson_bounds(self.mean, trials, t)

    def correlation(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return how the statistics `first` [D] vary with the statistics `second` [D] over problems; 0 where one does not vary."""
        ours, theirs = self.shifts[:, first], self.shifts[:, second]
        sizes = np.sqrt((ours**2).sum(axis=0) * (theirs**2).sum(axis=0))
        return np.clip(np.divide((ours * theirs).sum(axis=0), sizes, out=np.zeros(len(sizes)), where=sizes > 0), -1, 1)


def wilson_bounds(mean: np.ndarray, trials: np.ndarray, quantile: np.ndarray) -> Bounds:
    """Return Wilson's bounds of shares for so many trials at a quantile of the normal or of Student's distribution, all [G]."""
    weight = quantile**2 / trials
    centre = (mean + weight / 2) / (1 + weight)
    half = np.sqrt(weight * (mean * (1 - mean) + weight / 4)) / (1 + weight)
    # Rounding can leave a bound on the wrong side of a mean of 0 or 1.
    return np.minimum(centre - half, mean).clip(min=0), np.maximum(centre + half, mean).clip(max=1)


def difference_bounds(
    found: Jackknife, bounds: np.ndarray, plus: np.ndarray, minus: np.ndarray, units: np.ndarray | None = None
) -> Bounds:
    """Return the bounds [D] of the statistics `plus` minus the statistics `minus` [D], from their own bounds [2, G].

    Each side's distance to its bounds is added to the other's as variances are, less what their correlation over problems takes
    off (Zou and Donner 2008; for two shares Newcombe 1998, method 10). Statistics that are shares of `units` [G] are not taken
    to vary quite alike, however they agree, so that no difference of shares is known exactly from a sample.
    """
    correlation = found.correlation(plus, minus)
    if units is not None:
        correlation = np.minimum(correlation, 1 - 2 / np.maximum(np.minimum(units[plus], units[minus]), 2))
    (low, high), mean = bounds, found.mean
    difference = mean[plus] - mean[minus]

    def reach(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
        return np.sqrt(np.maximum(ours**2 - 2 * correlation * ours * theirs + theirs**2, 0))

    down = reach(mean[plus] - low[plus], high[minus] - mean[minus])
    return difference - down, difference + reach(high[plus] - mean[plus], mean[minus] - low[minus])


def _divide(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return np.divide(top, bottom, out=np.full(np.shape(top), np.nan), where=bottom > 0)
