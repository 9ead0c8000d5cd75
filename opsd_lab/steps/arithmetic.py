"""The arithmetic written out in a text, checked exactly."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Literal

from opsd_lab.steps.step import Step, StepLabel

MAX_DIGITS = 30  # of one number; a longer one makes its step unverifiable
MAX_LEXEMES = 64  # of one side of an equation; this also bounds the parser's recursion

LEXEME = re.compile(
    r"(?P<rest>\*\*|(?m:^)[ \t]*[-*+][ \t]+)"  # bold, and the mark of a list's item
    r"|(?P<blank>[ \t]+)"
    r"|(?P<number>\$?(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?)"
    r"|(?P<equals>(?<![=<>!:])=(?!=))"
    r"|(?P<operator>[-+*/()×÷·\u2212]|\\times(?![A-Za-z])|\\cdot(?![A-Za-z])|\\div(?![A-Za-z])"
    r"|(?<=[0-9) \t])[xX](?=[ \t]*[$0-9(]))"
    r"|(?s:.)"
)
SAME_OPERATOR = dict.fromkeys(["×", "·", "x", "X", r"\times", r"\cdot"], "*") | {"÷": "/", r"\div": "/", "\u2212": "-"}

# What stands beside a side of an equation and shows that the side is only a part of what was meant.
CUT_ON_THE_LEFT = re.compile(
    r"(?:[A-Za-z_\\]['’′]*|\w\*\*|[ \t]\*\*[ \t]+"
    r"|(?:[-+/^_!%×÷·\u2212]|(?<!\*)\*|\\times|\\cdot|\\div|\b(?:of|times|plus|minus|by|over))[ \t]*)\Z"
)
CUT_ON_THE_RIGHT = re.compile(
    r"\.[0-9]|\(|\*\*[\w(]|[ \t]+\*\*[ \t]+[\w(]|[ \t]*(?:\\[pb])?\(?mod\b"
    r"|[A-Za-z]+(?:\(|[ \t]*(?:[+/^=]|\*(?!\*)|-(?![ \t]+[A-Za-z]{2})))"  # "2y(1)": a factor is left out
    r"|[ \t]*(?:[+/^!%×÷·\u2212]|\\times|\\cdot|\\div|\*(?!\*)|-(?![ \t]+[A-Za-z]{2}))"
)
LIST_MARK = re.compile(r"(?m:^)[ \t]*[-*+][ \t]+\Z")
NEIGHBOURHOOD = 40  # characters looked at beside a side


@dataclass(frozen=True)
class _Lexeme:
    kind: Literal["number", "operator"]
    text: str
    start: int
    end: int


@dataclass(frozen=True)
class _Side:
    """An expression beside an equals sign; `value` None: it has none (division by zero, too many digits)."""

    start: int
    end: int
    value: Fraction | None
    computes: bool  # holds an operator


class _Parser:
    """Reads the longest expression at the start of some lexemes: + - * / with precedence, signs and parentheses."""

    def __init__(self, lexemes: Sequence[_Lexeme]) -> None:
        self.lexemes = lexemes
        self.at = 0
        self.defined = True  # until a division by zero or a number with too many digits

    def operator(self, *wanted: str) -> str:
        """Consume the next lexeme if it is one of these operators; return it, or "" ."""
        if self.at < len(self.lexemes) and self.lexemes[self.at].text in wanted:
            self.at += 1
            return self.lexemes[self.at - 1].text
        return ""

    def sum(self) -> Fraction | None:
        value = self.product()
        while value is not None:
            before = self.at
            operator = self.operator("+", "-")
            term = self.product() if operator else None
            if term is None:
                self.at = before
                break
            value = value + term if operator == "+" else value - term
        return value

    def product(self) -> Fraction | None:
        value = self.factor()
        while value is not None:
            before = self.at
            operator = self.operator("*", "/") or ("*" if self.bracket_follows() else "")
            term = self.factor() if operator else None
            if term is None:
                self.at = before
                break
            if operator == "/" and term == 0:
                self.defined = False
            else:
                value = value * term if operator == "*" else value / term
        return value

    def bracket_follows(self) -> bool:
        """Whether a bracket directly follows the last lexeme, as in 2(3 + 4)."""
        if not 0 < self.at < len(self.lexemes):
            return False
        last, following = self.lexemes[self.at - 1], self.lexemes[self.at]
        return following.text == "(" and following.start == last.end

    def factor(self) -> Fraction | None:
        before = self.at
        value = None
        if sign := self.operator("-", "+"):
            value = self.factor()
            value = -value if value is not None and sign == "-" else value
        elif self.operator("("):
            inner = self.sum()
            value = inner if self.operator(")") else None
        elif self.at < len(self.lexemes) and self.lexemes[self.at].kind == "number":
            digits = self.lexemes[self.at].text
            self.at += 1
            self.defined &= len(digits) <= MAX_DIGITS
            value = Fraction(digits) if len(digits) <= MAX_DIGITS else Fraction(0)
        if value is None:
            self.at = before
        return value


def _parse(lexemes: Sequence[_Lexeme]) -> tuple[_Side, int] | None:
    """Return the longest expression that starts the lexemes, and how many of them it takes."""
    parser = _Parser(lexemes)
    value = parser.sum()
    if value is None:
        return None
    used = lexemes[: parser.at]
    computes = sum(lexeme.kind == "number" for lexeme in used) > 1
    return _Side(used[0].start, used[-1].end, value if parser.defined else None, computes), parser.at


def _left_side(lexemes: Sequence[_Lexeme]) -> _Side | None:
    """Return the longest expression that ends the lexemes."""
    for first in range(max(0, len(lexemes) - MAX_LEXEMES), len(lexemes)):
        found = _parse(lexemes[first:])
        if found is not None and found[1] == len(lexemes) - first:
            return found[0]
    return None


def _split(text: str) -> list[list[list[_Lexeme]]]:
    """Return the text's unbroken runs of arithmetic, each cut at its equals signs."""
    runs: list[list[list[_Lexeme]]] = [[[]]]
    for match in LEXEME.finditer(text):
        kind = match.lastgroup
        if kind == "equals":
            runs[-1].append([])
        elif kind == "number":
            digits = match.group().replace(",", "").lstrip("$")
            runs[-1][-1].append(_Lexeme("number", digits, *match.span()))
        elif kind == "operator":
            operator = SAME_OPERATOR.get(match.group(), match.group())
            runs[-1][-1].append(_Lexeme("operator", operator, *match.span()))
        elif kind != "blank":
            runs.append([[]])
    return [run for run in runs if len(run) > 1]


def _label(text: str, left: _Side, right: _Side) -> StepLabel:
    before = LIST_MARK.sub("", text[max(0, left.start - NEIGHBOURHOOD) : left.start])
    after = text[right.end : right.end + NEIGHBOURHOOD]
    # "y - 3 + 5": a minus that subtracts from something unread is not the sign of the first number.
    subtracts = text[left.start] in "-\u2212+" and (text[left.start + 1].isspace() or re.search(r"[\w)\]}.…]\Z", before))
    if left.value is None or right.value is None or subtracts:
        return "unverifiable"
    if CUT_ON_THE_LEFT.search(before) or CUT_ON_THE_RIGHT.match(after):
        return "unverifiable"
    if left.value == right.value:
        return "correct"
    decimals = len(text[right.start : right.end].partition(".")[2])
    rounded = not right.computes and decimals > 0 and abs(left.value - right.value) <= Fraction(1, 2 * 10**decimals)
    return "unverifiable" if rounded else "incorrect"


def arithmetic_steps(text: str) -> list[Step]:
    r"""Find equations such as "7 + 5 = 12" or "$4 x 5 = $20" and check them exactly, in rational numbers.

    Every equals sign with an operation on at least one side is a step: the longest expression that ends before the
    sign and the longest that begins after it. In a chain such as "3*4 = 12 + 1 = 13" each sign compares its two
    neighbours (there, incorrect and then correct), and the second step's span starts at its sign, so spans are
    disjoint and in order. Operators: + - * / ( ) and x, X, ×, ÷, ·, −, \times, \cdot, \div, and 2(3) for a product;
    currency signs and thousands commas are read.

    "unverifiable" are: an equation of which only a part can be read ("2y + 3 + 4 = 9", "2^3 + 1 = 9", "= 50%"), a
    division by zero, a number of more than `MAX_DIGITS` digits, and a decimal that is the left side rounded to its
    places ("10 / 3 = 3.33"). Equations in words, with units between the numbers, or across lines are not found.
    """
    steps: list[Step] = []
    for run in _split(text):
        for before, after in pairwise(run):
            left, found = _left_side(before), _parse(after[:MAX_LEXEMES])
            if left is None or found is None or not (left.computes or found[0].computes):
                continue
            right = found[0]
            shared = bool(steps) and steps[-1].end > left.start
            start = text.rindex("=", left.end, right.start) if shared else left.start
            steps.append(Step(start, right.end, text[start : right.end], _label(text, left, right), "arithmetic"))
    return steps
