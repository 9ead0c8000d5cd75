"""The arithmetic written out in a text, checked exactly."""

import re
from fractions import Fraction
from itertools import pairwise
from math import ceil, floor

from opsd_lab.steps.arithmetic_doubt import is_doubted, speaks_of_remainders
from opsd_lab.steps.arithmetic_lexer import lex, plain
from opsd_lab.steps.arithmetic_places import begins, ends
from opsd_lab.steps.arithmetic_reader import Side, read_end, read_start
from opsd_lab.steps.step import Step, StepLabel

# What a result may be counted in, where its number is that of another unit times one of these factors.
UNIT = re.compile(
    r"(?:milli|centi|kilo|mega|giga)?(?:sec|second|min|minute|hr|hour|day|night|week|fortnight|month|year|decade|centur|dollar|cent|penn"
    r"|nickel|dime|quarter|euro|pound|buck|gram|liter|litre|metre|meter|[kcm]m\b|[km]?g\b|[mc]?l\b|lb|oz|ounce|ton|inch|in\b|feet|foot|ft"
    r"|yard|yd|mile|gallon|quart|pint|cup|tablespoon|teaspoon|byte|bit|[kmgt]b\b|degree|radian|turn|rotation|dozen|pair|pack|box|bag|case"
    r"|carton|crate|set|group|row|roll|bundle|team|shift|trip|load|batch|pizza|pie|cake|loa|half|halves|point|%|percent|acre|hectare|square"
    r"|unit)",
    re.IGNORECASE,
)
FACTORS = frozenset([2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 25, 30, 36, 48, 50, 52, 60, 90, 100, 144, 180, 360, 365, 366, 1440])
FACTORS_OF_TEN = frozenset(10**power for power in range(1, 13)) | {1760, 3600, 5280, 86400, 1024, 2000, 2204, 2240}
REMAINDER = re.compile(r"\b(?:remainder|quotient|left over|leftover)", re.IGNORECASE)
NEAR = 120  # characters
MACHINE_DIGITS = 15  # significant digits of a number that a machine rounded
MACHINE_PRECISION = Fraction(1, 10**12)
CLOSE = Fraction(1, 50)  # of the result, that rounded decimals may have moved it
LONE_DASH = re.compile(r"(?:\A|\n)[ \t]*-[ \t]+\Z")


def arithmetic_steps(text: str) -> list[Step]:
    r"""Find equations such as "7 + 5 = 12", "$4 x 5 = $20" or "2 bags * 5 = 10 apples" and check them exactly, in rational numbers.

    Every equals sign with an operation on at least one side is a step: the longest expression that ends before the
    sign and the longest that begins after it, which may be in the next line. In a chain such as "3*4 = 12 + 1 = 13" each sign
    compares its two neighbours (there, incorrect and then correct), and the second step's span starts at its sign, so spans are
    disjoint and in order. Operators: + - * / ( ) [ ] and x, X, ×, ÷, ·, −, \times, \cdot, \div, \frac, and 2(3) for a product.
    Currency signs, groups of thousands, percent signs, mixed numbers (1 1/2), dashes for minus, and units behind numbers are read.

    A step is judged only if all that touches it was read: `arithmetic_places` lists what may stand beside it. What agrees is
    "correct". What does not agree is "incorrect" only if it was read without a doubt. It is "unverifiable" where another reading is
    possible (units, percent signs, mixed numbers, dashes, 6 / 2/3, a number after a noun as in "pages 3-5"), where a unit or a remark
    tells of another scale or of a remainder, where the text supposes or denies it, and where the result may be rounded: a decimal to
    its places, or cut off there ("10 / 3 = 3.33"), 15 digits and more, a quotient to whole things, or rounded decimals.
    "unverifiable" are, too: powers, a division by zero, a number of more than `MAX_DIGITS` digits. Equations in words are not found.
    """
    text_read = plain(text)
    steps: list[Step] = []
    for run in lex(text_read):
        for before, after in pairwise(run):
            left, right = read_end(before), read_start(after)
            if left is None or right is None or not (left.computes or right.computes):
                continue
            label = _label(text_read, left, right)
            if label == "unverifiable" and not left.computes and _has_units(left):
                continue  # "on 3 days = 4 * 2": the words are no unit
            shared = bool(steps) and steps[-1].end > left.start
            start = text_read.rindex("=", left.end, right.start) if shared else left.start
            steps.append(Step(start, right.end, text[start : right.end], label, "arithmetic"))
    return steps


def _label(text: str, left: Side, right: Side) -> StepLabel:
    if left.value is None or right.value is None or speaks_of_remainders(text, left, right):
        return "unverifiable"
    before, (after, unit) = begins(text, left), ends(text, right)
    if "cut" in (before, after):
        return "unverifiable"
    if _agree(left, right):
        return "correct"
    certain = before == after == "whole" and left.sure and right.sure and _alike(left, right, unit)
    if not certain or _has_another_reading(text, left, right) or _may_be_rounded(text, left, right, unit):
        return "unverifiable"
    return "unverifiable" if _rescaled(left, right, unit) or is_doubted(text, left, right) else "incorrect"


def _agree(left: Side, right: Side) -> bool:
    if left.value == right.value:
        return True
    # "3/4 * 100 = 75%", "100 - 20 = 80%"
    unit = (not _has_percent(left) and not right.computes) or not (_multiplies(left) or _multiplies(right))
    return unit and left.percentless == right.percentless


def _has_percent(side: Side) -> bool:
    return any(lexeme.kind == "percent" for lexeme in side.lexemes)


def _has_units(side: Side) -> bool:
    return any(lexeme.kind == "unit" for lexeme in side.lexemes)


def _multiplies(side: Side) -> bool:
    return any(lexeme.text in ("*", "/", r"\frac", "(", "[") for lexeme in side.lexemes)


def _alike(left: Side, right: Side, counted: str) -> bool:
    """Whether no percent sign and no units stand between the numbers, or the same everywhere; `counted` is the result's."""
    lexemes = [*left.lexemes, *right.lexemes]
    units = {lexeme.text for lexeme in lexemes if lexeme.kind == "unit"}
    percents = sum(lexeme.kind == "percent" for lexeme in lexemes)
    if percents:
        numbers = sum(lexeme.kind == "number" for lexeme in lexemes)
        return not units and percents == numbers and not (_multiplies(left) or _multiplies(right))
    return not units or units == {counted.lower().removesuffix("s")}


def _has_another_reading(text: str, left: Side, right: Side) -> bool:
    if left.grouped() == right.value or left.value == right.grouped():
        return True
    # "- 5 + 3 = -2" at the beginning of a line: its dash may be a list's or the first number's.
    if LONE_DASH.search(text[max(0, left.start - NEAR) : left.start]):
        signed = arithmetic_steps("-" + text[left.start : right.end])
        if signed and signed[0].label == "correct":
            return True
    # "500 \\div 13 = 13 \\cdot 38 + 6", and "4 * 3 = 2(4) + 3(3)" where the star is an operation of its own.
    if left.divides and REMAINDER.search(text[max(0, left.start - NEAR) : right.end + NEAR]):
        return True
    return (
        len(left.lexemes) == 3
        and text[left.lexemes[1].start] == "*"
        and re.search(r"[0-9]\(", text[right.start : right.end]) is not None
    )


def _may_be_rounded(text: str, left: Side, right: Side, unit: str) -> bool:
    assert left.value is not None and right.value is not None
    gap = abs(left.value - right.value)
    if not right.computes:
        places = len(text[right.start : right.end].partition(".")[2])
        step = Fraction(1, 10**places)
        digits = sum(character.isdigit() for character in text[right.start : right.end])
        if places and (gap <= step / 2 or (gap < step and abs(right.value) < abs(left.value))):
            return True
        if digits >= MACHINE_DIGITS and gap <= MACHINE_PRECISION * abs(left.value):
            return True
        if not places and left.divides and right.value in (floor(left.value), ceil(left.value)) and (unit or right.value >= 10):
            return True
    return gap <= left.slack() + right.slack() and gap <= CLOSE * abs(right.value)


def _rescaled(left: Side, right: Side, unit: str) -> bool:
    """Whether the result may be in another unit than the numbers: "$2.50 - $2.24 = 26 cents"."""
    same = any(lexeme.text == unit.lower().removesuffix("s") for lexeme in left.lexemes)
    if same or not UNIT.match(unit) or not left.value or not right.value:
        return False
    factor = left.value / right.value
    factor = max(factor, 1 / factor) if factor > 0 else Fraction(0)
    return factor in FACTORS or factor in FACTORS_OF_TEN
