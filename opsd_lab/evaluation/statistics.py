"""Accuracies with their uncertainty: avg@k, pass@k and maj@k. Knows no models and no rollouts."""

import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from statsmodels.stats.proportion import proportion_confint

from opsd_lab.evaluation.estimate import Estimate
from opsd_lab.evaluation.jackknife import Jackknife, few_problems
from opsd_lab.grading import as_number


def share_interval(successes: int, n: int, confidence: float = 0.95) -> Estimate:
    """Return a proportion with its interval by Agresti and Coull (1998), for one independent trial per problem.

    Raises:
        ValueError: when there is no trial, or more successes than trials.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes in {n} trials have no proportion")
    low, high = proportion_confint(successes, n, alpha=1 - confidence, method="agresti_coull")
    return Estimate(successes / n, float(low), float(high), n, note=few_problems(n))


def mean_interval(per_problem: np.ndarray, units: int, confidence: float = 0.95) -> Estimate:
    """Return the mean of one value per problem in [0, 1], [P], with its interval over problems (`Jackknife.share_bounds`).

    `units` is the number of samples that the values rest on. Samples of one problem resemble each other, so that only problems
    count as independent. Equal values everywhere are as much evidence as one sample of each problem.

    Raises:
        ValueError: when there is no problem, or a value is missing or outside [0, 1].
    """
    values = check_shares(per_problem)
    found = Jackknife.of_means(values[:, None])
    low, high = found.share_bounds(np.array([units]), confidence)
    return Estimate(float(found.mean[0]), float(low[0]), float(high[0]), len(values), note=few_problems(len(values)))


def check_shares(values: np.ndarray) -> np.ndarray:
    """Return values as an array [P] of numbers in [0, 1].

    Raises:
        ValueError: when there is none, or one is missing or outside.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or values.size == 0 or not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"an interval over problems needs one value in [0, 1] per problem, not an array of shape {values.shape}")
    return values


def avg_at_k(correct: np.ndarray) -> Estimate:
    """Return the mean of correctness [P, k] with `share_interval` for k = 1, else `mean_interval`.

    Raises:
        ValueError: when the array is not a table of problems by samples with at least one of each.
    """
    correct = _check_table(correct)
    if correct.shape[1] == 1:
        return share_interval(int(correct.sum()), len(correct))
    return mean_interval(correct.mean(axis=1), correct.size)


def pass_at_k(correct: np.ndarray, k: int) -> Estimate:
    """Return the chance that at least one of k samples is correct, estimated from correctness [P, n].

    The unbiased estimator 1 - C(n - c, k) / C(n, k) per problem with c correct samples (Chen et al. 2021,
    arXiv 2107.03374, equation 1), averaged over problems, with `mean_interval` (k = 1 is `avg_at_k`).

    Raises:
        ValueError: when k is not between 1 and n.
    """
    correct = _check_table(correct)
    n = correct.shape[1]
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} cannot be estimated from {n} samples per problem; draw at least {k}")
    if k == 1:
        return avg_at_k(correct)
    solved = np.array([1 - math.comb(n - c, k) / math.comb(n, k) for c in correct.sum(axis=1).tolist()])
    return mean_interval(solved, len(correct) * (n // k))


def maj_at_k(answers: Sequence[Sequence[str | None]], correct: np.ndarray) -> Estimate:
    """Return how often the most frequent of a problem's k answers is correct.

    `answers` [P, k] are the extracted answers, None where there is none; None does not vote. Plain numbers that are
    equal ("0.5", "1/2") vote together, other answers only when their texts agree up to blanks. Of equally frequent
    answers the one that came first wins. `correct` [P, k] says which answers are correct. The interval is `share_interval`.

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
    return share_interval(wins, len(correct))


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
