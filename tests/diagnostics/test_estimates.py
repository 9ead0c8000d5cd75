import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

from opsd_lab import diagnostics
from opsd_lab.diagnostics import correctness_alignment, divergence_by_quarter, step_gap
from opsd_lab.evaluation.estimate import ESTIMATE
from opsd_lab.tokens.table import COLUMNS, TokenTable
from tests.diagnostics.tables import build, row, simulated


def wider(values, mean=None, error=None, freedom=None) -> tuple[float, float]:
    """Return the bounds of a mean written out: on each side the farther of Student's and the root of Hall's cubic transformation."""
    mean, freedom = np.mean(values) if mean is None else mean, len(values) - 1 if freedom is None else freedom
    error = stats.sem(values) if error is None else error
    centred = values - np.mean(values)
    skew = np.mean(centred**3) / np.mean(centred**2) ** 1.5 / np.sqrt(len(values))
    t = stats.t.ppf(0.975, freedom)

    def hall(x):
        return x + skew * x**2 / 3 + skew**2 * x**3 / 27 + skew / 6

    below, above = (optimize.brentq(lambda x, q=q: hall(x) - q, -99, 99) for q in (t, -t))
    return mean - max(t, below) * error, mean + max(t, -above) * error


@pytest.mark.parametrize("skewed", [False, True])
def test_the_bounds_are_the_wider_of_students_and_halls_where_every_problem_has_one_value(skewed):
    table = simulated(1, problems=15, rollouts=3)
    if skewed:
        table = table.with_columns(gap=np.exp(table.frame["gap"]), teacher_logprob=np.exp(table.frame["gap"]))
    result = row(correctness_alignment(table), "correct - incorrect", "all")
    means = (
        table.frame.groupby(["problem_id", "rollout", "outcome"])["gap"].mean().groupby(["problem_id", "outcome"]).mean().unstack()
    )
    values = (means["correct"] - means["incorrect"]).dropna().to_numpy()
    assert result["mean"] == pytest.approx(values.mean(), abs=1e-12)
    assert (result["low"], result["high"]) == pytest.approx(wider(values), abs=1e-9)
    student = stats.t.interval(0.95, len(values) - 1, loc=values.mean(), scale=stats.sem(values))
    assert result["low"] <= student[0] + 1e-12 and result["high"] >= student[1] - 1e-12


def test_the_bounds_of_a_token_mean_are_those_of_leaving_out_each_problem_written_out():
    table = simulated(2, problems=6)
    correct = table.frame[table.frame["label"] == "correct"]
    sizes = correct.groupby("problem_id").size().to_numpy()
    without = np.array([correct[correct["problem_id"] != name]["gap"].mean() for name in sorted(set(correct["problem_id"]))])
    mean, count = correct["gap"].mean(), len(without)
    error = np.sqrt((count - 1) / count * np.sum((without - mean) ** 2))
    shifts = mean - without
    skew = np.sum(shifts**3) / np.sum(shifts**2) ** 1.5
    t = stats.t.ppf(0.975, sizes.sum() ** 2 / (sizes**2).sum() - 1)
    roots = [optimize.brentq(lambda x, q=q: x + skew * x**2 / 3 + skew**2 * x**3 / 27 + skew / 6 - q, -99, 99) for q in (t, -t)]
    found = row(step_gap(table), "token", "correct")
    expected = mean, mean - max(t, roots[0]) * error, mean + max(t, -roots[1]) * error
    assert (found["mean"], found["low"], found["high"]) == pytest.approx(expected, abs=1e-9)


def test_the_bounds_of_a_difference_hold_the_problems_shared_ups_and_downs_out():
    rng = np.random.default_rng(3)
    rollouts = []
    for i in range(12):
        steps = {"label": ["correct"] * 4 + ["incorrect"] * 4, "step": [0] * 4 + [1] * 4}
        rollouts.append({**steps, "problem_id": f"p{i:02d}", "gap": rng.normal(size=8) + 5 * rng.normal()})
    table = build(*rollouts)
    difference = np.array([np.mean(r["gap"][4:]) - np.mean(r["gap"][:4]) for r in rollouts])
    found, side = (row(step_gap(table), "token", label) for label in ("incorrect - correct", "correct"))
    assert (found["low"], found["high"]) == pytest.approx(wider(difference), abs=1e-9)
    assert found["high"] - found["low"] < (side["high"] - side["low"]) / 2


def test_shares_of_nothing_and_of_everything_have_bounds_with_a_width():
    never, always = (
        [{"problem_id": f"p{i:02d}", "gap": np.zeros(5), "clipped": np.full(5, c)} for i in range(40)] for c in (0.0, 1.0)
    )
    nothing, everything = (row(diagnostics.clipping(build(*rollouts)), "clip_fraction") for rollouts in (never, always))
    assert (nothing["mean"], nothing["low"]) == (0, 0) and 0.05 < nothing["high"] < 0.15
    assert (everything["mean"], everything["high"]) == (1, 1) and 0.85 < everything["low"] < 0.95


def test_rows_that_rest_on_few_problems_say_so():
    notes = {n: set(divergence_by_quarter(simulated(0, problems=n))["note"]) for n in (1, 2, 29, 30, 60)}
    assert notes[1] == {"too few problems for bounds"} and notes[2] == {"rough bounds: 2 problems"}
    assert notes[29] == {"rough bounds: 29 problems"}
    assert all(note.startswith("rough bounds: 30 problems weigh like 2") for note in notes[30]) and notes[60] == {""}


def test_means_of_which_nearly_all_problems_are_0_have_no_bounds_and_say_so():
    def rows(nonzero, problems=40):
        found = [{"problem_id": f"p{i:02d}", "gap": [0.0, 0.0, 1.0 + i if i < nonzero else 0.0]} for i in range(problems)]
        return row(diagnostics.mean_by_position(build(*found)), "all")

    for nonzero in (0, 1, 4):
        found = rows(nonzero)
        assert np.isfinite(found["mean"]) and np.isnan([found["low"], found["high"]]).all()
        assert found["note"] == f"no bounds: {nonzero} of 40 problems differ from 0"
    assert np.isfinite(rows(5)["low"]) and rows(5)["note"] == ""
    assert np.isfinite(rows(3, problems=3)["low"]), "all of a few problems are not 0"


def test_a_difference_has_no_bounds_where_a_side_is_nearly_all_0():
    def rollout(i):
        gap = [float(i), 1.0 if i < 2 else 0.0]
        return {"problem_id": f"p{i:02d}", "label": ["correct", "incorrect"], "step": [0, 1], "gap": gap}

    result = step_gap(build(*(rollout(i) for i in range(40))))
    assert np.isfinite(row(result, "token", "correct")["low"])
    contrast = row(result, "token", "incorrect - correct")
    assert np.isnan(contrast["low"]) and contrast["note"] == "no bounds: 2 of 40 problems differ from 0"


def test_many_problems_of_which_few_weigh_most_say_so():
    rollouts = [{"problem_id": f"p{i:02d}", "gap": np.ones(400 if i < 4 else 2) * i} for i in range(40)]
    note = row(diagnostics.mean_by_position(build(*rollouts)), "all")["note"]
    assert note == "rough bounds: 40 problems weigh like 4 equal ones"


def test_one_problem_has_a_mean_and_no_bounds():
    result = row(divergence_by_quarter(build({"divergence": [1.0, 1, 1, 3]}, {"divergence": [1.0, 1, 1, 3]})), 4)
    assert result["mean"] == 0.5 and result["n"] == 1 and result["n_rollouts"] == 2
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
    assert contrast["n"] == 2 and contrast["n_rollouts"] == 3 and contrast["n_steps"] == 3 and contrast["n_tokens"] == 5


def test_the_intervals_of_contrasts_that_are_zero_cover_zero_about_as_often_as_they_say():
    covered = np.zeros(3)
    for seed in range(200):
        table = simulated(seed)
        gaps = step_gap(table)
        found = [row(gaps, unit, "incorrect - correct") for unit in ("token", "step")]
        found.append(row(correctness_alignment(table), "correct - incorrect", "all"))
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
        assert list(result.columns[-len(counts) - 6 :]) == [*ESTIMATE, *counts, "note"] and set(result["unit"]) == {"problems"}
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
