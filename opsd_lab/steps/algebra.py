"""Equations with letters, checked by computer algebra in a process of its own, under a time and a memory limit."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from opsd_lab.basics.limited_process import LimitedProcess
from opsd_lab.steps.algebra_lexer import lex
from opsd_lab.steps.algebra_places import is_alternative, is_doubted, is_whole, link, speaks_of_numbers
from opsd_lab.steps.algebra_reader import Side, read_end, read_start, read_whole
from opsd_lab.steps.arithmetic import arithmetic_steps
from opsd_lab.steps.mathematics import math_spans
from opsd_lab.steps.step import Step, StepLabel

WORKER = Path(__file__).with_name("algebra_worker.py")
CONSTANTS = frozenset(["e", "i", r"\pi"])  # letters that are no unknowns

Equation = tuple[str, str]


class AlgebraChecker(LimitedProcess):
    r"""Compares expressions with letters; a context manager, safe to use from any thread.

    Expressions are read in plain text or LaTeX, with + - * / ^ ** ( ) \frac \sqrt \cdot and products without a sign. Whatever has two
    readings (1/2x, f(x + 1), dx), holds a function such as sin, or cannot be decided within the limits is "unverifiable".
    `seconds` limits each comparison, `memory_gb` (GiB) the worker's address space where the operating system can.

    Raises:
        ValueError: for a limit that is not positive.
    """

    def __init__(self, seconds: float = 2.0, memory_gb: float = 2.0) -> None:
        super().__init__(WORKER, seconds, memory_gb)

    def check(self, left: str, right: str) -> StepLabel:
        """Return "correct" for an identity, "incorrect" where no values of the letters make the sides equal.

        Anything else may be a condition and is "unverifiable"; so is an equation one side of which is a name only, which may be a
        definition, and one that holds only if its decimals are not exact.

        Raises:
            RuntimeError: when no worker process can be started.
        """
        return self._compare(read_whole(left), read_whole(right))

    def follows(self, previous: Equation, following: Equation) -> StepLabel:
        """Return "correct" when two equations in the same single unknown have the same solutions, "incorrect" when they share none.

        Decided for equations of rational functions with rational coefficients, over the complex numbers; all others, those without a
        solution, and pairs of which one has more solutions than the other are "unverifiable".

        Raises:
            RuntimeError: when no worker process can be started.
        """
        return self._compare_solutions([read_whole(side) for side in (*previous, *following)])

    def _compare(self, left: Side | None, right: Side | None) -> StepLabel:
        # A name for something that does not hold it, as in "y = 2x", is a definition or a condition.
        if (
            left is None
            or right is None
            or any(a.bare and not set(a.letters) <= set(b.letters) for a, b in ((left, right), (right, left)))
        ):
            return "unverifiable"
        label = self._verdict("identity", [left, right])
        inexact = left.decimal or right.decimal or left.bare or right.bare
        return "unverifiable" if label == "incorrect" and inexact else label

    def _compare_solutions(self, sides: Sequence[Side | None]) -> StepLabel:
        letters = {letter for side in sides if side is not None for letter in side.letters}
        if len(letters) != 1 or letters & CONSTANTS:
            return "unverifiable"
        label = self._verdict("solutions", sides)
        return "unverifiable" if label == "incorrect" and any(side is not None and side.decimal for side in sides) else label

    def _verdict(self, question: str, sides: Sequence[Side | None]) -> StepLabel:
        if any(side is None or side.pieces is None for side in sides):
            return "unverifiable"
        letters = dict.fromkeys(letter for side in sides for letter in side.letters)
        names = {letter: number for number, letter in enumerate(letters, start=1)}
        reply = self.ask(question, *(side.latex(names) for side in sides))
        return reply if reply in ("correct", "incorrect") else "unverifiable"


def algebra_steps(text: str, checker: AlgebraChecker) -> list[Step]:
    r"""Find equations with letters, in plain text and in LaTeX, and label them beside the arithmetic that `arithmetic_steps` finds.

    Each equals sign is a step, in chains as in `arithmetic_steps`; a chain may go on in the next line if that begins with the sign.
    An identity is "correct". An equation that holds for no values of its letters is "incorrect", unless a word near it ("solve",
    "if", "not", ...) tells that it may be a condition or be denied. An equation in one unknown that comes right after another,
    with nothing between but words such as "so we get", is "correct" if it has the same solutions, and "incorrect" if the words say
    that it follows and no solution of the one solves the other; alternatives ("or") are compared with
    nothing. All else is "unverifiable": conditions, definitions, equations
    modulo a number, those of which only a part can be read, and all in a text about matrices and the like. Arithmetic that could
    be decided exactly stays as it was.

    Raises:
        RuntimeError: when no worker process can be started.
    """
    arithmetic, taken = arithmetic_steps(text), bytearray(len(text))

    def keep(step: Step) -> Step:
        taken[step.start : step.end] = b"\1" * len(step.text)
        return step

    exact = [keep(step) for step in arithmetic if step.label != "unverifiable"]
    kept = [
        step for step in _equations(text, taken, checker) if step.label != "unverifiable" or 1 not in taken[step.start : step.end]
    ]
    taken[:] = bytes(len(text))
    kept = [keep(step) for step in kept]
    # In a chain the sign between two equations begins the second.
    cut = [_from_sign(text, step, taken.find(0, step.start, step.end)) if taken[step.start] else step for step in exact]
    for step in (*cut, *(step for step in arithmetic if step.label == "unverifiable")):
        if step is not None and 1 not in taken[step.start : step.end]:
            kept.append(keep(step))
    return sorted(kept, key=lambda step: step.start)


def _from_sign(text: str, step: Step, at: int) -> Step | None:
    sign = text.find("=", at, step.end) if at >= 0 else -1
    return replace(step, start=sign, text=text[sign : step.end]) if sign >= 0 else None


def _equations(text: str, exact: bytearray, checker: AlgebraChecker) -> list[Step]:
    steps: list[Step] = []
    numbers = speaks_of_numbers(text)
    previous: tuple[Side, Side] | None = None  # the last equation with letters that was read whole
    for run in lex(text, math_spans(text)):
        if len(run) < 2:
            continue
        for place, (before, after) in enumerate(pairwise(run)):
            left, found = read_end(before), read_start(after)
            if left is None or found is None or not (left.letters or found[0].letters):
                continue
            right = found[0]
            whole = numbers and is_whole(text, left, right)
            alternative = is_alternative(text, left, right)
            before_it = previous if place == 0 and not alternative else None
            label = _label(text, (left, right), before_it, checker) if whole else "unverifiable"
            previous = (left, right) if whole and not alternative else None
            shared = exact[left.start] or (bool(steps) and steps[-1].end > left.start)
            start = text.rindex("=", left.end, right.start) if shared else left.start
            steps.append(Step(start, right.end, text[start : right.end], label, "algebra"))
    return steps


def _label(text: str, equation: tuple[Side, Side], previous: tuple[Side, Side] | None, checker: AlgebraChecker) -> StepLabel:
    left, right = equation
    label = checker._compare(left, right)
    doubted = is_doubted(text, left, right)
    if label == "incorrect" and doubted:
        return "unverifiable"
    joined = link(text[previous[1].end : left.start]) if previous is not None and label == "unverifiable" else ""
    if not joined:
        return label
    label = checker._compare_solutions([*previous, left, right])
    return "unverifiable" if label == "incorrect" and (joined != "follows" or doubted) else label
