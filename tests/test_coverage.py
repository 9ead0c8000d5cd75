"""95 % intervals hold the truth in 92 to 98 of a hundred simulated cases, or the table says that they cannot.

A part of the grid of `tests.simulated_coverage` by default; the whole of it with OPSD_LAB_COVERAGE=all in the environment.
"""

import os

import numpy as np
import pytest
from scipy import stats

from opsd_lab.evaluation.jackknife import few_problems
from opsd_lab.evaluation.statistics import share_interval
from tests import simulated_coverage as simulated

LEAST, MOST = 0.92, 0.98
NOISE = 0.012  # two standard errors of a share near .95 in the simulated sets
FEW_EVENTS = 10  # with fewer the bounds take a few values only, and only too narrow is wrong

# What is rough, and noted in tables as such (fewer than 30 problems, or as few of equal weight), holds the truth at least so often.
ROUGH = {
    ("token mean", "a tenth large", 20, "rare"): 0.71,
    ("token mean", "skewed problems", 20, "heavy-tailed"): 0.88,
    ("token mean", "log-normal problems", 20, "even"): 0.88,
    ("token mean", "log-normal problems", 20, "heavy-tailed"): 0.85,
    ("token mean", "log-normal problems", 20, "rare"): 0.86,
    ("token mean", "log-normal problems", 50, "heavy-tailed"): 0.88,
    ("token share", 0.02, 20, "even"): 0.82,
    ("token share", 0.02, 20, "heavy-tailed"): 0.86,
    ("token share", 0.02, 50, "heavy-tailed"): 0.88,
}

FAST = [
    *(("accuracy", rates, 20, 16) for rates in ("all .5", "solved or not, .3", "Beta(0.3, 3)", "Beta(6, 0.3)", "Beta(0.5, 1)")),
    *(("accuracy", rates, 50, 1) for rates in ("all .5", "all .99", "Beta(0.3, 3)")),
    ("accuracy", "Beta(0.05, 0.5)", 20, 16),
    *(("paired", sides, 50, 1) for sides in ("agreeing .9", "a tenth gained", "independent, Beta(0.5, 1)", "always agreeing")),
    *(("paired", sides, 50, 4) for sides in ("agreeing .9", "a tenth gained", "independent, Beta(6, 0.3)")),
    *(("crossed", arms, 50, 3, 4) for arms in simulated.ARMS),
    *(("token mean", values, 20, "even") for values in ("normal", "a thirtieth not 0", "skewed problems", "log-normal problems")),
    *(("token mean", values, 50, "rare") for values in ("normal", "a tenth not 0", "a tenth large")),
    *(("token mean", "a tenth not 0", problems, "rare") for problems in (20, 200)),
    *(("token contrast", values, 20, "even") for values in ("normal", "a tenth not 0")),
    ("token share", 0.1, 20, "even"),
]
WHOLE = os.environ.get("OPSD_LAB_COVERAGE") == "all"


@pytest.mark.parametrize("scenario", simulated.GRID if WHOLE else FAST, ids=lambda scenario: " ".join(map(str, scenario)))
def test_intervals_hold_the_truth_as_often_as_they_say(scenario):
    found = simulated.simulate(scenario, 2000 if WHOLE else 1000)
    if found.bounded < 0.02:
        return  # as good as nothing is claimed
    assert found.held >= ROUGH.get(scenario, LEAST if found.events >= FEW_EVENTS or scenario[0] == "accuracy" else 0.9) - NOISE
    if found.events >= FEW_EVENTS and not found.bounded < 1:
        assert found.held <= MOST + NOISE


def test_what_is_rough_is_noted():
    assert all(few_problems(problems) for _, _, problems, _ in ROUGH if problems < 50)
    sizes = simulated.LENGTHS["heavy-tailed"](np.random.default_rng(0), (50, 200))
    effective = sizes.sum(axis=0) ** 2 / (sizes**2).sum(axis=0)
    assert np.mean([few_problems(50, each) != "" for each in effective]) > 0.95


def test_values_that_are_rare_and_mostly_0_have_no_bounds_from_few_problems():
    """No interval holds the truth often enough here: with 20 problems not two values differ from 0 on average."""
    few, more = (simulated.token_mean("a tenth not 0", problems, "rare", 1000) for problems in (20, 50))
    assert few.events < 2 and few.bounded < 0.05
    assert more.bounded < 0.5 and more.held >= LEAST


def test_one_verdict_per_problem_is_never_taken_for_surer_than_it_is():
    """Exact over all shares: never below 92 %, and clearly above 98 % only where at most two successes or failures are expected."""
    for problems in (20, 50, 200):
        found = [share_interval(count, problems) for count in range(problems + 1)]
        low, high = (np.array([getattr(interval, side) for interval in found]) for side in ("low", "high"))
        for share in np.linspace(0.005, 0.5, 100):
            held = stats.binom.pmf(np.arange(problems + 1), problems, share)[(low <= share) & (share <= high)].sum()
            assert held >= LEAST and (held <= MOST + 0.003 or problems * share < 2.1), (problems, share, held)
