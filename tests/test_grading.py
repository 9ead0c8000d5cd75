import collections
import os
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsd_lab.grading import WORKER, Grader, UnreadableAnswersError, as_number, extract_boxed, extract_last_number, reading
from opsd_lab.grading.reading import read

TOWER = r"\boxed{9^{9^{9^{9}}}}"
ROOT, SAME_ROOT = r"\boxed{2\sqrt2}", r"\sqrt{8}"  # not rational, so that the worker is asked


@pytest.fixture(scope="module")
def grader():
    with Grader() as grader:
        yield grader


@pytest.fixture(scope="module")
def hasty_grader():
    with Grader(seconds=1.0) as grader:
        yield grader


def final(grader, completion, answer):
    return grader.grade([completion], [answer])[0].final


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"so \boxed{42}.", "42"),
        (r"\boxed{1} and then \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\fbox{7}", "7"),
        (r"\boxed {7}", "7"),
        (r"\boxed{\fbox{7}}", "7"),
        (r"\boxed{\frac{1}{\boxed{2}}}", r"\frac{1}{2}"),
        (r"\boxed{8 \\}", r"8 \\"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{a} } } \boxed{b}", "b"),
        (r"\boxed{3} but \boxed{4", "3"),
        (r"\\boxed{5}", "5"),
        (r"\boxed{ }", None),
        (r"\boxed{", None),
        ("boxed{3}", None),
        ("", None),
    ],
)
def test_the_last_balanced_box_is_extracted(text, expected):
    assert extract_boxed(text) == expected


def test_deep_and_unclosed_boxes_neither_recurse_nor_stall():
    assert extract_boxed("{" * 200_000) is None
    assert extract_boxed(r"\boxed{" * 100_000) is None
    assert extract_boxed(r"\boxed{" * 50_000 + "1" + "}" * 50_000) == "1"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The answer is 12.", "12"),
        ("It costs $1,234.50.", "1234.50"),
        ("1,000,000 people", "1000000"),
        ("1, 2, 3", "3"),
        ("12,3456", "12,3456"),
        ("about -3 degrees", "-3"),
        ("about \u22123 degrees", "-3"),
        ("a loss of -$5", "-5"),
        ("x = -4", "-4"),
        ("9 - 4", "4"),
        ("9-4", "4"),
        ("9 -4", "4"),
        ("(9) -4", "4"),
        ("grade-4", "4"),
        ("- 8 apples", "8"),
        ("5 --3", "-3"),
        ("Total: 10\n-5", "-5"),
        ("it is 3/4 of it", "3/4"),
        ("it is -3/4", "-3/4"),
        ("12/25/2024", "12/25/2024"),
        ("wait...5", "5"),
        ("it is .5", ".5"),
        ("50%", "50%"),
        ("\u0664\u0662", "42"),
        ("none", None),
    ],
)
def test_the_last_number_is_extracted_with_its_sign(text, expected):
    assert extract_last_number(text) == expected


@given(st.integers(), st.sampled_from(["so {}", "so {}.", "= {}", "({})", "${}$"]))
def test_every_integer_is_read_back_from_a_sentence(number, sentence):
    assert int(extract_last_number(sentence.format(number))) == number


@given(st.text(max_size=200))
def test_extraction_survives_any_text(text):
    extract_boxed(text)
    number = extract_last_number(text)
    assert number is None or number.strip()


@given(st.text(alphabet="0123456789 .,+-*/=^_(){}[]$%\\abdefgilmnopqrstux:;<>|!\n\u2212\u00bd\u00b2\u221a", max_size=60))
def test_reading_survives_anything_that_looks_like_mathematics(text):
    read(text), read(text, reference=True)
    extract_last_number(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("+1,234.5", Fraction(2469, 2)),
        ("\u22122/6", Fraction(-1, 3)),
        ("1/0", None),
        ("1e5", None),
        ("", None),
        ("9" * 1001, None),
    ],
)
def test_plain_numbers_have_an_exact_value(text, value):
    assert as_number(text) == value


@pytest.mark.parametrize(
    ("completion", "answer", "boxed", "last_number"),
    [
        (r"\boxed{42}", "42", "correct", "correct"),
        (r"\boxed{41}", "42", "incorrect", "incorrect"),
        (r"\boxed{42} or 43", "42", "correct", "incorrect"),
        ("it is 42", "42", "missing", "correct"),
        ("no idea", "42", "missing", "missing"),
        (r"\boxed{2/4}", r"\frac12", "correct", "correct"),
        (r"\boxed{1,234}", "1234", "correct", "correct"),
        (r"\boxed{\$18}", "18", "correct", "correct"),
        (r"\boxed{42\text{ apples}}", "42", "correct", "correct"),
        (r"\boxed{2\sqrt2}", r"$\sqrt{8}$", "correct", "correct"),
        (r"\boxed{(x-1)(x+1)}", r"\boxed{x^2-1}", "correct", "correct"),
        (r"\boxed{0.333333}", "1/3", "correct", "correct"),
        (r"\boxed{0.33}", "1/3", "incorrect", "incorrect"),
        (r"\boxed{2 +}", "2", "incorrect", "correct"),
        (r"\boxed{1, 22, 3}", "1, 22, 3", "correct", "incorrect"),
        (r"\boxed{1, 22, 4}", "1, 22, 3", "incorrect", "incorrect"),
        (r"\boxed{1,234}", "1, 234", "incorrect", "incorrect"),
        (r"\boxed{7, 7}", "7", "correct", "correct"),
    ],
)
def test_box_and_last_number_are_judged_apart(grader, completion, answer, boxed, last_number):
    grade = grader.grade([completion], [answer])[0]
    assert (grade.boxed, grade.last_number) == (boxed, last_number)
    assert grade.final == (last_number if boxed == "missing" else boxed)
    assert grade.final_answer == (grade.last_number_answer if boxed == "missing" else grade.boxed_answer)


def test_a_power_tower_is_unverifiable_and_its_neighbours_are_graded(hasty_grader):
    completions = [r"\boxed{2\sqrt2}", TOWER, r"\boxed{10^{10^{10}}}", r"\boxed{\sqrt8}", r"\boxed{3\sqrt2}"]
    grades = hasty_grader.grade(completions, [r"\sqrt{8}"] * 5)
    assert [g.final for g in grades] == ["correct", "unverifiable", "incorrect", "correct", "incorrect"]


@pytest.mark.parametrize(
    "box",
    [
        "factorial(10**9)",
        "(10^9)!",
        r"\binom{10^9}{10^8}",
        r"\sum_{i=1}^{10^{12}} i^i",
        "{" * 400 + "1" + "}" * 400,
        "(" * 900,
        "\x00\ud800\u202e",
        "__import__('os').abort()",
        "1/0",
        "9" * 100_000,
        r"\frac{" * 90 + "1" + "}" * 90,
    ],
)
def test_a_hostile_answer_is_never_correct_and_leaves_the_grader_usable(hasty_grader, box):
    assert final(hasty_grader, rf"\boxed{{{box}}}", "42") in ("incorrect", "unverifiable")
    assert final(hasty_grader, r"\boxed{\frac{84}{2}}", "42") == "correct"


def test_an_overlong_box_is_unverifiable_and_not_missing(grader):
    assert final(grader, r"\boxed{" + "1+" * 50_000 + "1}", "42") == "unverifiable"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_worker_runs_under_the_memory_limit(grader):
    assert final(grader, ROOT, SAME_ROOT) == "correct"
    with open(f"/proc/{grader._worker.process.pid}/limits") as limits:
        soft = next(line.split()[3] for line in limits if line.startswith("Max address space"))
    assert int(soft) == 2 * 2**30


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux enforces a limit on the address space")
def test_an_allocation_beyond_the_limit_fails_in_the_worker():
    script = "from limited_process import limit_memory; limit_memory(2**28); bytearray(2**30)"
    run = subprocess.run([sys.executable, "-c", script], cwd=WORKER.parents[1] / "basics", capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.rstrip().endswith("MemoryError")


UNREADABLE = [
    "",
    "  ",
    "2 +",
    "9" * 1001,
    r"\frac{",
    "7:15q..",
    "(a) 5 (b) the other one",
    "5 < x > 2",
    r"one is \boxed{3}, the next \boxed{4}",
]


@pytest.mark.parametrize("gold", UNREADABLE)
def test_what_answers_an_unreadable_reference_is_unverifiable(grader, gold):
    grades = grader.grade(["no answer at all", r"\boxed{5}", r"\boxed{5}"], [gold, gold, "5"])
    assert [grade.final for grade in grades] == ["missing", "unverifiable", "correct"]


def test_unreadable_references_are_listed_once_each_in_order(grader):
    assert grader.unreadable(["7", *UNREADABLE, r"\frac{1}{2}", *UNREADABLE, "isosceles"]) == UNREADABLE


def test_the_check_names_every_problem_whose_reference_cannot_be_read(grader):
    grader.check(["a", "b"], ["1", r"x \geq 2"])
    with pytest.raises(UnreadableAnswersError, match=r"2 reference answer\(s\) .*\nproblem 'b': '2 \+'\nproblem 'd': ''") as caught:
        grader.check(["a", "b", "c", "d"], ["1", "2 +", "3", ""])
    assert caught.value.problems == (("b", "2 +"), ("d", ""))
    with pytest.raises(UnreadableAnswersError, match=r"and 5 more"):
        grader.check([str(i) for i in range(25)], ["2 +"] * 25)


def test_unequal_lengths_are_an_error(grader):
    with pytest.raises(ValueError, match="2 completions but 1"):
        grader.grade(["1", "2"], ["1"])


def test_limits_must_be_positive():
    with pytest.raises(ValueError, match="seconds"):
        Grader(seconds=0)


def test_what_is_rational_starts_no_worker():
    grader = Grader()
    assert final(grader, "so 3/4", "0.75") == "correct"
    assert final(grader, "so 5", "6") == "incorrect"
    assert final(grader, r"\boxed{1, 2}", "1, 2") == "correct"
    assert final(grader, r"\boxed{3, 2}", "1, 2") == "incorrect"
    assert final(grader, "so 2", "1, 2") == "incorrect"
    assert final(grader, r"\boxed{\frac{7!}{2^{3}}}", "630") == "correct"
    assert final(grader, r"\boxed{[0, \tfrac12)}", r"0 \le x < 0.5") == "correct"
    assert grader._worker is None


def test_grading_works_outside_the_main_thread(grader):
    verdicts = []

    def work():
        verdicts.extend(g.final for g in grader.grade([ROOT] * 2, [SAME_ROOT, r"\sqrt{7}"]))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verdicts == ["correct", "incorrect"] * 3


def test_a_worker_killed_from_outside_is_replaced(grader):
    assert final(grader, ROOT, SAME_ROOT) == "correct"
    victim = grader._worker.process
    os.kill(victim.pid, signal.SIGKILL)
    assert final(grader, ROOT, SAME_ROOT) == "correct"
    assert grader._worker.process.pid != victim.pid


def test_an_interrupt_does_not_leave_a_stale_reply(grader):
    final(grader, ROOT, SAME_ROOT)
    os.kill(grader._worker.process.pid, signal.SIGSTOP)  # so that the reply stays out
    timer = threading.Timer(0.5, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        grader.grade([ROOT], [SAME_ROOT])
    assert final(grader, ROOT, r"\sqrt{9}") == "incorrect"


def test_a_worker_that_overruns_its_time_leaves_the_answer_unverifiable(hasty_grader):
    final(hasty_grader, ROOT, SAME_ROOT)
    os.kill(hasty_grader._worker.process.pid, signal.SIGSTOP)
    assert [final(hasty_grader, ROOT, SAME_ROOT) for _ in range(2)] == ["unverifiable", "correct"]


def test_the_worker_ends_with_its_grader():
    grader = Grader()
    final(grader, ROOT, SAME_ROOT)
    process = grader._worker.process
    del grader
    deadline = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.poll() is not None


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_worker_does_not_load_torch(grader):
    final(grader, ROOT, SAME_ROOT)
    with open(f"/proc/{grader._worker.process.pid}/maps") as maps:
        assert "torch" not in maps.read()


def test_a_worker_that_cannot_start_is_an_error_that_says_how_to_look(monkeypatch, tmp_path):
    monkeypatch.setattr("opsd_lab.grading.grader.WORKER", tmp_path / "absent.py")
    with pytest.raises(RuntimeError, match=r"did not start; to see why, run: .*absent\.py"):
        Grader().grade([ROOT], [SAME_ROOT])


NESTED = (
    ("(1,", ")"),
    ("[1,", "]"),
    (r"\{1,", r"\}"),
    ("(1,2,", ")"),
    (r"\left(1,", r"\right)"),
    ("x=", ""),
    ("1 or ", ""),
    ("((", "))"),
)


@pytest.mark.parametrize(("opening", "closing"), NESTED)
def test_each_level_of_a_nested_answer_is_read_a_few_times_however_deep_it_is(opening, closing, monkeypatch):
    counted = collections.Counter()

    def counting(text, reference):
        counted["parts"] += 1
        return read_whole(text, reference)

    read_whole = reading.read_whole
    monkeypatch.setattr(reading, "read_whole", counting)
    for depth in (5, 20, 40):
        counted.clear()
        reading.read.__wrapped__(opening * depth + "2" + closing * depth)
        assert counted["parts"] <= 20 * depth


@pytest.mark.parametrize(
    "answer", ["5" + "!" * 600, "5" + "!" * 900, "2" + "*2" * 490, "-" * 900 + "2", r"\sqrt{" * 140 + "2" + "}" * 140]
)
def test_an_answer_that_is_too_deep_to_be_followed_is_not_correct_and_ends_nothing(answer):
    with Grader() as grader:
        assert grader.grade([rf"\boxed{{{answer}}}"], ["5"])[0].final in ("incorrect", "unverifiable")
