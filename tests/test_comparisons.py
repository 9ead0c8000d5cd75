import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from opsd_lab.evaluation.comparisons import CHANGE, SHARE, cohens_h, holm, mcnemar, paired_crossed, paired_seeds, seed_interval
from opsd_lab.evaluation.paired import paired_interval
from opsd_lab.evaluation.statistics import share_interval


def test_paired_seeds_are_scipys_paired_t_test():
    rng = np.random.default_rng(0)
    first, second = rng.random(6), rng.random(6)
    found, known = paired_seeds(first, second), stats.ttest_rel(second, first)
    assert (found.p, found.mean) == pytest.approx((known.pvalue, (second - first).mean()))
    assert (found.low, found.high) == pytest.approx(tuple(known.confidence_interval(0.95)))


def test_a_seed_interval_is_scipys_t_interval():
    values = [0.5, 0.62, 0.55, 0.48, 0.7]
    known = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    assert (seed_interval(values).low, seed_interval(values).high) == pytest.approx(known)
    assert math.isnan(seed_interval([0.5]).low) and seed_interval([0.5]).n == 1


def test_seeds_without_a_spread_have_no_t_interval_and_no_p_value():
    for first, second in (([0.5, 0.6], [0.4, 0.5]), ([0.5, 0.6, 0.7], [0.5, 0.6, 0.7]), ([0.3, 0.3 + 1e-17], [0.1, 0.1])):
        found = paired_seeds(np.array(first), np.array(second))
        assert found.mean == pytest.approx(second[0] - first[0]) and np.isnan([found.low, found.high, found.p]).all()
    assert math.isnan(seed_interval([0.25, 0.25, 0.25], problems=100).low)


def test_seeds_that_solve_nothing_or_everything_leave_room_for_another_problem():
    nothing, everything = seed_interval([0.0] * 5, problems=256), seed_interval([1.0] * 5, problems=256)
    assert (
        (nothing.low, nothing.n) == (0, 5)
        and nothing.high == pytest.approx(share_interval(0, 256).high)
        and 0.01 < nothing.high < 0.03
    )
    assert (everything.low, everything.high) == pytest.approx((1 - nothing.high, 1))


def test_an_interval_reaches_no_accuracy_below_nothing_or_above_everything():
    apart, few = [0.0, 0.1, 0.95], np.zeros((3, 12))
    uncut, cut = seed_interval(apart), seed_interval(apart, within=SHARE)
    assert uncut.low < 0 and uncut.high > 1 and (cut.mean, cut.low, cut.high) == (uncut.mean, 0, 1)
    half = seed_interval([0.0, 0.1, 0.5], within=SHARE)
    assert half.low == 0 and half.high == seed_interval([0.0, 0.1, 0.5]).high < 1
    assert paired_crossed(few, few + np.array(apart)[:, None]).high == 1
    assert seed_interval([-0.9, 0.4, -0.8], within=CHANGE).low == -1


def test_small_studies_without_a_difference_are_not_found_certain():
    rng = np.random.default_rng(0)
    found = [paired_seeds(rng.binomial(10, 0.6, 2) / 10, rng.binomial(10, 0.6, 2) / 10).p for _ in range(3000)]
    assert np.nanmean(np.array(found) < 0.05) < 0.07 and np.nanmin(found) > 0


def test_mcnemar_is_the_exact_binomial_test_of_the_discordant_problems():
    first = np.array([1] * 12 + [0] * 3 + [1] * 20 + [0] * 5)
    second = np.array([0] * 12 + [1] * 3 + [1] * 20 + [0] * 5)
    assert mcnemar(first, second) == (12, 3, pytest.approx(stats.binomtest(3, 15).pvalue))


def test_holm_is_the_step_down_of_statsmodels_and_by_hand():
    p = [0.01, 0.04, 0.03, 0.005]
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])
    assert holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


def test_cohens_h_is_the_difference_of_arcsines():
    assert cohens_h(0.3, 0.6) == pytest.approx(2 * math.asin(0.6**0.5) - 2 * math.asin(0.3**0.5))


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_are_compared_over_problems_only_and_the_note_says_so(seeds):
    rng = np.random.default_rng(1)
    first, second = rng.integers(0, 2, (2, seeds, 200))
    found, known = paired_crossed(first, second), stats.ttest_rel(second.mean(0), first.mean(0))
    assert (found.mean, found.p) == pytest.approx(((second - first).mean(), known.pvalue))
    alone = paired_interval(first.mean(0), second.mean(0), 200 * seeds)
    assert (found.low, found.high, found.n, found.unit) == (alone.low, alone.high, 200, "problems")
    assert found.note == f"other problems, but only these {seeds} seed(s)"
    assert paired_crossed(*rng.integers(0, 2, (2, 3, 200))).note == ""


def test_a_comparison_is_the_second_minus_the_first():
    worse, better = np.zeros((3, 20)), np.tile(np.arange(20) % 2, (3, 1))
    assert paired_crossed(worse, better).mean == 0.5 and paired_crossed(better, worse).mean == -0.5
    assert str(paired_crossed(worse, better)).startswith("+0.50 [")


def test_the_crossed_difference_has_the_variance_components_of_two_random_factors():
    """Seeds and problems drawn again and again: the mean of the estimated variance is the variance of the mean."""
    rng = np.random.default_rng(2)

    def arms():
        return rng.normal(0, 0.1, (5, 1)) + rng.normal(0, 0.3, (1, 60)) + rng.normal(0, 0.2, (5, 60))

    means, widths = [], []
    for _ in range(2000):
        found = paired_crossed(arms(), np.zeros((5, 60)))
        means.append(found.mean)
        widths.append(found.low <= 0 <= found.high)
    assert np.var(means) == pytest.approx(0.1**2 / 5 + 0.3**2 / 60 + 0.2**2 / 300, rel=0.1)
    assert 0.93 <= np.mean(widths) <= 0.97


def null_arms(rng, seeds=5, problems=100, samples=4, skill=0.3):
    """Two arms that differ by chance alone: seeds differ in skill, problems in difficulty, samples in luck."""
    difficulty = rng.normal(0, 1.5, problems)
    chance = 1 / (1 + np.exp(-(rng.normal(0, skill, (2, seeds, 1)) + difficulty)))
    return rng.binomial(samples, chance) / samples


@pytest.mark.parametrize(("problems", "skill"), [(20, 0.3), (100, 1.0)])
def test_equal_arms_are_told_apart_no_more_often_than_the_level(problems, skill):
    """400 simulated pairs of arms without a difference, 3 seeds, 4 samples: level .05."""
    rng, found = np.random.default_rng(3), []
    for _ in range(400):
        first, second = null_arms(rng, 3, problems, skill=skill)
        found.append([paired_crossed(first, second, 4).p < 0.05, paired_seeds(first.mean(1), second.mean(1)).p < 0.05])
    assert (np.mean(found, axis=0) <= 0.08).all()


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_intervals_over_seeds_hold_the_truth_as_often_as_they_say(seeds):
    rng = np.random.default_rng(8)
    found = [seed_interval(rng.normal(0.5, 0.05, seeds)) for _ in range(1500)]
    assert 0.93 <= np.mean([f.low <= 0.5 <= f.high for f in found]) <= 0.97


def test_false_positives_of_mcnemar_stay_below_the_level():
    rng = np.random.default_rng(4)
    hits = 0
    for _ in range(1000):
        chance = 1 / (1 + np.exp(-rng.normal(0, 1.5, 100)))
        hits += mcnemar(rng.random(100) < chance, rng.random(100) < chance)[2] < 0.05
    assert hits / 1000 <= 0.05


def test_equal_arms_show_no_difference_and_a_clear_one_is_found():
    same = np.tile(np.arange(20) % 2, (5, 1))
    assert paired_crossed(same, same).p == 1 and paired_crossed(same, same).low < 0 < paired_crossed(same, same).high
    better = np.ones((5, 20))
    assert paired_crossed(same, better).p < 0.001 and paired_crossed(same, better).low > 0


def test_too_little_to_test_is_said():
    few = np.ones((3, 9))
    with pytest.raises(ValueError, match="9 problems says nothing; evaluate on at least 10"):
        paired_crossed(few, few)
    with pytest.raises(ValueError, match="at least 10"):
        mcnemar(few[0], few[0])
    with pytest.raises(ValueError, match=r"1 seed\(s\) says nothing"):
        paired_seeds(np.ones(1), np.ones(1))
    with pytest.raises(ValueError, match="same seeds and problems"):
        paired_crossed(np.ones((3, 20)), np.ones((2, 20)))
    with pytest.raises(ValueError, match="use paired_crossed"):
        mcnemar(np.full(20, 0.5), np.ones(20))
