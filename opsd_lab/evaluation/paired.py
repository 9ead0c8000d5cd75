"""How far two sets of verdicts on the same problems lie apart. Every difference is the second minus the first."""

import numpy as np
from scipy import stats

from opsd_lab.evaluation.estimate import Estimate
from opsd_lab.evaluation.jackknife import Bounds, few_problems, least_error
from opsd_lab.evaluation.statistics import check_shares

FEW_DIFFERENT = 10
"""Where the sides differ on fewer problems than this, bounds of several samples are rough, and tables say so."""


def paired_interval(first: np.ndarray, second: np.ndarray, units: int, confidence: float = 0.95) -> Estimate:
    """Return the mean of `second` minus `first`, each one value per problem in [0, 1], [P], with its interval over problems.

    `units` is the number of samples that each side rests on. Single verdicts have the score interval of paired proportions
    (`tango_bounds`), others Student's with a least spread (`crossed_errors`). `confidence` is that of the interval, 0.95 for 95 %.

    Raises:
        ValueError: when there is no problem, the two differ in their number, or a value is missing or outside [0, 1].
    """
    first, second = check_shares(first), check_shares(second)
    problems = len(first)
    if problems != len(second):
        raise ValueError(f"a paired difference needs both values of each problem, not {problems} and {len(second)} values")
    low, high = paired_bounds(first[:, None], second[:, None], units, confidence)
    differ = int((first != second).sum())
    note = few_problems(problems)
    if not note and units > problems and differ < FEW_DIFFERENT:
        note = f"rough bounds: the sides differ on {differ} of {problems} problems"
    return Estimate(float(second.mean() - first.mean()), float(low[0]), float(high[0]), problems, note=note)


def paired_bounds(first: np.ndarray, second: np.ndarray, units: int, confidence: float = 0.95) -> Bounds:
    """Return the bounds [G] of `paired_interval` for G sets of problems at once, both sides [P, G]; NaN for a single problem.

    The difference is `second` minus `first`. `units` is the number of samples that each side of a set rests on. `confidence` is that
    of both bounds together.
    """
    problems, sets = first.shape
    if problems < 2:
        return np.full(sets, np.nan), np.full(sets, np.nan)
    if units == problems and np.isin([first, second], (0, 1)).all():
        return tango_bounds((second > first).sum(axis=0), (second < first).sum(axis=0), problems, confidence)
    difference = second - first
    error, degrees = crossed_errors(difference.T[:, None], units / problems)
    half = stats.t.ppf((1 + confidence) / 2, degrees) * error
    return difference.mean(axis=0) - half, difference.mean(axis=0) + half


def crossed_errors(differences: np.ndarray, samples: float = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return the standard errors [G] of the means of G tables of differences [G, S, P], and their degrees of freedom [G].

    Seeds and problems are two crossed random factors without replication. The variance of the mean is MS_seeds + MS_problems -
    MS_rest by S P; a factor whose mean square is below that of the rest is taken to explain nothing, as a restricted likelihood does
    (Searle, Casella and McCulloch 1992). The degrees of freedom are Satterthwaite's (1946). With one seed only problems count.
    `samples` is the number that an accuracy is the mean of; errors are at least `least_error`.
    """
    seeds, problems = differences.shape[1:]
    least = least_error(problems, samples * seeds)
    of_problems = seeds * differences.mean(axis=1).var(axis=-1, ddof=1)
    if seeds == 1:
        return np.maximum(np.sqrt(of_problems / problems), least), np.full(len(differences), problems - 1.0)
    of_seeds = problems * differences.mean(axis=2).var(axis=-1, ddof=1)
    whole = ((differences - differences.mean(axis=(1, 2), keepdims=True)) ** 2).sum(axis=(1, 2))
    free = (problems - 1, seeds - 1, (problems - 1) * (seeds - 1))
    rest = np.maximum(whole - of_problems * free[0] - of_seeds * free[1], 0) / free[2]
    explain = of_seeds > rest
    total = np.where(explain, np.maximum(of_problems + of_seeds - rest, of_seeds), np.maximum(of_problems, rest))
    weight = of_problems**2 / free[0] + np.where(explain, of_seeds**2 / free[1] + rest**2 / free[2], 0)
    degrees = np.divide(total**2, weight, out=np.full(len(total), float(free[0])), where=weight > 0)
    return np.maximum(np.sqrt(total / (seeds * problems)), least), np.clip(degrees, 1, free[0])


def tango_bounds(gains: np.ndarray, losses: np.ndarray, problems: int, confidence: float = 0.95) -> Bounds:
    """Return the score bounds (Tango 1998) of a paired difference of proportions.

    `gains` [G] and `losses` [G] count those of the `problems` that only the second and only the first side solves. The bounds are
    the differences that the score test of McNemar's kind just does not refuse at 1 - `confidence`; they have a width where the sides
    always agree.
    """
    gains, losses = np.asarray(gains, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    quantile, found = stats.norm.ppf((1 + confidence) / 2), (gains - losses) / problems

    def score(difference: np.ndarray) -> np.ndarray:
        # The chance of a loss that is likeliest if this is the difference: the root of a quadratic equation.
        linear = (2 * problems - gains + losses) * difference - gains - losses
        constant = -losses * difference * (1 - difference)
        loss = (np.sqrt(np.maximum(linear**2 - 8 * problems * constant, 0)) - linear) / (4 * problems)
        variance = problems * (2 * loss + difference * (1 - difference))
        return (gains - losses - problems * difference) / np.sqrt(np.maximum(variance, 1e-12))

    bounds = []
    for sign in (-1.0, 1.0):
        inside, outside = found.copy(), np.full(len(found), sign)
        for _ in range(50):  # halves the distance until rounding ends it
            middle = (inside + outside) / 2
            held = np.abs(score(middle)) <= quantile
            inside, outside = np.where(held, middle, inside), np.where(held, outside, middle)
        bounds.append(inside)
    return bounds[0], bounds[1]
