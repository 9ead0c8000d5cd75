import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsd_lab.steps import Step, arithmetic_steps, token_steps


def found(text):
    return [(step.text, step.label) for step in arithmetic_steps(text)]


@pytest.mark.parametrize(
    "equation",
    [
        "7 + 5 = 12",
        "3 x 4 = 12",
        "3x4=12",
        "12*3=36",
        "10 - 3 - 2 = 5",
        "10 \u2212 3 = 7",
        "$4 * 5 = $20",
        "3 × 4 = 12",
        "12 ÷ 4 = 3",
        "3 · 4 = 12",
        r"3 \times 4 = 12",
        r"12 \div 4 = 3",
        "2 + 3 * 4 = 14",
        "(2 + 3) * 4 = 20",
        "2(3 + 4) = 14",
        "-3 + 5 = 2",
        "3 * -2 = -6",
        "1,000 + 5 = 1,005",
        "0.1 + 0.2 = 0.3",
        "1/3 + 1/6 = 1/2",
        "12 = 7 + 5",
        "8 / 2 / 2 = 2",
    ],
)
def test_a_true_equation_is_one_correct_step(equation):
    assert found(equation) == [(equation, "correct")]
    assert found(f"So we get {equation}.\nDone") == [(equation, "correct")]
    assert found(f"Calculation: {equation} apples (as **asked**)") == [(equation, "correct")]


@pytest.mark.parametrize("equation", ["7 + 5 = 13", "2 + 3 * 4 = 20", "10 - 3 - 2 = 9", "8 / 2 * 2 = 16", "10 / 3 = 3", ".5*2 = 10"])
def test_a_false_equation_is_one_incorrect_step(equation):
    assert found(equation) == [(equation, "incorrect")]


@pytest.mark.parametrize(
    "text",
    [
        "2y + 3 + 4 = 9",
        "y - 3 + 5 = 9",
        "y-3+5=9",
        "2^3 + 1 = 9",
        "2**3 + 1 = 9",
        "2 ** 3 + 1 = 9",
        "20% of 50 + 3 = 13",
        "3 + 4 = 5 + y",
        "2 * 2 = 2^2",
        "2 * 2 = 2**2",
        "1 / 0 = 7",
        "1 / (2 - 2) = 7",
        "10 / 3 = 3.33",
        "...+1 = (100+1)*100/2",
        "…+1 = (100+1)*100/2",
        "27 > 2*4 = 2y(1)",
        "3 * 4 = 2a - 5",
        "f'(-1) = 5 + 2",
        "7 * 8 = 6 (mod 10)",
        r"7 * 8 = 6 \pmod{10}",
        "7 * 8 = 6 mod 10",
        "9" * 31 + " + 1 = 7",
        "+".join("1" * 80) + " = 80",
    ],
)
def test_what_cannot_be_read_whole_or_exactly_is_unverifiable(text):
    assert [label for _, label in found(text)] == ["unverifiable"]


@pytest.mark.parametrize("text", ["", "x = 5", "5 = 5", "7 + 5", "7 + = 5", "a == 3 + 4", "7 + 5 >= 3", "7 + 5 =\n\n12"])
def test_what_is_no_arithmetic_equation_is_no_step(text):
    assert found(text) == []


def test_markdown_and_brackets_around_an_equation_are_no_part_of_it():
    assert found("**3 + 4 = 7** (3 + 4 = 8)") == [("3 + 4 = 7", "correct"), ("3 + 4 = 8", "incorrect")]


@pytest.mark.parametrize(
    "remark", [" (checked)", " - as expected", ".", ", so", "?", " apples", "cm", "cm (checked)", "cm**", "km - as expected"]
)
def test_a_remark_after_an_equation_is_no_part_of_it(remark):
    assert found("3 + 4 = 7" + remark) == [("3 + 4 = 7", "correct")]


def test_list_marks_are_no_part_of_an_equation():
    assert found("- 3 + 4 = 7\n  * 5 + 6 = 11\n+ -1 + 1 = 0") == [
        ("3 + 4 = 7", "correct"),
        ("5 + 6 = 11", "correct"),
        ("-1 + 1 = 0", "correct"),
    ]
    assert found("**Step 1** 3 + 4 = 7") == [("3 + 4 = 7", "correct")]


def test_list_numbers_are_no_part_of_an_equation():
    assert found("2. 3 + 4 = 7\n3) 5 + 6 = 12") == [("3 + 4 = 7", "correct"), ("5 + 6 = 12", "incorrect")]


def test_each_equals_sign_of_a_chain_is_a_step_of_its_own():
    assert found("3*4 = 12 + 1 = 13") == [("3*4 = 12 + 1", "incorrect"), ("= 13", "correct")]
    assert found("2 + 3 + 4 = 5 + 4 = 9") == [("2 + 3 + 4 = 5 + 4", "correct"), ("= 9", "correct")]


@given(st.text(alphabet="0123 +-*/x=().,$y\n^%", max_size=60))
def test_spans_are_disjoint_in_order_and_hold_their_text(text):
    end = 0
    for step in arithmetic_steps(text):
        assert step.start >= end
        assert text[step.start : step.end] == step.text
        end = step.end


@given(
    st.recursive(
        st.integers(0, 99).map(str),
        lambda e: st.tuples(e, st.sampled_from("+-*"), e).map("({0[0]} {0[1]} {0[2]})".format),
    )
)
def test_labels_agree_with_python_arithmetic(expression):
    assert re.fullmatch(r"[-0-9+*() ]+", expression)
    value = eval(expression)
    if len(expression) < 60 and "(" in expression:
        assert found(f"{expression} = {value}") == [(f"{expression} = {value}", "correct")]
        assert found(f"{expression} = {value + 1}") == [(f"{expression} = {value + 1}", "incorrect")]


@pytest.mark.parametrize(
    "text",
    ["(" * 50_000 + "=1", "1+" * 50_000 + "1=1", "1=" * 20_000, "=" * 50_000, "-" * 50_000 + "1=2+3", "9" * 100_000],
)
def test_hostile_texts_neither_recurse_nor_stall(text):
    assert "incorrect" not in [step.label for step in arithmetic_steps(text)]


def test_a_step_must_span_its_text():
    with pytest.raises(ValueError, match="span"):
        Step(0, 3, "ab", "correct")


def test_tokens_are_mapped_to_the_steps_they_overlap():
    tokens = ["So", " 7", " +", " ", "5", " =", " 12", ".", " Then", " 1", "+1=3", "\n", "</s>"]
    numbers, labels = token_steps(tokens, arithmetic_steps("".join(tokens)))
    assert numbers == [-1, 0, 0, 0, 0, 0, 0, -1, -1, 1, 1, -1, -1]
    assert labels == [""] + ["correct"] * 6 + ["", ""] + ["incorrect"] * 2 + ["", ""]


def test_a_token_that_only_touches_a_step_with_its_blank_is_outside():
    numbers, _ = token_steps(["x ", "1", " y", ""], [Step(1, 4, " 1 ", "correct")])
    assert numbers == [-1, 0, -1, -1]


def test_a_token_across_two_steps_belongs_to_the_first():
    steps = [Step(0, 2, "ab", "correct"), Step(2, 4, "cd", "incorrect")]
    assert token_steps(["a", "bc", "d"], steps) == ([0, 0, 1], ["correct", "correct", "incorrect"])


def test_steps_of_another_text_are_an_error():
    with pytest.raises(ValueError, match="step 0 is '1\\+1=2', but the joined tokens hold '1\\+1='"):
        token_steps(["1+", "1="], arithmetic_steps("1+1=2"))
