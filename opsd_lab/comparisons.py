"""Whether one arm is better than another: paired tests over problems and over seeds, corrected for their number. Knows no models."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as exact_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_effectsize

from opsd_lab.statistics import Interval

LEAST_PROBLEMS = 10
LEAST_SEEDS = 2


@dataclass(frozen=True)
class Difference:
    """How much better the first of two arms is: the mean difference with its bounds, and a two-sided p-value."""

    mean: float
    low: float
    high: float
    p: float

    def __str__(self) -> str:
        return f"{self.mean:+.2f} [{self.low:+.2f}, {self.high:+.2f}], p = {self.p:.3g}"


def paired_bootstrap(
    first: np.ndarray, second: np.ndarray, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Difference:
    """Compare the accuracies [S, P] of two arms, seed by seed and problem by problem.

    Seeds and problems are both resampled, crossed: a resample has the same problems under every seed, and the same of both for both
    arms (Owen 2007, "the pigeonhole bootstrap", which errs on the wide side). The p-value is twice the smaller share of resamples
    on either side of 0, at least 2 / (resamples + 1). With one seed, only problems are resampled.

    Raises:
        ValueError: when the shapes differ, a value is missing, or there are fewer than 10 problems.
    """
    difference = _paired(first, second)
    seeds, problems = difference.shape
    rng = np.random.default_rng(seed)
    drawn = np.empty(resamples)
    rows = max(1, 4_000_000 // max(problems, seeds))
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        of_seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), count) if seeds > 1 else np.ones((count, 1))
        of_problems = rng.multinomial(problems, np.full(problems, 1 / problems), count)
        drawn[start : start + count] = np.einsum("rs,sp,rp->r", of_seeds, difference, of_problems, optimize=True) / difference.size
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    below, above = ((drawn <= 0).sum() + 1) / (resamples + 1), ((drawn >= 0).sum() + 1) / (resamples + 1)
    return Difference(float(difference.mean()), float(low), float(high), float(min(1.0, 2 * min(below, above))))


def paired_seeds(first: np.ndarray, second: np.ndarray, confidence: float = 0.95) -> Difference:
    """Compare two arms by their accuracies [S], seed by seed: Student's paired t test and interval.

    The seed is the unit: what holds here holds for other seeds, on these problems.

    Raises:
        ValueError: when the shapes differ, a value is missing, or there are fewer than 2 seeds.
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1 or not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError(f"paired seeds need one finite value per seed and arm, not shapes {first.shape} and {second.shape}")
    if len(first) < LEAST_SEEDS:
        raise ValueError(f"a t test over {len(first)} seed(s) says nothing; run at least {LEAST_SEEDS}")
    difference = first - second
    if np.ptp(difference) == 0:  # no spread: the t statistic has no value
        same = float(difference[0])
        return Difference(same, same, same, 1.0 if same == 0 else 0.0)
    found = stats.ttest_rel(first, second)
    low, high = found.confidence_interval(confidence)
    return Difference(float(difference.mean()), float(low), float(high), float(found.pvalue))


def seed_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Return the mean of one value per seed with its t interval; the bounds are NaN for a single seed."""
    values = np.asarray(values, dtype=np.float64)
    if values.size == 0 or not np.isfinite(values).all():
        raise ValueError("a seed interval needs one finite value per seed")
    mean = float(values.mean())
    if values.size == 1:
        return Interval(mean, math.nan, math.nan, 1)
    half = float(stats.t.ppf((1 + confidence) / 2, values.size - 1) * values.std(ddof=1) / math.sqrt(values.size))
    return Interval(mean, mean - half, mean + half, values.size)


def mcnemar(first: np.ndarray, second: np.ndarray) -> tuple[int, int, float]:
    """Return how many problems only the first arm solves, how many only the second, and McNemar's exact p-value (1947).

    Raises:
        ValueError: when the arms' verdicts [P] are not true and false, differ in number, or are fewer than 10.
    """
    first, second = np.asarray(first), np.asarray(second)
    if not (np.isin(first, (0, 1)).all() and np.isin(second, (0, 1)).all()):
        raise ValueError("McNemar's test takes one true or false per problem; for several samples use paired_bootstrap")
    _paired(first[None], second[None])
    first, second = first.astype(bool), second.astype(bool)
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    table = [[int((first & second).sum()), only_first], [only_second, int((~first & ~second).sum())]]
    return only_first, only_second, float(exact_mcnemar(table, exact=True).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values corrected for their number (Holm 1979), each at most 1, in the same order."""
    return multipletests(p_values, method="holm")[1].tolist() if len(p_values) else []


def cohens_h(first: float, second: float) -> float:
    """Return the effect size of two proportions, the difference of their arcsines (Cohen 1988): .2 small, .5 medium, .8 large."""
    return float(proportion_effectsize(first, second))


def _paired(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 2 or not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError(f"a paired test needs both arms on the same seeds and problems, not shapes {first.shape} and {second.shape}")
    if first.shape[1] < LEAST_PROBLEMS:
        raise ValueError(f"a paired test over {first.shape[1]} problems says nothing; evaluate on at least {LEAST_PROBLEMS}")
    return first - second
