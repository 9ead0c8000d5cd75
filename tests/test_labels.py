import numpy as np
import pytest

from opsd_lab.steps import Step
from opsd_lab.steps.labels import label_first_error, label_steps
from opsd_lab.tokens.table import TokenTable
from tests.diagnostics.tables import build, complete
from tests.test_token_table import make_top

CHAIN = ["3", " *", " 4", " =", " 12", ".", "\n", "12", " +", " 1", " =", " 14", ".", "\n", "14", " -", " 4", " =", " 10", "."]


def columns(table: TokenTable, *names: str) -> list[tuple]:
    return list(table.frame[list(names)].itertuples(index=False, name=None))


def test_a_step_that_is_valid_given_an_earlier_mistake_is_correct_and_comes_after_the_first_error():
    table = label_steps(build({"token": CHAIN}))
    found = columns(table, "step", "label", "label_source", "error_phase")
    assert set(found[:5]) == {(0, "correct", "arithmetic", "before")}
    assert set(found[7:12]) == {(1, "incorrect", "arithmetic", "first_error")}
    assert set(found[14:19]) == {(2, "correct", "arithmetic", "after")}
    assert found[5] == (-1, "", "", "before") and found[12] == (-1, "", "", "after")


def test_a_rollout_without_an_incorrect_step_is_before_any_error_throughout():
    table = label_steps(build({"token": CHAIN[:6]}, {"token": ["no", " steps"]}))
    assert set(table.frame["error_phase"]) == {"before"}


def test_lines_are_judged_by_the_equations_in_them():
    table = label_steps(build({"token": CHAIN}), by="lines")
    assert [label for _, label in sorted(set(columns(table, "step", "label")))[1:]] == ["correct", "incorrect", "correct"]
    assert table.frame["step"].tolist() == [0] * 6 + [-1] + [1] * 6 + [-1] + [2] * 6


def test_thoughts_are_steps_of_their_own():
    table = label_steps(build({"token": ["<think>", "1+1=3", "</think>", " 1+1=2"]}), by="think")
    assert columns(table, "step", "label") == [(0, "incorrect")] * 3 + [(1, "correct")]


def test_another_judge_can_find_the_equations():
    def judge(text: str) -> list[Step]:
        return [Step(0, 1, text[:1], "correct", "a table of truths")]

    table = label_steps(build({"token": ["x", " y"]}), equations=judge)
    assert columns(table, "label", "label_source") == [("correct", "a table of truths"), ("", "")]


def test_labels_stay_with_their_tokens_whatever_the_order_of_the_rows_and_the_lists_with_them():
    table = build({"token": CHAIN}, {"token": CHAIN[7:]})
    shuffled = np.random.default_rng(0).permutation(len(table))
    mixed = label_steps(complete(table.frame.iloc[shuffled].reset_index(drop=True)))
    names = ["rollout", "position", "step", "label", "error_phase"]
    ordered = mixed.frame.sort_values(["rollout", "position"])[names].to_numpy().tolist()
    assert ordered == label_steps(table).frame[names].to_numpy().tolist()
    top = make_top(len(CHAIN))
    assert label_steps(build({"token": CHAIN}, top=top)).top is top


SENTENCES = ["One", " is", " one", ".", " Two", " is", " three", ".", " So", " four", "."]


def test_people_mark_the_first_wrong_step_and_what_follows_is_judged_by_nobody():
    start = len("One is one. ")
    table = label_first_error(build({"token": SENTENCES}), {0: (start, start + len("Two is three."))})
    assert columns(table, "label", "error_phase") == (
        [("correct", "before")] * 4 + [("incorrect", "first_error")] * 4 + [("unverifiable", "after")] * 3
    )
    assert set(table.frame["label_source"]) == {"human"}


def test_the_phase_follows_the_marked_span_and_the_label_the_sentence():
    start = len("One is one. Two is ")
    table = label_first_error(build({"token": SENTENCES}), {0: (start, start + 5)})
    assert table.frame["error_phase"].tolist() == ["before"] * 6 + ["first_error"] + ["after"] * 4
    assert table.frame["label"].tolist()[4:8] == ["incorrect"] * 4


def test_a_solution_without_a_mistake_is_correct_throughout():
    table = label_first_error(build({"token": SENTENCES}), {0: None})
    assert set(columns(table, "label", "error_phase")) == {("correct", "before")}


def test_a_span_that_cuts_a_token_takes_the_whole_token_or_is_refused():
    start = len("One is one. Tw")
    table = label_first_error(build({"token": SENTENCES}), {0: (start, start + 4)})
    assert table.frame["error_phase"].tolist()[4:6] == ["first_error", "first_error"]
    with pytest.raises(ValueError, match=r"rollout 0: the span \[14, 18\) .* cuts token 4, ' Two', between 'Tw' and 'o'"):
        label_first_error(build({"token": SENTENCES}), {0: (start, start + 4)}, cut="error")


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ({}, "rollout 0 has no entry in spans"),
        ({0: (5, 900)}, "rollout 0: the span .* does not lie in a text of 34 characters"),
        ({0: (3, 4)}, "rollout 0: the span .* no visible character"),
    ],
)
def test_annotations_that_do_not_fit_are_refused(spans, message):
    with pytest.raises(ValueError, match=message):
        label_first_error(build({"token": SENTENCES}), spans)
