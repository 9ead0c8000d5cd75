"""How often the printed intervals hold the truth: problems, seeds and samples drawn again and again. 95 % is nominal.

`python -m tests.simulated_coverage` prints the whole grid; `tests/test_coverage.py` checks it, or by default a part of it. Each
`Found` holds the share of simulated sets whose bounds hold the truth, and `events`, the mean number of problems that tell anything:
those that are not all wrong (or not all right), or on which two sides differ. With a handful of events the share cannot be near 95 %,
whatever the interval: the bounds take a few values only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy import stats

from opsd_lab.evaluation.jackknife import Jackknife
from opsd_lab.evaluation.paired import crossed_errors, paired_bounds
from opsd_lab.evaluation.statistics import share_interval

Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]


@dataclass(frozen=True)
class Found:
    """What one scenario came to: `bounded` is the share of the sets that had bounds at all, `held` is among those."""

    held: float
    events: float
    bounded: float = 1.0


def _held(low: np.ndarray, high: np.ndarray, truth: float, events: np.ndarray) -> Found:
    known = np.isfinite(low) & np.isfinite(high)
    held = (low <= truth + 1e-12) & (truth - 1e-12 <= high)
    return Found(float(held[known].mean()) if known.any() else np.nan, float(np.mean(events)), float(known.mean()))


RATES: dict[str, tuple[Draw, float]] = {  # how the problems of a set differ in their chance to be solved, and the mean
    "all .5": (lambda rng, shape: np.full(shape, 0.5), 0.5),
    "all .9": (lambda rng, shape: np.full(shape, 0.9), 0.9),
    "all .99": (lambda rng, shape: np.full(shape, 0.99), 0.99),
    "solved or not, .3": (lambda rng, shape: (rng.random(shape) < 0.3) * 1.0, 0.3),
    "solved or not, .1": (lambda rng, shape: (rng.random(shape) < 0.1) * 1.0, 0.1),
    **{
        f"Beta({a}, {b})": (lambda rng, shape, a=a, b=b: rng.beta(a, b, shape), a / (a + b))
        for a, b in ((5, 5), (0.5, 1), (0.2, 0.2), (1, 9), (0.3, 3), (6, 0.3), (0.1, 3), (0.05, 0.5))
    },
}


def accuracy(rates: str, problems: int, samples: int, sets: int, seed: int = 0) -> Found:
    """Return how `avg_at_k` does; exact, not simulated, for one sample, as problems are independent."""
    draw, truth = RATES[rates]
    if samples == 1:
        found = [share_interval(count, problems) for count in range(problems + 1)]
        chance = stats.binom.pmf(np.arange(problems + 1), problems, truth)
        held = sum(p for p, interval in zip(chance, found, strict=True) if interval.low <= truth <= interval.high)
        return Found(float(held), problems * min(truth, 1 - truth))
    rng = np.random.default_rng(seed)
    values = rng.binomial(samples, draw(rng, (problems, sets))) / samples
    events = np.minimum((values > 0).sum(axis=0), (values < 1).sum(axis=0))
    return _held(*Jackknife.of_means(values).share_bounds(np.full(sets, problems * samples)), truth, events)


def _redrawn(agreeing: float) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Return verdicts of two sides of which the second repeats the first's with this chance, and is drawn anew otherwise."""

    def draw(rng: np.random.Generator, rate: np.ndarray, samples: int) -> tuple[np.ndarray, np.ndarray]:
        first, second = (rng.random((*rate.shape, samples)) < rate[..., None] for _ in range(2))
        return first, np.where(rng.random(first.shape) < agreeing, first, second)

    return draw


def _gained(chance: float) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Return verdicts of two sides of which the second solves all that the first does, and what it does not with this chance."""

    def draw(rng: np.random.Generator, rate: np.ndarray, samples: int) -> tuple[np.ndarray, np.ndarray]:
        first = rng.random((*rate.shape, samples)) < rate[..., None]
        return first, first | (rng.random(first.shape) < chance)

    return draw


SIDES: dict[str, tuple[str, Callable[..., tuple[np.ndarray, np.ndarray]], float]] = {  # rates, both sides, their true difference
    "independent, all .5": ("all .5", _redrawn(0.0), 0.0),
    "independent, all .9": ("all .9", _redrawn(0.0), 0.0),
    "independent, Beta(0.5, 1)": ("Beta(0.5, 1)", _redrawn(0.0), 0.0),
    "independent, Beta(0.3, 3)": ("Beta(0.3, 3)", _redrawn(0.0), 0.0),
    "independent, Beta(6, 0.3)": ("Beta(6, 0.3)", _redrawn(0.0), 0.0),
    "always agreeing": ("solved or not, .3", _redrawn(0.0), 0.0),
    "agreeing .9": ("all .5", _redrawn(0.9), 0.0),
    "agreeing .95, Beta(0.5, 1)": ("Beta(0.5, 1)", _redrawn(0.95), 0.0),
    "agreeing .98": ("all .5", _redrawn(0.98), 0.0),
    "a tenth gained": ("solved or not, .3", _gained(0.1), 0.07),
    "a fiftieth gained": ("solved or not, .3", _gained(0.02), 0.014),
    "a fifth gained, Beta(0.5, 1)": ("Beta(0.5, 1)", _gained(0.2), 0.2 * 2 / 3),
}


def paired(sides: str, problems: int, samples: int, sets: int, seed: int = 0) -> Found:
    """Return how `paired_interval` does."""
    rates, draw, truth = SIDES[sides]
    rng = np.random.default_rng(seed)
    first, second = (side.mean(axis=-1) for side in draw(rng, RATES[rates][0](rng, (problems, sets)), samples))
    return _held(*paired_bounds(first, second, problems * samples), truth, (first != second).sum(axis=0))


ARMS = {  # standard deviations in logits, of seeds, of problems between the arms, of both, and the mean logit
    "no effects": (0.0, 0.0, 0.0, 0.0),
    "small effect of seeds": (0.1, 0.0, 0.0, 0.0),
    "effect of seeds": (0.3, 0.0, 0.0, 0.0),
    "large effect of seeds": (1.0, 0.0, 0.0, 0.0),
    "effect of problems": (0.0, 1.0, 0.0, 0.0),
    "all effects": (0.3, 1.0, 0.5, 0.0),
    "large effects": (1.0, 1.0, 0.0, 0.0),
    "no effects, nearly all solved": (0.0, 0.0, 0.0, 3.0),
    "effect of seeds, nearly all solved": (0.3, 0.0, 0.0, 3.0),
}


def crossed(arms: str, problems: int, seeds: int, samples: int, sets: int, seed: int = 0) -> Found:
    """Return how the bounds of `paired_crossed` do for three seeds and more."""
    of_seeds, of_problems, of_both, mean = ARMS[arms]
    rng = np.random.default_rng(seed)
    hard = rng.normal(mean, 1.5, (sets, 1, problems))
    sides = []
    for _ in range(2):
        logit = hard + rng.normal(0, of_seeds, (sets, seeds, 1)) + rng.normal(0, of_problems, (sets, 1, problems))
        logit = logit + rng.normal(0, of_both, (sets, seeds, problems))
        sides.append(rng.binomial(samples, 1 / (1 + np.exp(-logit))) / samples)
    difference = sides[1] - sides[0]
    error, degrees = crossed_errors(difference, samples)
    half, found = stats.t.ppf(0.975, degrees) * error, difference.mean(axis=(1, 2))
    return _held(found - half, found + half, 0.0, (difference != 0).any(axis=1).sum(axis=-1))


LENGTHS: dict[str, Draw] = {  # tokens of each problem
    "even": lambda rng, shape: rng.integers(5, 200, shape),
    "heavy-tailed": lambda rng, shape: np.ceil(rng.lognormal(3, 1.2, shape)).astype(int),
    "rare": lambda rng, shape: rng.poisson(0.8, shape),
}


def _sparse(rng: np.random.Generator, tokens: np.ndarray, share: float, scale: float) -> np.ndarray:
    """Return the sums over tokens of which this share have an exponential value and the others 0."""
    count = rng.binomial(tokens, share)
    return np.where(count > 0, rng.gamma(np.maximum(count, 1)) * scale, 0.0)


VALUES: dict[str, tuple[Callable[[np.random.Generator, np.ndarray], np.ndarray], float]] = {  # sums over a problem's tokens, the mean
    "normal": (lambda rng, n: n * rng.normal(0, 0.5, n.shape) + np.sqrt(n) * rng.normal(size=n.shape), 0.0),
    "exponential": (lambda rng, n: _sparse(rng, n, 1.0, 1.0), 1.0),
    "a tenth not 0": (lambda rng, n: -_sparse(rng, n, 0.1, 3.0), -0.3),
    "a thirtieth not 0": (lambda rng, n: -_sparse(rng, n, 1 / 30, 3.0), -0.1),
    "a tenth large": (lambda rng, n: 0.1 * np.sqrt(n) * rng.normal(size=n.shape) - _sparse(rng, n, 0.1, 3.0), -0.3),
    "skewed problems": (lambda rng, n: n * rng.exponential(1, n.shape), 1.0),
    "log-normal problems": (lambda rng, n: n * rng.lognormal(0, 1, n.shape), float(np.exp(0.5))),
}


def token_mean(values: str, problems: int, lengths: str, sets: int, seed: int = 0) -> Found:
    """Return how the bounds of a mean over tokens do, as every diagnostic has them."""
    draw, truth = VALUES[values]
    rng = np.random.default_rng(seed)
    bottom = LENGTHS[lengths](rng, (problems, sets))
    found = Jackknife.of_ratios(draw(rng, bottom), bottom.astype(float))
    return _held(*found.bounds(), truth, found.nonzero)


def token_contrast(values: str, problems: int, lengths: str, sets: int, seed: int = 0) -> Found:
    """Return how the bounds of the difference of two means over tokens do, such as "incorrect - correct"; problems weigh on both."""
    draw, _ = VALUES[values]
    rng = np.random.default_rng(seed)
    tops, bottoms = [], []
    shared = rng.normal(0, 0.3, (problems, sets))
    for _ in range(2):
        bottom = LENGTHS[lengths](rng, (problems, sets))
        tops.append(draw(rng, bottom) + shared * bottom)
        bottoms.append(bottom.astype(float))
    found = Jackknife.of_ratios(np.concatenate(tops, axis=1), np.concatenate(bottoms, axis=1))
    one, two = np.arange(sets), np.arange(sets, 2 * sets)
    return _held(*found.difference_bounds(one, two), 0.0, np.minimum(found.nonzero[one], found.nonzero[two]))


def token_share(share: float, problems: int, lengths: str, sets: int, seed: int = 0) -> Found:
    """Return how the bounds of a class's share of a total do, as in `divergence_by_class`; how often it occurs differs by problem."""
    rng = np.random.default_rng(seed)
    tokens = LENGTHS[lengths](rng, (problems, sets))
    inside = rng.binomial(tokens, rng.beta(2 * share, 2 * (1 - share), (problems, sets)))
    top, rest = (np.where(n > 0, rng.gamma(np.maximum(n, 1)), 0.0) for n in (inside, tokens - inside))
    found = Jackknife.of_ratios(top, top + rest)
    return _held(*found.share_bounds(tokens.sum(axis=0).astype(float)), share, found.nonzero)


Scenario = tuple[object, ...]

KINDS: dict[str, Callable[..., Found]] = {
    "accuracy": accuracy,
    "paired": paired,
    "crossed": crossed,
    "token mean": token_mean,
    "token contrast": token_contrast,
    "token share": token_share,
}
PROBLEMS = (20, 50, 200)
GRID: list[Scenario] = [  # the kind, its first argument, the number of problems, its other arguments
    *product(["accuracy"], RATES, PROBLEMS, (1, 4, 16)),
    *product(["paired"], SIDES, PROBLEMS, (1, 2, 4, 16)),
    *product(["crossed"], ARMS, PROBLEMS, (3, 5, 10), (1, 4)),
    *product(["token mean", "token contrast"], VALUES, PROBLEMS, LENGTHS),
    *product(["token share"], (0.02, 0.1, 0.4), PROBLEMS, ("even", "heavy-tailed")),
]


def simulate(scenario: Scenario, sets: int = 2000) -> Found:
    """Return what one scenario of `GRID` comes to."""
    kind, *arguments = scenario
    return KINDS[kind](*arguments, sets=sets)


if __name__ == "__main__":
    for scenario in GRID:
        found = simulate(scenario)
        print(*scenario, f"held {found.held:.3f}, events {found.events:.1f}, bounded {found.bounded:.2f}", sep=" | ", flush=True)
