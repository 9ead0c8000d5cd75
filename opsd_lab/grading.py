"""Final answers: finding them in a completion and checking them against the reference. Knows no models.

Completions are untrusted: what math-verify makes of them is computed by `grading_worker`, a separate process under a
time and a memory limit.
"""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal, get_args

from opsd_lab.limited_process import LimitedProcess

Verdict = Literal["correct", "incorrect", "missing", "unverifiable"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

MAX_ANSWER = 1_000  # characters; a longer answer is unverifiable
WORKER = Path(__file__).with_name("grading_worker.py")

BRACES = re.compile(r"\\(?:fbox|boxed)\s*\{|\\[{}]|[{}]")
NUMBER = re.compile(r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|(?<![0-9A-Za-z.])\.[0-9]+)(?:/[0-9]+)?")
PLAIN = re.compile(rf"([-+\u2212]?)({NUMBER.pattern})")
# A minus that directly precedes its number, and the operand that would make it a subtraction.
MINUS = re.compile(r"(?P<operand>[0-9)\]}%][ \t]*|[A-Za-z])?[-\u2212]\$?$")


def extract_boxed(text: str) -> str | None:
    r"""Return the content of the last \boxed{...} or \fbox{...} whose braces balance; None if there is none.

    Of nested boxes the innermost counts. A blank box holds no answer. Takes time linear in the text.
    """
    opened: list[int | None] = []  # for a box's brace where its content starts, for any other None
    last: tuple[int, int] | None = None
    for mark in BRACES.finditer(text):
        match mark.group():
            case r"\{" | r"\}":
                continue
            case "{":
                opened.append(None)
            case "}":
                start = opened.pop() if opened else None
                if start is not None and (last is None or start > last[0]):
                    last = (start, mark.start())
            case _:
                opened.append(mark.end())
    return None if last is None else text[last[0] : last[1]].strip() or None


def extract_last_number(text: str) -> str | None:
    """Return the last number of a text as a plain literal such as "-1234.5" or "3/4"; None if there is none.

    Thousands commas are dropped and a fraction a/b is one number. A minus is a sign unless it subtracts ("9 - 4",
    "9-4", "9 -4" end in 4) or hyphenates ("grade-4"). Exponents and mixed numbers are not read.
    """
    last = None
    for match in NUMBER.finditer(text):
        last = match
    if last is None:
        return None
    minus = MINUS.search(text[max(0, last.start() - 80) : last.start()])
    negative = minus is not None and minus["operand"] is None
    return ("-" if negative else "") + last.group().replace(",", "")


def as_number(text: str) -> Fraction | None:
    """Return the exact value of a plain integer, decimal or fraction of at most `MAX_ANSWER` characters, else None."""
    literal = PLAIN.fullmatch(text.strip()) if len(text) <= MAX_ANSWER else None
    if literal is None:
        return None
    numerator, _, denominator = literal[2].replace(",", "").partition("/")
    divisor = Fraction(denominator or 1)
    if divisor == 0:
        return None
    value = Fraction(numerator) / divisor
    return value if literal[1] in ("", "+") else -value


def as_numbers(text: str) -> tuple[Fraction, ...] | None:
    """Return the values of plain numbers, 99 at most, with commas between them, else None; "1,234" is one number."""
    if (number := as_number(text)) is not None:
        return (number,)
    entries = text.split(",") if len(text) <= MAX_ANSWER else []
    values = tuple(as_number(entry) for entry in entries)
    return None if None in values or not 2 <= len(values) <= 99 else values


@dataclass(frozen=True)
class Grade:
    """The verdicts on one completion: on its box, on its last number, and on its final answer.

    "missing": there is no such answer. "unverifiable": there is one, but it could not be read or compared within the
    limits.
    """

    boxed: Verdict
    last_number: Verdict
    boxed_answer: str | None
    last_number_answer: str | None

    @property
    def final(self) -> Verdict:
        """The verdict on the box if there is one, else on the last number."""
        return self.last_number if self.boxed == "missing" else self.boxed

    @property
    def final_answer(self) -> str | None:
        """The text that `final` is about."""
        return self.last_number_answer if self.boxed == "missing" else self.boxed_answer


class Grader(LimitedProcess):
    """Checks final answers; a context manager, safe to use from any thread.

    Plain numbers, and lists of them, are compared exactly in this process. Everything else, and decimals that differ from
    the reference (math-verify rounds to six places), goes to a worker process that starts when first needed. `seconds` limits
    each comparison; `memory_gb` (GiB) limits the worker's address space where the operating system can, its own 0.06
    included. A worker that overruns is killed and replaced, and the answer is "unverifiable"; where math-verify itself
    catches a failed allocation, its verdict on what it could compute stands.

    Raises:
        ValueError: for a limit that is not positive.
    """

    def __init__(self, seconds: float = 5.0, memory_gb: float = 2.0) -> None:
        super().__init__(WORKER, seconds, memory_gb)

    def grade(self, completions: Sequence[str], answers: Sequence[str]) -> list[Grade]:
        r"""Grade each completion against its reference answer, which may itself stand in a \boxed{}.

        Raises:
            ValueError: when the lengths differ, or a reference answer cannot be read as mathematics.
            RuntimeError: when no worker process can be started.
        """
        if len(completions) != len(answers):
            raise ValueError(f"{len(completions)} completions but {len(answers)} reference answers")
        golds = {answer: self._read_gold(answer) for answer in dict.fromkeys(answers)}
        judge = functools.cache(self._compare)  # rollouts of one problem often agree
        grades = []
        for completion, answer in zip(completions, answers, strict=True):
            found = extract_boxed(completion), extract_last_number(completion)
            grades.append(Grade(*(judge(golds[answer], text) for text in found), *found))
        return grades

    def _read_gold(self, answer: str) -> str:
        gold = extract_boxed(answer) or answer.strip()
        readable = bool(gold) and len(gold) <= MAX_ANSWER
        if not readable or (as_numbers(gold) is None and self.ask(gold) != "readable"):
            raise ValueError(f"the reference answer {answer[:99]!r} cannot be read as mathematics; correct the problem")
        return gold

    def _compare(self, gold: str, answer: str | None) -> Verdict:
        if answer is None:
            return "missing"
        if len(answer) > MAX_ANSWER:
            return "unverifiable"
        wanted, found = as_numbers(gold), as_numbers(answer)
        if wanted and found:
            if wanted == found:
                return "correct"
            if set(wanted) != set(found) and "." not in gold + answer:
                return "incorrect"  # as lists and as sets
        return self.ask(gold, answer) or "unverifiable"
