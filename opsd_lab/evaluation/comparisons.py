"""Whether one arm is better than another: paired tests over problems and over seeds, corrected for their number.

Every difference is the second arm minus the first. Knows no models.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as exact_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_effectsize

from opsd_lab.evaluation.estimate import Difference, Estimate
from opsd_lab.evaluation.jackknife import few_problems
from opsd_lab.evaluation.paired import crossed_errors, paired_interval
from opsd_lab.evaluation.statistics import share_interval

LEAST_PROBLEMS = 10
LEAST_SEEDS = 2
CROSSED_SEEDS = 3
ALIKE = "no bounds: all seeds alike"
SHARE, CHANGE = (0.0, 1.0), (-1.0, 1.0)
"""Between what a share lies, such as an accuracy, and the difference of two shares."""


def paired_crossed(first: np.ndarray, second: np.ndarray, samples: int = 1, confidence: float = 0.95) -> Difference:
    """Compare the accuracies [S, P] of two arms, seed by seed and problem by problem: what holds for other seeds and problems.

    Seeds and problems are both taken for samples, crossed (`crossed_errors`). Two seeds say too little about other seeds: with
    fewer than 3 the bounds are those of `paired_interval` for the seeds' means, which hold for other problems but these seeds; `note`
    says so. The difference is `second` minus `first`. `samples` is the number of samples that an accuracy is the mean of. Both bounds
    together leave out 1 - `confidence`; what lies beyond `CHANGE` is cut off.

    Raises:
        ValueError: when the shapes differ, a value is missing, or there are fewer than 10 problems.
    """
    difference = _paired(first, second)
    seeds, problems = difference.shape
    mean, note = float(difference.mean()), few_problems(problems)
    crossed = seeds >= CROSSED_SEEDS
    table, each = (difference, samples) if crossed else (difference.mean(axis=0, keepdims=True), samples * seeds)
    error, degrees = (float(part[0]) for part in crossed_errors(table[None], each))
    half = float(stats.t.ppf((1 + confidence) / 2, degrees)) * error
    low, high = mean - half, mean + half
    if not crossed:
        known = paired_interval(*(np.mean(arm, axis=0) for arm in (first, second)), problems * each, confidence)
        low, high = known.low, known.high
        note = "; ".join(filter(None, [f"other problems, but only these {seeds} seed(s)", known.note]))
    low, high = _cut(low, high, CHANGE)
    return Difference(mean, low, high, problems, "problems", note, float(2 * stats.t.sf(abs(mean) / error, degrees)))


def paired_seeds(first: np.ndarray, second: np.ndarray, confidence: float = 0.95) -> Difference:
    """Compare two arms by their accuracies [S], seed by seed: Student's paired t test and interval.

    The seed is the unit: what holds here holds for other seeds, on these problems. Where all seeds differ alike, there is no spread
    to measure the difference by, and neither bounds nor p-value: they are NaN.

    Raises:
        ValueError: when the shapes differ, a value is missing, or there are fewer than 2 seeds.
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1 or not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError(f"paired seeds need one finite value per seed and arm, not shapes {first.shape} and {second.shape}")
    if len(first) < LEAST_SEEDS:
        raise ValueError(f"a t test over {len(first)} seed(s) says nothing; run at least {LEAST_SEEDS}")
    difference = second - first
    if not _spread(difference):
        return Difference(float(difference.mean()), math.nan, math.nan, len(first), "seeds", ALIKE)
    found = stats.ttest_rel(second, first)
    low, high = found.confidence_interval(confidence)
    return Difference(float(difference.mean()), float(low), float(high), len(first), "seeds", p=float(found.pvalue))


def seed_interval(
    values: Sequence[float],
    problems: int | None = None,
    confidence: float = 0.95,
    *,
    within: tuple[float, float] = (-math.inf, math.inf),
) -> Estimate:
    """Return the mean of one value per seed with its t interval; the bounds are NaN for a single seed, and where seeds are alike.

    Args:
        values: one for each seed.
        problems: on how many problems each value is an accuracy; then values that are all 0 or all 1 have the interval of one trial
            per problem (`share_interval`): the seeds show no spread, but another problem may.
        confidence: how often the interval holds the mean over all seeds.
        within: between what such a mean can lie, such as `SHARE` or `CHANGE`; what lies beyond is cut off.

    Raises:
        ValueError: when there is no value, or one is missing.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.size == 0 or not np.isfinite(values).all():
        raise ValueError("a seed interval needs one finite value per seed")
    mean = float(values.mean())
    if values.size > 1 and problems and mean in (0.0, 1.0):
        known = share_interval(round(mean * problems), problems, confidence)
        return Estimate(mean, known.low, known.high, values.size, "seeds", f"all seeds alike: bounds over {problems} problems")
    if values.size == 1 or not _spread(values):
        return Estimate(mean, math.nan, math.nan, values.size, "seeds", ALIKE if values.size > 1 else "no bounds: one seed")
    half = float(stats.t.ppf((1 + confidence) / 2, values.size - 1) * values.std(ddof=1) / math.sqrt(values.size))
    return Estimate(mean, *_cut(mean - half, mean + half, within), values.size, "seeds")


def _cut(low: float, high: float, within: tuple[float, float]) -> tuple[float, float]:
    return max(low, within[0]), min(high, within[1])


def _spread(values: np.ndarray) -> bool:
    """Whether values differ by more than the rounding of their means and differences."""
    return bool(np.ptp(values) > 1e-12)


def mcnemar(first: np.ndarray, second: np.ndarray) -> tuple[int, int, float]:
    """Return how many problems only the first arm solves, how many only the second, and McNemar's exact p-value (1947).

    Raises:
        ValueError: when the arms' verdicts [P] are not true and false, differ in number, or are fewer than 10.
    """
    first, second = np.asarray(first), np.asarray(second)
    if not (np.isin(first, (0, 1)).all() and np.isin(second, (0, 1)).all()):
        raise ValueError("McNemar's test takes one true or false per problem; for several samples use paired_crossed")
    _paired(first[None], second[None])
    first, second = first.astype(bool), second.astype(bool)
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    table = [[int((first & second).sum()), only_first], [only_second, int((~first & ~second).sum())]]
    return only_first, only_second, float(exact_mcnemar(table, exact=True).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values corrected for their number (Holm 1979), each at most 1, in the same order."""
    return multipletests(p_values, method="holm")[1].tolist() if len(p_values) else []


def cohens_h(first: float, second: float) -> float:
    """Return the effect size of two proportions, their arcsines' difference (Cohen 1988): .2 is small, .5 medium, .8 large."""
    return float(proportion_effectsize(second, first))


def _paired(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 2 or not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError(f"a paired test needs both arms on the same seeds and problems, not shapes {first.shape} and {second.shape}")
    if first.shape[1] < LEAST_PROBLEMS:
        raise ValueError(f"a paired test over {first.shape[1]} problems says nothing; evaluate on at least {LEAST_PROBLEMS}")
    return second - first
