"""The grader: finds a completion's answers and says of each whether it is the reference."""

import functools
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from opsd_lab.basics.limited_process import LimitedProcess
from opsd_lab.grading.boxes import find_boxes, joined_boxes
from opsd_lab.grading.comparison import Comparison
from opsd_lab.grading.dressing import undressed
from opsd_lab.grading.found import find_answers
from opsd_lab.grading.numbers import MAX_ANSWER, as_numbers
from opsd_lab.grading.reading import read

Verdict = Literal["correct", "incorrect", "missing", "unverifiable"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

WORKER = Path(__file__).with_name("worker.py")
# Notation that is compared letter by letter: who writes the same is right, what else is right is not decided.
LITERAL = re.compile(r"\\(?:sum|prod|int|iint|oint|lim|pmod|bmod|mod|equiv|in|mathbb|begin\{cases\})(?![A-Za-z])")
SHOWN = 20


class UnreadableAnswersError(ValueError):
    """Reference answers that cannot be read; `problems` holds each one's id and answer, the message the first 20 and a count."""

    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        self.problems = tuple(problems)
        lines = [f"{len(self.problems)} reference answer(s) cannot be read; correct or leave out these problems:"]
        lines += [f"problem {name!r}: {answer[:99]!r}" for name, answer in self.problems[:SHOWN]]
        if len(self.problems) > SHOWN:
            lines.append(f"... and {len(self.problems) - SHOWN} more, all of them in this error's .problems")
        super().__init__("\n".join(lines))


@dataclass(frozen=True)
class Grade:
    """The verdicts on one completion: on its box, on its last number, and on its final answer.

    "missing": there is no such answer. "unverifiable": there is one, but it or the reference could not be read, or not compared
    within the limits.
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

    Answers are read in this process by a parser of our own, and what is rational is compared exactly here. Roots, functions,
    variables and equations are evaluated to 60 digits in a worker process that starts when first needed. Sums, integrals and
    congruences are compared letter by letter. `seconds` limits each question to the worker; `memory_gib` (GiB) limits the worker's
    address space where the operating system can, its own 0.06 included. A worker that overruns is killed and replaced, and the answer
    is "unverifiable".

    Raises:
        ValueError: for a limit that is not positive.
    """

    def __init__(self, seconds: float = 5.0, memory_gib: float = 2.0) -> None:
        super().__init__(WORKER, seconds, memory_gib)

    def grade(self, completions: Sequence[str], answers: Sequence[str]) -> list[Grade]:
        r"""Grade each completion against its reference answer, which may itself stand in a \boxed{}.

        What answers a reference that cannot be read is "unverifiable"; `unreadable` finds such references beforehand.

        Raises:
            ValueError: when the lengths differ.
            RuntimeError: when no worker process can be started.
        """
        if len(completions) != len(answers):
            raise ValueError(f"{len(completions)} completions but {len(answers)} reference answers")
        golds = {answer: self._reference(answer) for answer in dict.fromkeys(answers)}
        judge = functools.cache(self._compare)  # rollouts of one problem often agree
        grades = []
        for completion, answer in zip(completions, answers, strict=True):
            found = find_answers(completion)
            grades.append(Grade(*(judge(golds[answer], text) for text in found), *found))
        return grades

    def unreadable(self, answers: Iterable[str]) -> list[str]:
        """Return the reference answers, without repetition, that cannot be read.

        Raises:
            RuntimeError: when no worker process can be started.
        """
        return [answer for answer in dict.fromkeys(answers) if self._reference(answer) is None]

    def check(self, ids: Sequence[str], answers: Sequence[str]) -> None:
        """Make sure that every problem's reference answer can be read.

        Raises:
            UnreadableAnswersError: when some cannot; it lists all of them with their problems' ids.
            RuntimeError: when no worker process can be started.
        """
        bad = set(self.unreadable(answers))
        if bad:
            raise UnreadableAnswersError([(name, answer) for name, answer in zip(ids, answers, strict=True) if answer in bad])

    def _reference(self, answer: str) -> str | None:
        """Return the text of a reference answer to compare with, None when it cannot be read."""
        boxed = joined_boxes(answer, find_boxes(answer))
        if len(set(boxed)) > 1:
            return None
        gold = boxed[0] if boxed else answer.strip()
        if not gold or len(gold) > MAX_ANSWER:
            return None
        readable = as_numbers(gold) is not None or read(gold, reference=True).sure or _is_literal(gold)
        return gold if readable else None

    def _compare(self, gold: str | None, answer: str | None) -> Verdict:
        if answer is None:
            return "missing"
        if gold is None or len(answer) > MAX_ANSWER:
            return "unverifiable"
        wanted, found = as_numbers(gold), as_numbers(answer)
        if wanted is not None and wanted == found:
            return "correct"
        verdict = self._decide(gold, answer)
        return {True: "correct", False: "incorrect", None: "unverifiable"}[verdict]

    def _decide(self, gold: str, answer: str) -> bool | None:
        wanted, given = read(gold, reference=True), read(answer)
        if wanted.sure and given.sure:
            try:
                return Comparison(self._ask_trees).decide(wanted, given)
            except RecursionError:  # an answer of a thousand factorials can be read, and not be followed
                return None
        return True if _letters(gold) == _letters(answer) else None

    def _ask_trees(self, question: str, a: list, b: list, *extra: str) -> str:
        return self.ask(question, json.dumps(a), json.dumps(b), *extra) or "open"


def _is_literal(text: str) -> bool:
    plain = undressed(text)
    return bool(LITERAL.search(plain)) and not re.search(r"[A-Za-z]{4,}", re.sub(r"\\[A-Za-z]+|(?:begin|end)\{[a-z]+\}", "", plain))


def _letters(text: str) -> str:
    """Return a text without blanks and without the braces around single characters."""
    return re.sub(r"\{(\w)\}", r"\1", "".join(undressed(text).split()))
