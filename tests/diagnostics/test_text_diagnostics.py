import numpy as np
import pytest
from scipy import stats

from opsd_lab.diagnostics import drift, epistemic_markers
from opsd_lab.diagnostics.texts import LEAKAGE_PHRASES, MARKERS
from tests.diagnostics.tables import build, row


def text(tokens: list[str], **columns: object) -> dict:
    return {"token": tokens, "gap": np.zeros(len(tokens)), **columns}


THOUGHTS = [
    text(["Wait", ",", " may", "be", " WAIT", " awaits", " checks", " check"]),
    text(["It", " seems", " so", "."]),
    text([" wait", "<|im_end|>"], problem_id="p1"),
]


def test_epistemic_markers_are_whole_words_of_the_joined_text_in_any_case():
    result = epistemic_markers(build(*THOUGHTS))
    assert result["outcome"].unique().tolist() == ["all"] and result["marker"].tolist() == [*MARKERS, "total"]
    expected = {"wait": 3 / 3, "maybe": 1 / 3, "check": 1 / 3, "seems": 1 / 3, "hmm": 0, "total": 6 / 3}
    assert {name: row(result, "all", name)["mean"] for name in expected} == pytest.approx(expected)
    counts = row(result, "all", "total")
    assert (counts["n"], counts["n_rollouts"], counts["n_tokens"]) == (2, 3, 14)
    error = (1 / 2 * ((1 - 2) ** 2 + (2.5 - 2) ** 2)) ** 0.5  # either problem alone: 1 marker, or 5 in 2 rollouts
    assert 2 - counts["low"] == pytest.approx(stats.t.ppf(0.975, 1) * error) and counts["high"] - 2 > 2 - counts["low"]


def test_markers_are_counted_by_outcome_once_outcomes_are_set():
    outcomes = ("correct", "incorrect", "correct")
    table = build(*({**columns, "outcome": outcome} for columns, outcome in zip(THOUGHTS, outcomes, strict=True)))
    result = epistemic_markers(table)
    assert result["outcome"].unique().tolist() == ["all", "correct", "incorrect", "unverifiable"]
    assert row(result, "correct", "wait")["mean"] == 1.5 and row(result, "incorrect", "wait")["mean"] == 0
    assert np.isnan(row(result, "unverifiable", "wait")["mean"]) and row(result, "unverifiable", "wait")["n_rollouts"] == 0


def ids(numbers: list[int], last: str = "a", **columns: object) -> dict:
    return text(["a"] * (len(numbers) - 1) + [last], token_id=numbers, **columns)


def test_drift_describes_the_rollouts_of_each_step():
    first = build(
        ids([1, 2, 3, 4, 5, 6, 7, 8], student_entropy=[1.0] * 8),  # reaches the limit
        ids([1, 2, 3, 4, 5, 6, 7, 9], "<|im_end|>", student_entropy=[2.0] * 8),  # ends there by itself
        ids([1, 1, 1, 1, 1, 1], "</s>", problem_id="p1", student_entropy=[0.0] * 6),  # its 3 4-grams are one
        text(["As", " the", "\n", "Reference", " says"], problem_id="p1"),
        text(["thereference", "!"], problem_id="p1"),
    )
    second = build(ids([1, 2, 3, 1, 2, 3, 1, 2]))  # 5 4-grams, the last 2 seen before
    result = drift({10: first, 20: second}, max_new_tokens=8)
    assert list(result.columns[:2]) == ["training_step", "measure"]
    assert result["training_step"].tolist() == [10] * 5 + [20] * 5
    expected = {
        "length": 29 / 5,
        "truncation_rate": 1 / 5,
        "repetition": (0 + 0 + 2 / 3 + 1 / 2) / 4,
        "student_entropy": 24 / 29,
        "leakage_rate": 1 / 5,
    }
    for measure, value in expected.items():
        assert row(result, 10, measure)["mean"] == pytest.approx(value)
    assert row(result, 10, "repetition")["n_rollouts"] == 4 and row(result, 10, "length")["n"] == 2
    assert row(result, 20, "repetition")["mean"] == pytest.approx(2 / 5)
    assert row(result, 20, "truncation_rate")["mean"] == 1 and np.isnan(row(result, 20, "length")["low"])


def test_a_4_gram_of_another_rollout_is_no_repetition():
    result = drift([build(ids([1, 2, 3, 4]), ids([1, 2, 3, 4]), ids([4, 1, 2, 3, 4]))], 9)
    assert row(result, 1, "repetition")["mean"] == 0


@pytest.mark.parametrize("phrase", LEAKAGE_PHRASES)
def test_each_leakage_phrase_is_found_across_tokens_and_line_breaks(phrase):
    tokens = [f" {word.upper()}\n" for word in phrase.split()]
    assert row(drift([build(text(["By", *tokens, "."]))], 9), 1, "leakage_rate")["mean"] == 1


def test_tables_in_a_list_are_numbered_from_one():
    table = build(ids([1, 2, 3, 4]))
    assert drift([table, table], 9)["training_step"].unique().tolist() == [1, 2]


def test_a_rollout_beyond_the_limit_and_no_tables_are_refused():
    with pytest.raises(ValueError, match="step 1: rollout 1 has 5 tokens, more than max_new_tokens = 4"):
        drift([build(ids([1, 2]), ids([1, 2, 3, 4, 5]))], 4)
    with pytest.raises(ValueError, match="no tables"):
        drift([], 4)
