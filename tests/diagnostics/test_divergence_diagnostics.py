import numpy as np
import pytest
from scipy import stats

from opsd_lab import diagnostics
from opsd_lab.diagnostics import clipping, divergence_by_class, divergence_by_quarter, teacher_mass_outside, top_k_overlap
from opsd_lab.tokens.classes import CLASSES
from opsd_lab.tokens.table import TokenTable
from opsd_lab.tokens.top import TopTokens
from tests.diagnostics.tables import build, row, simulated


def top_tokens(student: list, teacher: list, vocabulary: int = 6) -> TopTokens:
    """Return both sides' whole vocabulary, most probable first, for probabilities [N, V]."""
    student, teacher = np.array(student, dtype=float), np.array(teacher, dtype=float)
    columns = {}
    for side, own, other in (("student", student, teacher), ("teacher", teacher, student)):
        ids = np.argsort(-own, axis=1, kind="stable")
        columns[f"{side}_top_ids"] = ids
        columns[f"{side}_top_logprobs"] = np.log(np.take_along_axis(own, ids, 1))
        columns[f"{side}_top_elsewhere"] = np.log(np.take_along_axis(other, ids, 1))
    return TopTokens(**columns, texts={i: str(i) for i in range(vocabulary)})


# Sets of the 2 most probable: {0, 1} and {1, 2}; then {0, 1} and {1, 0}; then {0, 1} and {2, 3}.
STUDENT = [[0.4, 0.3, 0.2, 0.1], [0.7, 0.2, 0.06, 0.04], [0.6, 0.3, 0.07, 0.03]]
TEACHER = [[0.1, 0.25, 0.6, 0.05], [0.3, 0.5, 0.15, 0.05], [0.1, 0.05, 0.6, 0.25]]
ENTROPIES = {"student_entropy": [1.0, 2.0, 0.5], "teacher_entropy": [0.5, 2.5, 0.75]}


def test_overlap_counts_the_tokens_that_both_sides_find_likely():
    table = build({"gap": [0.0, 0, 0], **ENTROPIES}, top=top_tokens(STUDENT, TEACHER))
    result = top_k_overlap(table, k=2, bins=3)
    assert result["position"].tolist() == ["all", "0-33.3 %", "33.3-66.7 %", "66.7-100 %"] * 4
    assert result["start"].tolist()[:4] == [0, 0, 1 / 3, 2 / 3] and result["end"].tolist()[:4] == [1, 1 / 3, 2 / 3, 1]
    expected = {
        "overlap": [1 / 2, 1, 0],
        "student_mass": [0.3, 0.9, 0],
        "teacher_mass": [0.25, 0.8, 0],
        "entropy_gap": [0.5, 0.5, 0.25],
    }
    for measure, values in expected.items():
        means = result.loc[result["measure"] == measure, "mean"].tolist()
        assert means == pytest.approx([np.mean(values), *values], abs=1e-7)


def test_equal_sides_overlap_completely():
    table = build({"gap": [0.0, 0, 0]}, top=top_tokens(STUDENT, STUDENT))
    result = top_k_overlap(table, k=3, bins=1)
    assert row(result, "overlap", "all")["mean"] == 1
    assert (
        row(result, "student_mass", "all")["mean"]
        == row(result, "teacher_mass", "all")["mean"]
        == pytest.approx((0.9 + 0.96 + 0.97) / 3)
    )


def test_a_bin_that_no_rollout_reaches_keeps_its_row():
    table = build({"gap": [0.0, 0, 0]}, top=top_tokens(STUDENT, TEACHER))
    result = top_k_overlap(table, k=2)
    assert len(result) == 4 * 11 and row(result, "overlap", "10-20 %")["n_tokens"] == 0
    assert np.isnan(row(result, "overlap", "10-20 %")["mean"])


def test_the_lists_stay_with_their_tokens_when_the_rows_stand_in_another_order():
    table = build({"gap": [0.0, 0, 0]}, top=top_tokens(STUDENT, TEACHER))
    backwards = TokenTable(table.frame.iloc[::-1], table.top.rows(np.array([2, 1, 0])))
    assert top_k_overlap(backwards, k=2, bins=3)["mean"].tolist() == top_k_overlap(table, k=2, bins=3)["mean"].tolist()


@pytest.mark.parametrize("k", [0, 5])
def test_more_likely_tokens_than_the_table_holds_are_refused(k):
    table = build({"gap": [0.0, 0, 0]}, top=top_tokens(STUDENT, TEACHER))
    for function in (top_k_overlap, teacher_mass_outside):
        with pytest.raises(ValueError, match=f"k is {k}, but the table holds the 4 most probable"):
            function(table, k)


def test_less_than_one_bin_is_refused():
    with pytest.raises(ValueError, match="bins is 0"):
        top_k_overlap(build({"gap": [0.0, 0, 0]}, top=top_tokens(STUDENT, TEACHER)), k=2, bins=0)


def test_the_teachers_mass_outside_is_what_the_students_likely_tokens_leave():
    table = build({"gap": [0.0, 0, 0]}, top=top_tokens(STUDENT, TEACHER))
    result = teacher_mass_outside(table, k=2)
    assert result["statistic"].tolist() == ["mean", "median", "90 %", "99 %"]
    assert result["mean"].tolist() == pytest.approx([(0.65 + 0.2 + 0.85) / 3, 0.65, 0.85, 0.85], abs=1e-6)
    assert result["low"].isna().all() and (result["n_tokens"] == 3).all()


def test_the_bounds_of_a_quantile_are_the_quantiles_at_the_bounds_of_its_share():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(4), size=(2, 240))
    rollouts = [{"problem_id": f"p{i:02d}", "gap": np.zeros(10)} for i in range(24)]
    result = teacher_mass_outside(build(*rollouts, top=top_tokens(*probabilities)), k=2)
    outside = np.array([1 - t[np.argsort(-s)[:2]].sum() for s, t in zip(*probabilities, strict=True)])
    below = (outside <= np.quantile(outside, 0.5, method="inverted_cdf")).reshape(24, 10).mean(axis=1)
    trials = 0.25 / (below.var(ddof=1) / 24)
    t = stats.t.ppf(0.975, 23)
    half = t * np.sqrt(0.25 / (trials + t**2))
    mean, low, high = np.quantile(outside, [0.5, 0.5 - half, 0.5 + half], method="inverted_cdf")
    found = row(result, "median")
    assert found["mean"] == pytest.approx(mean, abs=1e-6)
    # On the side of the longer tail the bound may lie farther.
    longer_above = stats.skew(below) > 0
    assert found["low" if longer_above else "high"] == pytest.approx(low if longer_above else high, abs=1e-6)
    assert found["low"] <= low + 1e-6 and found["high"] >= high - 1e-6


def test_the_bounds_of_a_median_hold_it_about_as_often_as_they_say():
    rng, held = np.random.default_rng(4), []
    for _ in range(120):
        student, ease = rng.dirichlet(np.ones(3), size=240), np.repeat(rng.normal(size=24), 10)
        outside = 1 / (1 + np.exp(-ease - rng.normal(size=240)))  # its median is .5
        teacher = np.full((240, 3), 0.0) + outside[:, None] / 2
        teacher[np.arange(240), student.argmax(axis=1)] = 1 - outside
        table = build(*[{"problem_id": f"p{i:02d}", "gap": np.zeros(10)} for i in range(24)], top=top_tokens(student, teacher))
        found = row(teacher_mass_outside(table, k=1), "median")
        held.append(found["low"] <= 0.5 <= found["high"])
    assert 0.91 <= np.mean(held) <= 0.99


def test_the_shares_of_quarters_are_ratios_of_sums_and_add_up_to_one():
    table = build({"divergence": [1.0, 2, 3, 4]}, {"problem_id": "p1", "divergence": [0.0, 10, 0, 0, 0, 0, 0, 0]})
    result = divergence_by_quarter(table)
    assert result["quarter"].tolist() == [1, 2, 3, 4]
    assert result["mean"].tolist() == pytest.approx([11 / 20, 2 / 20, 3 / 20, 4 / 20])
    assert result["n_tokens"].tolist() == [3, 3, 3, 3] and result["n"].tolist() == [2] * 4
    assert ((result["low"] >= 0) & (result["low"] < result["mean"]) & (result["mean"] < result["high"]) & (result["high"] <= 1)).all()
    assert (result["note"] == "rough bounds: 2 problems").all()


@pytest.mark.parametrize("divergence", [0.0, -1.0])
def test_without_a_positive_divergence_there_are_no_shares(divergence):
    result = divergence_by_quarter(build({"divergence": [divergence] * 4}, {"problem_id": "p1", "divergence": [divergence] * 4}))
    assert result[["mean", "low", "high"]].isna().all(axis=None) and (result["n_tokens"] == 2).all()


def test_each_class_has_its_mean_divergence_and_its_share():
    table = build(
        {"token": [" so", " the", "refore", " 1", "2", "=", "<|im_end|>"], "divergence": [4.0, 1, 3, 1, 2, 0, 1]},
        {"problem_id": "p1", "token": ["me", " ", " 1"], "divergence": [2.0, 4, 2]},  # "so" + "me" are no word: two rollouts
    )
    result = divergence_by_class(table)
    assert result["token_class"].tolist() == [*CLASSES] * 2
    means = {"style marker": 4, "connective": 2, "number": 5 / 3, "operator": 0, "special": 1, "space": 4, "other": 2}
    sums = {"style marker": 4, "connective": 4, "number": 5, "operator": 0, "special": 1, "space": 4, "other": 2}
    for name in CLASSES:
        assert row(result, "divergence", name)["mean"] == pytest.approx(means[name])
        assert row(result, "share", name)["mean"] == pytest.approx(sums[name] / 20)
    assert row(result, "share", "number")["n_tokens"] == 3 and row(result, "share", "number")["n"] == 2


def test_a_class_without_tokens_keeps_its_row():
    empty = row(divergence_by_class(simulated(0)), "share", "operator")
    assert np.isnan(empty["mean"]) and empty["n_tokens"] == 0


def test_clipping_counts_the_clipped_tokens_and_what_was_taken_off_them():
    table = build(
        {"divergence": [1.0, 2, 0.5, -0.5], "clipped": [0.0, 3, 0, 0]}, {"problem_id": "p1", "divergence": [1.0], "clipped": [1.0]}
    )
    result = clipping(table)
    assert row(result, "clip_fraction")["mean"] == 2 / 5
    assert row(result, "clipped_mass")["mean"] == 4 / 8
    assert 0 < row(result, "clipped_mass")["low"] < 0.5 < row(result, "clipped_mass")["high"] < 1


def test_without_a_clip_nothing_is_clipped():
    result = clipping(build({"divergence": [1.0, 2]}, {"problem_id": "p1", "divergence": [1.0]}))
    assert (result[["mean", "low"]] == 0).all(axis=None) and (result["high"] > 0).all()


def test_top_tokens_are_texts_with_their_total_divergence_largest_first():
    table = build({"token": ["a", "b", "a"], "divergence": [0.5, 2, 0.25]}, {"token": ["c", "b"], "divergence": [0.75, 1]})
    found = diagnostics.top_tokens(table)
    assert found.to_numpy().tolist() == [["b", 3.0, 2], ["a", 0.75, 2], ["c", 0.75, 1]]
    assert list(found) == ["token", "total", "count"]
