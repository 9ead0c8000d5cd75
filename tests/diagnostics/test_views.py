import numpy as np
import pandas as pd
import pytest

from opsd_lab.diagnostics import by_view, compare_views, step_gap, teacher_contrast
from opsd_lab.tokens.table import TokenTable
from tests.diagnostics.tables import build, row, simulated


def shifted(table: TokenTable, by: object) -> TokenTable:
    gap = table.frame["gap"] + by
    return table.with_columns(gap=gap, teacher_logprob=gap)


def test_by_view_puts_each_views_result_below_the_other():
    table = simulated(0)
    tables = {"reference": table, "hints": shifted(table, 1.0)}
    result = by_view(step_gap, tables, column="divergence")
    assert list(result.columns[:3]) == ["view", "per", "label"] and result["view"].tolist() == ["reference"] * 9 + ["hints"] * 9
    alone = step_gap(tables["hints"], "divergence")
    pd.testing.assert_frame_equal(result[result["view"] == "hints"].drop(columns="view").reset_index(drop=True), alone)


def test_a_constant_difference_between_views_has_an_interval_of_no_width():
    table = simulated(0)
    result = compare_views({"none": table, "reference": shifted(table, 0.5)}, "none")
    assert result["label"].tolist() == ["all", "correct", "incorrect", "unverifiable", "none", "incorrect - correct"]
    assert result["view"].unique().tolist() == ["reference"]
    for label, difference in {"all": 0.5, "correct": 0.5, "incorrect": 0.5, "incorrect - correct": 0}.items():
        assert row(result, "reference", "none", label)[["mean", "low", "high"]].tolist() == pytest.approx([difference] * 3, abs=1e-12)


def test_the_difference_on_a_label_is_that_of_the_means_on_it():
    table = simulated(1)
    other = shifted(table, np.random.default_rng(0).normal(size=len(table)))
    result = compare_views({"a": other, "b": table}, "b")
    means = [step_gap(t).set_index(["per", "label"]).loc["token"] for t in (other, table)]
    difference = means[0]["mean"] - means[1]["mean"]
    for label in ("correct", "incorrect", "incorrect - correct"):
        found = row(result, "a", "b", label)
        assert found["mean"] == pytest.approx(difference[label])
        assert found["high"] - found["low"] < means[1].loc[label, "high"] - means[1].loc[label, "low"], "pairing removes the problems"


def test_without_labels_only_all_tokens_are_compared():
    table = build({"gap": [1.0, 2]}, {"problem_id": "p1", "gap": [3.0]})
    result = compare_views({"a": table, "b": shifted(table, -1.0)}, "a", "gap")
    assert result["label"].tolist() == ["all"] and result["mean"].tolist() == pytest.approx([-1])


@pytest.mark.parametrize(
    ("other", "place"),
    [
        ([{"gap": [1.0, 2]}, {"gap": [0.0, 0, 0], "token_id": [0, 7, 7]}], "rollout 1, position 1"),
        ([{"gap": [1.0, 2]}, {"gap": [0.0]}], "rollout 1, position 1"),
        ([{"gap": [1.0]}, {"gap": [0.0, 0, 0]}], "rollout 1, position 0"),
        ([{"gap": [1.0, 2]}, {"gap": [0.0, 0, 0], "problem_id": "p9"}], "rollout 1, position 0"),
    ],
)
def test_views_of_other_completions_are_refused_where_they_first_differ(other, place):
    tables = {"first": build({"gap": [1.0, 2]}, {"gap": [0.0, 0, 0]}), "second": build(*other)}
    for call in (lambda: by_view(step_gap, tables), lambda: compare_views(tables, "first")):
        with pytest.raises(ValueError, match=f"view 'second' holds other completions than view 'first', first at {place}"):
            call()


def test_views_that_cannot_be_compared_are_refused():
    table = simulated(0, problems=2)
    with pytest.raises(ValueError, match="there are no views"):
        by_view(step_gap, {})
    with pytest.raises(ValueError, match="not 'c'"):
        compare_views({"a": table, "b": table}, "c")
    with pytest.raises(ValueError, match="name one of two or more"):
        compare_views({"a": table}, "a")
    with pytest.raises(ValueError, match="view 'b' has other step labels than 'a'"):
        compare_views({"a": table, "b": table.with_columns(label="correct")}, "a")


def test_a_teacher_contrast_has_the_difference_of_the_gaps_and_makes_any_diagnostic_paired():
    table = simulated(1)
    other = shifted(table, np.random.default_rng(0).normal(size=len(table)))
    both = teacher_contrast(table, other)
    np.testing.assert_allclose(both.frame["gap"], other.frame["gap"] - table.frame["gap"], atol=1e-12)
    paired = compare_views({"a": other, "b": table}, "b")
    steps = step_gap(both)
    for label in ("correct", "incorrect", "incorrect - correct"):
        assert row(steps, "token", label)["mean"] == pytest.approx(row(paired, "a", "b", label)["mean"])
        assert row(steps, "token", label)["low"] == pytest.approx(row(paired, "a", "b", label)["low"])


def test_a_teacher_contrast_needs_the_same_tokens_in_the_same_order():
    table = simulated(0, problems=2)
    with pytest.raises(ValueError, match="holds other completions"):
        teacher_contrast(table, simulated(0, problems=3))
    backwards = TokenTable(table.frame.iloc[::-1])
    with pytest.raises(ValueError, match="different orders"):
        teacher_contrast(table, backwards)
