"""Accuracies with their uncertainty: Wilson and bootstrap intervals, avg@k, pass@k, maj@k. Knows no models and no rollouts."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from scipy.stats import bootstrap
from statsmodels.stats.proportion import proportion_confint

from opsd_lab.grading import as_number


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence bounds over `n` problems; the bounds are NaN where one problem allows none."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]"

    def as_dict(self) -> dict[str, float]:
        """Return the fields as a plain dictionary."""
        return {"mean": self.mean, "low": self.low, "high": self.high, "n": self.n}


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Return a proportion with its Wilson score interval (Wilson 1927), for one independent trial per problem.

    Raises:
        ValueError: when there is no trial, or more successes than trials.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes in {n} trials have no proportion")
    low, high = proportion_confint(successes, n, alpha=1 - confidence, method="wilson")
    return Interval(successes / n, float(low), float(high), n)


def bootstrap_interval(per_problem: np.ndarray, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0) -> Interval:
    """Return the mean of one value per problem, [P], with its percentile bootstrap interval.

    Problems are resampled whole, so that samples of one problem, which resemble each other, are not taken for
    independent evidence (a cluster bootstrap; Efron and Tibshirani 1993). With equal values everywhere the interval
    has no width: read it as "too few problems", not as certainty.

    Raises:
        ValueError: when there is no problem, or a value is missing.
    """
    values = np.asarray(per_problem, dtype=np.float64)
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"a bootstrap needs one finite value per problem, not an array of shape {values.shape}")
    mean = float(values.mean())
    if values.size == 1:
        return Interval(mean, math.nan, math.nan, 1)
    low, high = bootstrap(
        (values,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, 2_000_000 // values.size),  # bounds the memory of the resampled indices
        vectorized=True,
        confidence_level=confidence,
        method="percentile",
        rng=seed,
    ).confidence_interval
    return Interval(mean, float(low), float(high), values.size)


def resample_sums(sums: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Return the sums over problems [R, ...] of per-problem sums [P, ...], for R resamples of P whole problems each.

    A ratio of two such sums, resample by resample, is the cluster bootstrap of a mean over tokens (`bootstrap_interval` is the
    case of one value per problem). The same seed draws the same problems, whatever is summed.

    Raises:
        ValueError: when there is no problem or no resample.
    """
    sums = np.asarray(sums, dtype=np.float64)
    problems = len(sums)
    if problems == 0 or resamples < 1:
        raise ValueError(f"a bootstrap needs at least one problem and one resample, not {problems} and {resamples}")
    rng = np.random.default_rng(seed)
    flat = sums.reshape(problems, -1)
    drawn = np.empty((resamples, flat.shape[1]))
    rows = max(1, 2_000_000 // problems)  # bounds the memory of the resampled indices
    for start in range(0, resamples, rows):
        indices = rng.integers(0, problems, (min(rows, resamples - start), problems))
        offsets = problems * np.arange(len(indices))[:, None]
        times = np.bincount((indices + offsets).ravel(), minlength=indices.size).reshape(indices.shape)
        drawn[start : start + rows] = times.astype(np.float64) @ flat
    return drawn.reshape(resamples, *sums.shape[1:])


def percentile_bounds(draws: np.ndarray, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and upper percentile bounds of resampled values [R, ...]; NaN among them, no value, is left out."""
    draws = np.asarray(draws, dtype=np.float64)
    bounds = np.full((2, *draws.shape[1:]), np.nan)
    some = ~np.isnan(draws).all(axis=0)
    bounds[:, some] = np.nanquantile(draws[:, some], [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return bounds[0], bounds[1]


def avg_at_k(correct: np.ndarray) -> Interval:
    """Return the mean of correctness [P, k]: Wilson's interval for k = 1, else the bootstrap over problems.

    Raises:
        ValueError: when the array is not a table of problems by samples with at least one of each.
    """
    correct = _check_table(correct)
    if correct.shape[1] == 1:
        return wilson_interval(int(correct.sum()), len(correct))
    return bootstrap_interval(correct.mean(axis=1))


def pass_at_k(correct: np.ndarray, k: int) -> Interval:
    """Return the chance that at least one of k samples is correct, estimated from correctness [P, n].

    The unbiased estimator 1 - C(n - c, k) / C(n, k) per problem with c correct samples (Chen et al. 2021,
    arXiv 2107.03374, equation 1), averaged over problems; bootstrap over problems (k = 1 is `avg_at_k`).

    Raises:
        ValueError: when k is not between 1 and n.
    """
    correct = _check_table(correct)
    n = correct.shape[1]
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} cannot be estimated from {n} samples per problem; draw at least {k}")
    if k == 1:
        return avg_at_k(correct)
    return bootstrap_interval(np.array([1 - math.comb(n - c, k) / math.comb(n, k) for c in correct.sum(axis=1).tolist()]))


def maj_at_k(answers: Sequence[Sequence[str | None]], correct: np.ndarray) -> Interval:
    """Return how often the most frequent of a problem's k answers is correct.

    `answers` [P, k] are the extracted answers, None where there is none; None does not vote. Plain numbers that are
    equal ("0.5", "1/2") vote together, other answers only when their texts agree up to blanks. Of equally frequent
    answers the one that came first wins. `correct` [P, k] says which answers are correct. The interval is Wilson's.

    Raises:
        ValueError: when the shapes differ.
    """
    correct = _check_table(correct)
    if [len(row) for row in answers] != [correct.shape[1]] * len(correct):
        raise ValueError(f"maj@k: the answers do not have the shape of their verdicts, {correct.shape}")
    wins = 0
    for row, verdicts in zip(answers, correct, strict=True):
        votes = [_ballot(answer) for answer in row]
        counts = Counter(vote for vote in votes if vote is not None)
        if counts:
            # most_common keeps the order of first appearance among equals.
            wins += bool(verdicts[votes.index(counts.most_common(1)[0][0])])
    return wilson_interval(wins, len(correct))


def _ballot(answer: str | None) -> Fraction | str | None:
    if answer is None:
        return None
    number = as_number(answer)
    return "".join(answer.split()) if number is None else number


def _check_table(correct: np.ndarray) -> np.ndarray:
    correct = np.asarray(correct)
    if correct.ndim != 2 or correct.size == 0 or not np.isin(correct, (0, 1)).all():
        raise ValueError(f"correctness must be a table [problems, samples] of true and false, not {correct.shape}")
    return correct.astype(bool)
