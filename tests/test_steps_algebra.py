import sys
import time
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from opsd_lab.steps import AlgebraChecker, algebra_steps, arithmetic_steps
from opsd_lab.steps.algebra_reader import read_whole
from opsd_lab.steps.labels import label_steps
from tests.diagnostics.tables import build


@pytest.fixture(scope="module")
def checker():
    with AlgebraChecker(seconds=5.0) as checker:
        yield checker


@pytest.fixture(scope="module")
def hasty():
    with AlgebraChecker(seconds=1.0) as checker:
        yield checker


class Unasked(AlgebraChecker):
    """Has no worker: whatever the text alone does not decide is unverifiable."""

    def ask(self, *request: str) -> str | None:
        return None


def found(text: str, checker: AlgebraChecker) -> list[tuple[str, str]]:
    return [(step.text, step.label) for step in algebra_steps(text, checker)]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("2(x+3)", "2x + 6"),
        ("(x + 1)^2", "x**2 + 2x + 1"),
        ("x² − 1", "(x−1)(x+1)"),
        (r"\frac{1}{a} + \frac{1}{b}", r"\frac{a+b}{ab}"),
        (r"\left(x+1\right)^{10}", r"(1 + x)^{10}"),
        ("x^10", "x^5 * x^5"),
        ("(x^2 - 1)/(x - 1)", "x + 1"),
        (r"$\sqrt{8} x$", r"\(2\sqrt{2} x\)"),
        ("2^{n+1}", r"2 \cdot 2^n"),
        ("0.5x + 0.25x", "3x/4"),
        ("x_1 + x_{2}", "x_2 + x_{1}"),
        ("2^-1 * k", "k / 2"),
        ("-x^2", "-(x^2)"),
        ("a/b/c", "a/(b*c)"),
        ("e + i", "i + e"),
        ("1,000n", "n*1000"),
    ],
)
def test_an_identity_is_correct(checker, left, right):
    assert checker.check(left, right) == "correct"
    assert checker.check(right, left) == "correct"


@pytest.mark.parametrize(("left", "right"), [("2(x+3)", "2x + 5"), ("x/x", "2"), ("(x+1)^2 - x^2", "2x + 2"), ("x + 1", "x - 1")])
def test_what_no_number_satisfies_is_incorrect(checker, left, right):
    assert checker.check(left, right) == "incorrect"


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("2x + 3", "7"),  # a condition
        ("(x+1)^2", "x^2 + 1"),  # holds for 0
        ("x", "x + 1"),  # an assignment
        ("y", "2x"),  # a definition
        ("sum", "sum + 1"),
        ("f(x + 1)", "fx + f"),
        ("y(0)", "0"),
        ("1/2x", "x/2"),
        ("x^1/2", "x/2"),
        ("e^2x", "e^2 x"),
        ("dy/dx", "y/x"),
        ("2x + 1/3", "2x + 0.33"),
        ("1/(x-x)", "1/(x-x)"),
        ("i^2", "-1"),
        ("sin(x)", "sin(x)"),
        ("x! + 1", "x! + 1"),
        ("|x|", "|x|"),
        ("50%", "0.5"),
        ("$2\\frac{1}{2} x$", "$x$"),
        ("$x^10$", "$x^{10}$"),
        (r"$\sqrt{x^2}$", "$x$"),
        ("9" * 31 + "x", "9" * 31 + "x"),
        ("", "x"),
        ("x = 1", "x = 1"),
        ("x y", "y x"),  # outside LaTeX a blank is no product
    ],
)
def test_what_may_be_a_condition_or_has_two_readings_is_unverifiable(checker, left, right):
    assert checker.check(left, right) == "unverifiable"


terms = st.recursive(
    st.sampled_from(["x", "y", "3", "7"]), lambda t: st.tuples(t, st.sampled_from("+-*"), t).map("({0[0]} {0[1]} {0[2]})".format)
)


@settings(max_examples=30, deadline=None)
@given(terms, terms)
def test_verdicts_agree_with_values(checker, left, right):
    sides = [read_whole(left), read_whole(right)]
    assume(max(left.count("*"), right.count("*")) < 20)
    # Polynomials in two letters of degrees below 20 that agree at 20 times 20 points are the same.
    differences = {eval(f"{left} - {right}", {"x": x, "y": y}) for x in range(20) for y in range(20)}
    verdict = checker.check(left, right)
    if verdict == "correct":
        assert differences == {0}
    elif verdict == "incorrect":
        assert len(differences) == 1 and differences != {0}
    elif all(side is not None and not side.bare for side in sides):
        assert len(differences) > 1


@pytest.mark.parametrize(
    ("previous", "following", "label"),
    [
        (("2x + 3", "7"), ("2x", "4"), "correct"),
        (("2x", "4"), ("x", "2"), "correct"),
        (("2x", "4"), ("x", "3"), "incorrect"),
        (("6/x", "3"), ("x", "2"), "correct"),
        (("(x - 1)^2", "0"), ("x", "1"), "correct"),
        (("x^2", "4"), ("(x-2)(x+2)", "0"), "correct"),
        (("x^2", "4"), ("x", "2"), "unverifiable"),  # one of two
        (("x", "2"), ("x^2", "4"), "unverifiable"),
        (("x^2/x", "0"), ("x", "0"), "unverifiable"),  # zero does not solve the first
        (("x", "2"), ("y", "2"), "unverifiable"),
        (("x + y", "2"), ("x", "2"), "unverifiable"),
        (("x + 1", "x + 1"), ("x", "2"), "unverifiable"),
        (("x + 1", "x + 2"), ("x", "2"), "unverifiable"),
        (("3x", "10"), ("x", "3.33"), "unverifiable"),  # rounded
        (("e", "2"), ("e", "3"), "unverifiable"),
        (("sin(x)", "0"), ("x", "0"), "unverifiable"),
    ],
)
def test_an_equation_follows_if_it_has_the_same_solutions(checker, previous, following, label):
    assert checker.follows(previous, following) == label


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("So 2(x+3) = 2x + 6.", [("2(x+3) = 2x + 6", "correct")]),
        ("So 2(x+3) = 2x + 5.", [("2(x+3) = 2x + 5", "incorrect")]),
        ("1. **2(a + b) = 2a + 2b**\n", [("2(a + b) = 2a + 2b", "correct")]),
        (r"Thus $x(x+1) = x^2 + x$ and \[ y + y = 2y. \]", [("x(x+1) = x^2 + x", "correct"), ("y + y = 2y", "correct")]),
        (r"\boxed{a+a = 2a}", [("a+a = 2a", "correct")]),
        ("2x + 3 = 7\n2x = 4\nx = 2", [("2x + 3 = 7", "unverifiable"), ("2x = 4", "correct"), ("x = 2", "correct")]),
        ("2x + 3 = 7, so 2x = 5.", [("2x + 3 = 7", "unverifiable"), ("2x = 5", "incorrect")]),
        (r"$2x+3 = 7 \\ \Rightarrow 2x = 5$", [("2x+3 = 7", "unverifiable"), ("2x = 5", "incorrect")]),
        (
            "\\begin{align}\n2x+3 &= 7 \\\\\n2x &= 4 \\\\\nx &= 3\\end{align}",
            [("2x+3 &= 7", "unverifiable"), ("2x &= 4", "correct"), ("x &= 3", "unverifiable")],
        ),
        ("השוויון x + x = 2x נכון 🙂", [("x + x = 2x", "correct")]),
    ],
)
def test_equations_are_found_and_labelled(checker, text, steps):
    assert found(text, checker) == steps
    assert {step.source for step in algebra_steps(text, checker)} == {"algebra"}


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("(x+1)^2 = x^2 + 2x + 1 = (1+x)^2", [("(x+1)^2 = x^2 + 2x + 1", "correct"), ("= (1+x)^2", "correct")]),
        ("x(x + 1) \n   = x^2 + x\n   = x^2 + x + 1", [("x(x + 1) \n   = x^2 + x", "correct"), ("= x^2 + x + 1", "incorrect")]),
        ("2(x+3) - 2x = 3*2 = 6", [("2(x+3) - 2x = 3*2", "correct"), ("= 6", "correct")]),
        ("x = 3 + 4 = 7", [("3 + 4 = 7", "correct")]),
        ("5 = 2 + 3 = a + 1 + 1", [("5 = 2 + 3", "correct"), ("= a + 1 + 1", "unverifiable")]),
        ("2y + 3 + 4 = 9 and 3 + 4 = 8", [("2y + 3 + 4 = 9", "unverifiable"), ("3 + 4 = 8", "incorrect")]),
    ],
)
def test_a_chain_is_one_step_a_sign_and_exact_arithmetic_stays(checker, text, steps):
    assert found(text, checker) == steps


@pytest.mark.parametrize(
    "text",
    [
        "Let n = 5.",
        "Solve 2x + 3 = 2x + 5.",
        "If x + 1 = x + 2, we have a contradiction.",
        "x + 1 = x + 2 is impossible",
        "x = 1\nx = 2",
        "x = 1, x = 2",
        "x^2 = 4, so x = 2 or x = -2",
        "$k-6=2$ or $k-6=-2$, and so $k=8$ or $k=4$.",
        "x - 2 = 0 or x - 3 = 0, so x = 2 or x = 3",
        "2x = 4, so x = 3 or x = 2",
        r"\(x - 2 = 0 \text{ or } x - 3 = 0\), so \(x = 2\)",
        "From (1) we get x = 2, from (2) we get x = 3",
        "We choose x = 2 so that x = 3",
        "3x + 2 = 3x + 7 (mod 5)",
        r"$3x + 2 = 3x + 7 \pmod{5}$",
        "P(x + 1 = x + 2) = 0",
        "f(x) = x + 1",
        "f'(x) = x + 1",
        "log x + 1 = x + 2",
        r"$\sin x + 1 = x + 2$",
        r"$\sum_{i=1}^{n} i + 1 = i + 2$",
        "twice x + 1 = x + 3",
        "(2) + x = x + 3",
        "(a+1) x = x + 1",
        "n! x + 1 = x + 2",
        "x + 1 = x + 2y z",
        "x + 1 = x + 2 (x + 1)",
        "x + 1 = x + 2 * y_n-1",
        "x + 1 = x + 1.5...",
        "a : x + 1 = x + 2 : b",
        "For matrices, A + 1 = A + 2 and AB = BA.",
        "S_n-1 + 1 = S_n-1",
        "x := x + 1, x == 3, x <= 4, x != x",
        "$5x = $10x and $x + 1 = $x",
    ],
)
def test_definitions_conditions_and_parts_of_something_larger_get_no_verdict(checker, text):
    assert {label for _, label in found(text, checker)} <= {"unverifiable"}


def test_an_equation_without_letters_is_left_to_arithmetic(checker):
    text = "7 + 5 = 12, 2^3 + 1 = 9 and 1 + 1 = 3"
    assert algebra_steps(text, checker) == arithmetic_steps(text)


@given(
    st.text(alphabet="xyf123 +-*/=()^{}\\$&.,\n²_")
    | st.lists(st.sampled_from(["x", " = ", "2", "+", "$", "\n", "(", ")", "3 + 4"])).map("".join)
)
def test_spans_are_disjoint_in_order_and_hold_their_text(text):
    steps = algebra_steps(text, Unasked())
    assert all(before.end <= after.start for before, after in pairwise(steps))
    assert all(text[step.start : step.end] == step.text for step in steps)
    exact = [step for step in arithmetic_steps(text) if step.label != "unverifiable"]
    assert [s for s in steps if s.source == "arithmetic" and s.label != "unverifiable"] == exact, "nothing exact is lost"


def test_tokens_get_the_labels_of_algebra_where_it_judges(checker):
    table = label_steps(build({"token": ["x+x", " = ", "2x", ";", " 1+1=3"]}), equations=lambda text: algebra_steps(text, checker))
    found = list(table.frame[["label", "label_source", "error_phase"]].itertuples(index=False, name=None))
    assert found == [("correct", "algebra", "before")] * 3 + [("", "", "before"), ("incorrect", "arithmetic", "first_error")]


HOSTILE = [
    "(" * 100_000 + "x",
    "x" + "^x" * 50_000,
    "x+" * 50_000 + "1",
    "-" * 100_000 + "x",
    "x" * 100_000,
    "9" * 100_000 + "x",
    r"$\frac{" * 20_000,
    r"\sqrt" * 20_000,
    "x.__class__.__mro__[1].__subclasses__()",
    "__import__('os').abort() + x",
    "lambda: x",
    "x\x00\ud800\u202e",
    "x_{__import__}",
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:12].encode("unicode_escape").decode())
def test_hostile_text_is_unverifiable_and_never_reaches_the_worker(text):
    checker = AlgebraChecker()
    started = time.monotonic()
    assert checker.check(text, "x + 1") == "unverifiable"
    assert checker._worker is None
    assert {step.label for step in algebra_steps(f"{text} = x + 1", checker)} <= {"unverifiable"}
    assert time.monotonic() - started < 20


def test_huge_powers_are_unverifiable_within_the_limits_and_leave_the_checker_usable(hasty):
    assert hasty.check("x + 9**9**9", "x + 1") == "unverifiable"
    assert hasty.check("(x + y + 1)^9999", "(x + y)^9999 + 1") == "unverifiable"
    assert hasty.check("x + x", "2x") == "correct"


@pytest.mark.parametrize(
    "request_",
    [
        ("identity", "__import__('pathlib').Path('{marker}').touch()", "1"),
        ("identity", r"\operatorname{{exec}}(open('{marker}', 'w'))", "1"),
        ("identity", r"\mathrm{{__import__('pathlib').Path('{marker}').touch()}}", "1"),
        ("identity", "(" * 3_000 + "x" + ")" * 3_000, "x"),
        ("identity", r"\frac{{" * 300 + "1" + "}}" * 300, "x"),
        ("identity", r"\infty - \infty", "0"),
        ("identity", r"\begin{{pmatrix}}1\end{{pmatrix}}", "1"),
        ("identity", "x = 1"),
        ("solutions", "x", "1", "x"),
        ("nothing",),
    ],
    ids=range(10),
)
def test_the_worker_itself_runs_no_text_and_survives_what_it_cannot_read(hasty, tmp_path, request_):
    marker = tmp_path / "marker"
    reply = hasty.ask(*(part.replace("{marker}", str(marker)).replace("{{", "{").replace("}}", "}") for part in request_))
    assert reply in (None, "unverifiable")
    assert not marker.exists()
    assert hasty.check("x + x", "2x") == "correct"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_worker_runs_under_the_memory_limit_and_without_torch(checker):
    checker.check("x + x", "2x")
    pid = checker._worker.process.pid
    with open(f"/proc/{pid}/limits") as limits, open(f"/proc/{pid}/maps") as maps:
        soft = next(line.split()[3] for line in limits if line.startswith("Max address space"))
        assert "torch" not in maps.read()
    assert int(soft) == 2 * 2**30


def test_definitions_ask_no_worker():
    checker = AlgebraChecker()
    assert found("Let n = 5 and y = 2x.", checker) == [("n = 5", "unverifiable"), ("y = 2x", "unverifiable")]
    assert checker._worker is None
