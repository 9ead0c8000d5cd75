import numpy as np
import pandas as pd
import pytest
from scipy import stats

from opsd_lab import diagnostics
from opsd_lab.diagnostics import correctness_alignment, divergence_by_quarter, step_gap
from opsd_lab.evaluation.jackknife import Jackknife
from opsd_lab.tokens.table import COLUMNS, TokenTable
from tests.diagnostics.tables import build, row, simulated


def test_the_bounds_are_students_where_every_problem_has_one_value():
    table = simulated(1, problems=15, rollouts=3)
    result = row(correctness_alignment(table), "all")
    means = (
        table.frame.groupby(["problem_id", "rollout", "outcome"])["gap"].mean().groupby(["problem_id", "outcome"]).mean().unstack()
    )
    values = (means["correct"] - means["incorrect"]).dropna().to_numpy()
    expected = stats.t.interval(0.95, len(values) - 1, loc=values.mean(), scale=stats.sem(values))
    assert result["mean"] == pytest.approx(values.mean(), abs=1e-12)
    assert (result["low"], result["high"]) == pytest.approx(expected, abs=1e-12)


def test_the_bounds_of_a_token_mean_are_those_of_leaving_out_each_problem_written_out():
    table = simulated(2, problems=6)
    correct = table.frame[table.frame["label"] == "correct"]
    sizes = correct.groupby("problem_id").size().to_numpy()
    without = [correct[correct["problem_id"] != name]["gap"].mean() for name in sorted(set(correct["problem_id"]))]
    mean, count = correct["gap"].mean(), len(without)
    error = np.sqrt((count - 1) / count * np.sum((np.array(without) - mean) ** 2))
    half = stats.t.ppf(0.975, sizes.sum() ** 2 / (sizes**2).sum() - 1) * error
    found = row(step_gap(table), "token", "correct")
    assert (found["mean"], found["low"], found["high"]) == pytest.approx((mean, mean - half, mean + half), abs=1e-12)


def test_the_bounds_of_a_difference_of_equally_sized_sides_are_those_of_leaving_out_each_problem():
    rng = np.random.default_rng(3)
    rollouts = []
    for i in range(12):
        steps = {"label": ["correct"] * 4 + ["incorrect"] * 4, "step": [0] * 4 + [1] * 4}
        rollouts.append({**steps, "problem_id": f"p{i:02d}", "gap": rng.normal(size=8) + rng.normal()})
    table = build(*rollouts)
    difference = np.array([np.mean(r["gap"][4:]) - np.mean(r["gap"][:4]) for r in rollouts])
    expected = stats.t.interval(0.95, 11, loc=difference.mean(), scale=stats.sem(difference))
    found = row(step_gap(table), "token", "incorrect - correct")
    assert (found["low"], found["high"]) == pytest.approx(expected, abs=1e-12)


def test_shares_of_nothing_and_of_everything_have_bounds_with_a_width():
    never, always = (
        [{"problem_id": f"p{i:02d}", "gap": np.zeros(5), "clipped": np.full(5, c)} for i in range(40)] for c in (0.0, 1.0)
    )
    nothing, everything = (row(diagnostics.clipping(build(*rollouts)), "clip_fraction") for rollouts in (never, always))
    assert (nothing["mean"], nothing["low"]) == (0, 0) and 0.05 < nothing["high"] < 0.15
    assert (everything["mean"], everything["high"]) == (1, 1) and 0.85 < everything["low"] < 0.95


def test_rows_that_rest_on_few_problems_say_so():
    notes = {n: set(divergence_by_quarter(simulated(0, problems=n))["note"]) for n in (1, 2, 29, 30)}
    assert notes[1] == {"too few problems for bounds"} and notes[2] == {"rough bounds: 2 problems"}
    assert notes[29] == {"rough bounds: 29 problems"} and notes[30] == {""}


def ratio_of_sums(rng, problems, lengths, values):
    sizes = lengths(rng, problems)
    return np.array([values(rng, int(n)) for n in sizes]), sizes.astype(float)


LENGTHS = {
    "even": lambda rng, p: rng.integers(5, 200, p),
    "heavy-tailed": lambda rng, p: np.ceil(rng.lognormal(3, 1.2, p)),
    "rare": lambda rng, p: rng.poisson(0.8, p),
}
VALUES = {
    "normal": (lambda rng, n: rng.normal(rng.normal(0, 0.5), 1, n).sum(), 0.0),
    "mostly zero": (lambda rng, n: -(rng.exponential(3, n) * (rng.random(n) < 0.1)).sum(), -0.3),
}


@pytest.mark.parametrize("problems", [10, 20, 50, 200])
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("values", VALUES)
def test_bounds_of_means_over_tokens_hold_the_truth_about_as_often_as_they_say(problems, lengths, values):
    """500 simulated tables, 95 % nominal. Rare values that are mostly 0 fall short: .65 with 20 problems, .89 with 200."""
    draw, truth = VALUES[values]
    rng, held = np.random.default_rng(problems), []
    for _ in range(500):
        top, bottom = ratio_of_sums(rng, problems, LENGTHS[lengths], draw)
        low, high = Jackknife.of_ratios(top[:, None], bottom[:, None]).bounds()
        held.append(low[0] <= truth <= high[0])
    if lengths == "rare" and values == "mostly zero":
        assert np.mean(held) >= {10: 0.42, 20: 0.6, 50: 0.77, 200: 0.86}[problems]
    else:
        assert (0.92 if problems >= 20 else 0.90) <= np.mean(held) <= 0.985


def test_bounds_of_contrasts_hold_zero_with_few_problems_too():
    for problems in (3, 5):
        rng, held = np.random.default_rng(problems), []
        for _ in range(500):
            top, bottom = ratio_of_sums(rng, problems, LENGTHS["even"], VALUES["normal"][0])
            low, high = Jackknife.of_ratios(top[:, None], bottom[:, None]).bounds()
            held.append(low[0] <= 0 <= high[0])
        assert np.mean(held) >= 0.92


def test_one_problem_has_a_mean_and_no_bounds():
    result = row(divergence_by_quarter(build({"divergence": [1.0, 1, 1, 3]}, {"divergence": [1.0, 1, 1, 3]})), 4)
    assert result["mean"] == 0.5 and result["n_problems"] == 1 and result["n_rollouts"] == 2
    assert np.isnan(result[["low", "high"]].astype(float)).all()


def test_a_difference_has_no_bounds_when_one_of_its_sides_has_a_single_problem():
    right = {"label": "correct", "step": [0, 0]}
    table = build(
        {**right, "gap": [1.0, 1]}, {**right, "problem_id": "p1", "gap": [2.0, 2]}, {"label": "incorrect", "step": [0], "gap": [5.0]}
    )
    result = step_gap(table)
    assert np.isfinite(row(result, "token", "correct")["low"])
    contrast = row(result, "token", "incorrect - correct")
    assert contrast["mean"] == 3.5 and np.isnan(contrast["low"])
    assert contrast["n_problems"] == 2 and contrast["n_rollouts"] == 3 and contrast["n_steps"] == 3 and contrast["n_tokens"] == 5


def test_the_intervals_of_contrasts_that_are_zero_cover_zero_about_as_often_as_they_say():
    covered = np.zeros(3)
    for seed in range(200):
        table = simulated(seed)
        gaps = step_gap(table)
        found = [row(gaps, unit, "incorrect - correct") for unit in ("token", "step")]
        found.append(row(correctness_alignment(table), "all"))
        covered += [contrast["low"] <= 0 <= contrast["high"] for contrast in found]
    assert ((covered / 200 >= 0.91) & (covered / 200 <= 0.99)).all(), covered


def test_the_order_of_a_tables_rows_changes_nothing():
    table = simulated(4)
    shuffled = TokenTable(table.frame.sample(frac=1, random_state=0))
    for function in (correctness_alignment, step_gap, divergence_by_quarter):
        pd.testing.assert_frame_equal(function(table), function(shuffled), check_exact=False, atol=1e-12)


def test_the_order_of_the_rollouts_changes_nothing_either():
    table = simulated(4)
    backwards = table.with_columns(rollout=table.frame["rollout"].max() - table.frame["rollout"])
    pd.testing.assert_frame_equal(step_gap(table), step_gap(backwards), check_exact=False, atol=1e-12)


def test_every_result_has_its_bounds_around_its_mean_and_whole_counts():
    table = simulated(6)
    for function in (correctness_alignment, step_gap, divergence_by_quarter, diagnostics.divergence_by_class, diagnostics.clipping):
        result = function(table)
        known = result.dropna()
        assert len(known) and (known["low"] <= known["mean"]).all() and (known["mean"] <= known["high"]).all()
        counts = [name for name in result if name.startswith("n_")]
        assert list(result.columns[-len(counts) - 4 :]) == ["mean", "low", "high", *counts, "note"]
        assert (result[counts].dtypes == np.int64).all() and (result[["mean", "low", "high"]].dtypes == np.float64).all()


OTHERS = ("by_view", "compare_views", "depth_decay", "drift", "teacher_contrast", "with_outcomes")
TABLE_FUNCTIONS = [name for name in diagnostics.__all__ if name not in OTHERS]


@pytest.mark.parametrize("name", TABLE_FUNCTIONS)
def test_an_empty_table_is_refused_by_name(name):
    empty = TokenTable(pd.DataFrame({column: pd.Series(dtype=kind) for column, kind in COLUMNS.items()}))
    with pytest.raises(ValueError, match=f"{name}: the table is empty; score some rollouts first"):
        getattr(diagnostics, name)(empty)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("correctness_alignment", "with_outcomes"),
        ("sign_noise", "with_outcomes"),
        ("result_digits", "with_outcomes"),
        ("step_gap", "label_steps"),
        ("top_k_overlap", "top_k=16"),
        ("teacher_mass_outside", "top_k=16"),
    ],
)
def test_a_table_that_lacks_what_is_needed_is_refused_with_the_remedy(name, remedy):
    with pytest.raises(ValueError, match=f"{name}: .*{remedy}"):
        getattr(diagnostics, name)(build({"gap": [0.5, 1.0]}))


@pytest.mark.parametrize("column", ["token", "rollout", "surprise"])
def test_a_column_without_numbers_to_average_is_refused(column):
    with pytest.raises(ValueError, match=f"column '{column}' holds no numbers to average"):
        step_gap(simulated(0), column)
