import numpy as np
import pandas as pd
import pytest
from scipy.stats import bootstrap

from opsd_lab import diagnostics
from opsd_lab.diagnostics import correctness_alignment, divergence_by_quarter, step_gap
from opsd_lab.statistics import percentile_bounds, resample_sums
from opsd_lab.token_table import COLUMNS, TokenTable
from tests.diagnostics.tables import build, row, simulated


def test_the_bootstrap_is_scipys_where_every_problem_has_one_value():
    table = simulated(1, problems=15, rollouts=3)
    result = row(correctness_alignment(table, resamples=500, seed=3), "all")
    means = (
        table.frame.groupby(["problem_id", "rollout", "outcome"])["gap"].mean().groupby(["problem_id", "outcome"]).mean().unstack()
    )
    values = (means["correct"] - means["incorrect"]).to_numpy()
    options = {"n_resamples": 500, "batch": 500, "method": "percentile", "rng": 3}
    expected = bootstrap((values,), np.mean, **options).confidence_interval
    assert result["mean"] == pytest.approx(values.mean(), abs=1e-12)
    assert (result["low"], result["high"]) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_the_bootstrap_of_a_token_mean_and_of_a_contrast_is_that_of_resampled_problems_written_out():
    table = simulated(2, problems=6)
    groups = dict(list(table.frame.groupby("problem_id")))
    rng = np.random.default_rng(5)
    means, contrasts = [], []
    for drawn in rng.integers(0, 6, (300, 6)):
        frame = pd.concat([groups[f"p{i:03d}"] for i in drawn])
        by_label = frame.groupby("label")["gap"].mean().reindex(["correct", "incorrect"])
        means.append(by_label["correct"])
        contrasts.append(by_label["incorrect"] - by_label["correct"])
    result = step_gap(table, resamples=300, seed=5)
    for label, draws in {"correct": means, "incorrect - correct": contrasts}.items():
        found = row(result, "token", label)
        assert (found["low"], found["high"]) == pytest.approx(tuple(np.nanquantile(draws, [0.025, 0.975])), abs=1e-12)


def test_resampled_sums_do_not_depend_on_the_pieces_they_are_computed_in():
    sums = np.random.default_rng(0).normal(size=(1500, 2))
    drawn = resample_sums(sums, 2000, 7)  # more indices than are held at a time
    indices = np.random.default_rng(7).integers(0, 1500, (2000, 1500))
    np.testing.assert_allclose(drawn[[0, 1332, 1333, 1999]], [sums[i].sum(axis=0) for i in indices[[0, 1332, 1333, 1999]]], atol=1e-9)


def test_bounds_leave_out_resamples_without_a_value():
    low, high = percentile_bounds(np.array([[np.nan, 0.0], [np.nan, 1.0], [np.nan, np.nan]]))
    assert np.isnan([low[0], high[0]]).all()
    assert (low[1], high[1]) == pytest.approx((0.025, 0.975))


@pytest.mark.parametrize(("problems", "resamples"), [(0, 10), (3, 0)])
def test_a_bootstrap_without_problems_or_resamples_is_refused(problems, resamples):
    with pytest.raises(ValueError, match="at least one problem and one resample"):
        resample_sums(np.zeros((problems, 1)), resamples, 0)


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
        gaps = step_gap(table, resamples=400)
        found = [row(gaps, unit, "incorrect - correct") for unit in ("token", "step")]
        found.append(row(correctness_alignment(table, resamples=400), "all"))
        covered += [contrast["low"] <= 0 <= contrast["high"] for contrast in found]
    assert ((covered / 200 >= 0.88) & (covered / 200 <= 0.99)).all(), covered


def test_the_order_of_a_tables_rows_changes_nothing():
    table = simulated(4)
    shuffled = TokenTable(table.frame.sample(frac=1, random_state=0))
    for function in (correctness_alignment, step_gap, divergence_by_quarter):
        pd.testing.assert_frame_equal(function(table), function(shuffled), check_exact=False, atol=1e-12)


def test_the_order_of_the_rollouts_changes_nothing_either():
    table = simulated(4)
    backwards = table.with_columns(rollout=table.frame["rollout"].max() - table.frame["rollout"])
    pd.testing.assert_frame_equal(step_gap(table), step_gap(backwards), check_exact=False, atol=1e-12)


def test_a_seed_gives_the_same_bounds_again_and_another_gives_others():
    table = simulated(5)
    first, again, other = (step_gap(table, seed=seed) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again)
    assert (first["low"] != other["low"]).any() and (first["mean"].dropna() == other["mean"].dropna()).all()


def test_every_result_has_its_bounds_around_its_mean_and_whole_counts():
    table = simulated(6)
    for function in (correctness_alignment, step_gap, divergence_by_quarter, diagnostics.divergence_by_class, diagnostics.clipping):
        result = function(table)
        known = result.dropna()
        assert len(known) and (known["low"] <= known["mean"]).all() and (known["mean"] <= known["high"]).all()
        counts = [name for name in result if name.startswith("n_")]
        assert list(result.columns[-len(counts) - 3 :]) == ["mean", "low", "high", *counts]
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
