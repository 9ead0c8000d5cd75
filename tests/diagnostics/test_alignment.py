import numpy as np
import pytest

from opsd_lab.diagnostics import correctness_alignment, result_digits, sign_noise, step_gap, with_outcomes
from tests.diagnostics.tables import build, row


def test_alignment_is_the_mean_over_problems_of_correct_minus_incorrect_rollouts():
    table = build(
        {"gap": [1.0, 2, 3, 6], "outcome": "correct"},  # mean 3
        {"gap": [0.0] * 8, "outcome": "correct"},  # mean 0: both rollouts count alike, however long
        {"gap": [-2.0, -1, 0, -1], "outcome": "incorrect"},  # mean -1
        {"problem_id": "p1", "gap": [5.0] * 4, "outcome": "correct"},
        {"problem_id": "p1", "gap": [4.0] * 4, "outcome": "incorrect"},
        {"problem_id": "only correct", "gap": [99.0] * 4, "outcome": "correct"},
        {"problem_id": "p1", "gap": [-99.0] * 4, "outcome": "unverifiable"},
    )
    result = correctness_alignment(table)
    assert result["facet"].tolist() == ["all", "first 25 %", "middle 50 %", "last 25 %"]
    whole = row(result, "correct - incorrect", "all")
    assert whole["mean"] == pytest.approx(((1.5 + 1) + 1) / 2)
    assert (whole["n"], whole["n_rollouts"], whole["n_tokens"]) == (2, 5, 24)
    assert row(result, "correct - incorrect", "first 25 %")["mean"] == pytest.approx(((0.5 + 2) + 1) / 2)
    assert row(result, "correct - incorrect", "middle 50 %")["mean"] == pytest.approx(((1.25 + 0.5) + 1) / 2)
    assert row(result, "correct - incorrect", "last 25 %")["mean"] == pytest.approx(((3 + 1) + 1) / 2)


def test_a_rollout_too_short_for_a_quarter_counts_in_the_others():
    table = build({"gap": [1.0, 3], "outcome": "correct"}, {"gap": [0.0] * 4, "outcome": "incorrect"})
    result = correctness_alignment(table)  # 2 tokens lie in quarters 0 and 2
    assert [row(result, "correct - incorrect", facet)["mean"] for facet in ("all", "first 25 %", "middle 50 %")] == [2, 1, 3]
    last = row(result, "correct - incorrect", "last 25 %")
    assert np.isnan(last["mean"]) and last["n"] == last["n_tokens"] == 0


def test_without_a_problem_that_has_both_outcomes_there_is_no_alignment():
    result = correctness_alignment(build({"gap": [1.0, 3], "outcome": "correct"}))
    assert len(result) == 4 and result["mean"].isna().all() and (result["n"] == 0).all()


def test_outcomes_are_set_by_rollout_and_a_missing_answer_is_incorrect():
    table = build({"gap": [1.0, 3]}, {"gap": [1.0]}, {"gap": [1.0]})
    assert with_outcomes(table, ["correct", "missing", "unverifiable"]).frame["outcome"].tolist() == [
        *["correct"] * 2,
        "incorrect",
        "unverifiable",
    ]
    assert with_outcomes(table, {2: "correct", 0: "incorrect", 1: ""}).frame["outcome"].tolist() == ["incorrect"] * 2 + [
        "",
        "correct",
    ]


@pytest.mark.parametrize(
    ("outcomes", "message"),
    [
        (["correct"], "1 outcomes for the table's 2 rollouts"),
        ({0: "correct"}, "rollout 1 has no outcome"),
        ({0: "correct", 1: "correct", 7: "correct"}, "rollout 7 is not in the table"),
        (["right", "correct"], "unknown values .'right'."),
    ],
)
def test_outcomes_that_do_not_fit_the_rollouts_are_refused(outcomes, message):
    with pytest.raises(ValueError, match=message):
        with_outcomes(build({"gap": [1.0, 3]}, {"gap": [1.0]}), outcomes)


STEPS = build(
    {
        "gap": [1.0, 2, 3, -1, -2, 0.5, 7],
        "step": [0, 0, 0, 1, 1, -1, 2],
        "label": ["correct"] * 3 + ["incorrect"] * 2 + ["", "correct"],
        "error_phase": ["before"] * 3 + ["first_error"] * 2 + ["after"] * 2,
    },
    {
        "problem_id": "p1",
        "gap": [4.0, -4],
        "step": [0, 1],
        "label": ["correct", "incorrect"],
        "error_phase": ["before", "first_error"],
    },
)


def test_the_step_gap_averages_tokens_and_steps():
    result = step_gap(STEPS)
    assert result[["per", "label"]].to_numpy().tolist() == [
        *[["token", label] for label in ("correct", "incorrect", "unverifiable", "none", "incorrect - correct")],
        *[["step", label] for label in ("correct", "incorrect", "unverifiable", "incorrect - correct")],
    ]
    assert row(result, "token", "correct")["mean"] == pytest.approx((1 + 2 + 3 + 7 + 4) / 5)
    assert row(result, "step", "correct")["mean"] == pytest.approx((2 + 7 + 4) / 3)
    assert row(result, "token", "incorrect")["mean"] == pytest.approx((-1 - 2 - 4) / 3)
    assert row(result, "step", "incorrect")["mean"] == pytest.approx((-1.5 - 4) / 2)
    assert row(result, "step", "incorrect - correct")["mean"] == pytest.approx(-2.75 - 13 / 3)
    assert row(result, "token", "none")["mean"] == 0.5
    counts = ["n", "n_rollouts", "n_steps", "n_tokens"]
    assert row(result, "step", "correct")[counts].tolist() == row(result, "token", "correct")[counts].tolist() == [2, 2, 3, 5]
    assert row(result, "token", "none")[counts].tolist() == [1, 1, 0, 1]
    empty = row(result, "token", "unverifiable")
    assert np.isnan(empty["mean"]) and empty[counts].tolist() == [0] * 4


def test_a_step_in_whose_middle_the_first_error_begins_is_the_step_of_the_first_error():
    phases = ["before", "before", "before", "first_error", "after"]
    steps = {"step": [0, 0, 1, 1, 2], "label": ["correct", "correct", "incorrect", "incorrect", "correct"]}
    result = step_gap(build({"gap": [0.0, 0, -1, -3, 5], "error_phase": phases} | steps), by="error_phase")
    assert [row(result, "step", phase)["mean"] for phase in ("before", "first_error", "after")] == [0, -2, 5]
    assert row(result, "token", "before")["mean"] == pytest.approx(-1 / 3)


def test_the_step_gap_by_error_phase_compares_with_the_tokens_before():
    result = step_gap(STEPS, by="error_phase")
    assert result["error_phase"].tolist() == ["before", "first_error", "after", "first_error - before", "after - before"] * 2
    assert row(result, "token", "before")["mean"] == pytest.approx(2.5)
    assert row(result, "token", "after")["mean"] == pytest.approx(3.75)  # the token in no step too
    assert row(result, "step", "after")["mean"] == 7
    assert row(result, "token", "after - before")["mean"] == pytest.approx(1.25)
    assert row(result, "token", "first_error - before")["mean"] == pytest.approx(-7 / 3 - 2.5)


def test_labels_and_phases_can_be_crossed():
    result = step_gap(STEPS, by=("label", "error_phase"))
    assert list(result.columns[:3]) == ["per", "label", "error_phase"] and len(result) == 5 * 3 + 4 * 3
    assert row(result, "token", "correct", "before")["mean"] == pytest.approx(2.5)
    assert row(result, "token", "correct", "after")["mean"] == 7
    assert np.isnan(row(result, "token", "incorrect - correct", "after")["mean"])


def test_another_way_to_group_steps_is_refused():
    with pytest.raises(ValueError, match="by is 'outcome'"):
        step_gap(STEPS, by="outcome")


def equations(outcome: str, gaps: list[float], last: str = "correct") -> dict:
    tokens = [
        "So",
        " 2",
        "+",
        "2",
        "=",
        " ",
        "4",
        ".",
        " 12",
        "=",
        "3",
        "*",
        "4",
        ",",
        " 1",
        "+1",
        "=3",
        "1",
        " or",
        " 8",
        "\n",
        "5",
        "-",
        "4",
        "=",
        "$1",
        "0",
    ]
    step = [-1, *[0] * 6, -1, *[1] * 5, -1, *[2] * 6, -1, *[3] * 6]
    label = ["", *["correct"] * 6, "", *["correct"] * 5, "", *["incorrect"] * 6, "", *[last] * 6]
    column = np.zeros(len(tokens))
    column[[6, 10, 12, 16, 17, 25, 26]] = gaps
    column[[1, 3, 8, 14, 15, 19, 21, 23]] = 1000  # digits that are no result
    return {"token": tokens, "step": step, "label": label, "gap": column, "outcome": outcome}  # fmt: skip


def test_result_digits_tell_wrong_results_valid_ones_and_the_answer_apart():
    table = build(
        equations("correct", [-1, -2, -3, -10, -20, 0.25, 0.75]),
        {**equations("incorrect", [-4, -5, -6, -30, -40, -7, -8]), "problem_id": "p1"},
        {**equations("", [99] * 7), "problem_id": "p2"},
    )
    result = result_digits(table)
    assert result["group"].tolist() == ["valid, not the answer", "wrong", "the answer", "wrong - valid, not the answer"]
    assert row(result, "wrong")["mean"] == -25 and row(result, "wrong")["n_tokens"] == 4 and row(result, "wrong")["n_steps"] == 2
    valid = row(result, "valid, not the answer")
    assert valid["mean"] == pytest.approx(-np.mean([1, 2, 3, 4, 5, 6, 7, 8]))
    assert (valid["n"], valid["n_rollouts"], valid["n_steps"], valid["n_tokens"]) == (2, 2, 5, 8)
    assert row(result, "the answer")["mean"] == 0.5 and row(result, "the answer")["n_steps"] == 1
    assert row(result, "wrong - valid, not the answer")["mean"] == pytest.approx(-25 + 4.5)


def test_a_last_equation_that_is_not_correct_leaves_no_answer():
    table = build(equations("correct", [0] * 7, last="unverifiable"))
    result = result_digits(table)
    assert row(result, "the answer")["n_tokens"] == 0 and row(result, "valid, not the answer")["n_tokens"] == 3


def noise(outcome: str, tokens: list[str], gap: list[float], **columns: object) -> dict:
    return {"outcome": outcome, "token": tokens, "gap": gap, **columns}


def test_sign_noise_counts_answer_tokens_whose_sign_contradicts_the_outcome():
    table = build(
        noise("correct", ["7", " is", " \\boxed", "{", "1", "2", "}", ".", " 5"], [-1, -1, -1, -1, -0.5, 2, -1, -1, -1]),
        noise("incorrect", ["x", " =", " -", "3", ".", "5", ".", "<|end_9|>"], [1, 1, 1, 0.5, 1, 0.0, 1, 1], problem_id="p1"),
        noise("incorrect", ["no", " number"], [1, 1]),
        noise("unverifiable", ["3"], [1]),
        noise("correct", ["4"], [0.0]),  # a gap of zero contradicts nothing
    )
    result = sign_noise(table)
    assert result["outcome"].tolist() == ["all", "correct", "incorrect"]
    assert [row(result, o)["mean"] for o in result["outcome"]] == [2 / 5, 1 / 3, 1 / 2]
    assert [row(result, o)["n_tokens"] for o in result["outcome"]] == [5, 3, 2]


@pytest.mark.parametrize(
    ("tokens", "answer"),
    [
        (["\\boxed{", "1}", " then", " \\boxed{", "\\frac", "{1}", "{2", "}}", " 9"], [4, 5, 6, 7]),  # "2}}" closes inside a token
        (["\\boxed{5}", " \\boxed{", " \\fbox{ ", "7", " ", "}", "}"], [3]),  # the innermost of nested boxes
        (["\\boxed{", "5", "}", " and \\boxed{", "6"], [1]),  # a box that never closes is none
        (["\\boxed{", "5", "}", " so", " \\boxed{", "5", "}"], [5]),
        (["1", ",", "234", ".", "5", " apples"], [0, 2, 4]),
        (["\\boxed{ }", "8"], [1]),
        (["<think>", " so", " \\boxed{", "3", "}", "</think>", " it", " is", " 4"], [8]),  # what is thought is not the answer
        (["I", " think", " 7", "</think>", " well"], [2]),  # unless nothing stands behind it
        (["\\boxed{", "1", "}", " or", " \\boxed{", "2", "}"], [1, 5]),
        (["<answer>", "12", "</answer>", " after", " 9", " steps"], [1]),
        (["about", " $", "3", "\\frac{", "1", "}{", "2", "}$", " miles"], [2, 4, 6]),
    ],
)
def test_the_answer_tokens_are_those_that_grading_reads(tokens, answer):
    gap = np.where(np.isin(np.arange(len(tokens)), answer), -1.0, 1.0)  # every answer token contradicts, no other does
    result = row(sign_noise(build(noise("correct", tokens, gap))), "all")
    assert result["mean"] == 1 and result["n_tokens"] == len(answer)
