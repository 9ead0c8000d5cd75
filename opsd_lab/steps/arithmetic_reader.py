"""The value of written arithmetic, in rational numbers, and whether it has no second reading."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from opsd_lab.steps.arithmetic_lexer import PIECES, Lexeme

MAX_LEXEMES = 64  # of one side of an equation; this also bounds the reader's recursion
HUNDREDTH = Fraction(1, 100)


@dataclass(frozen=True)
class Side:
    """An expression beside an equals sign; `value` None: it has none (division by zero, too many digits, a power, ...).

    `percentless` is its value with each percent sign as a unit. `sure`: what was read has no second reading.
    """

    start: int
    end: int
    value: Fraction | None
    percentless: Fraction | None
    computes: bool  # holds an operator
    sure: bool
    divides: bool
    lexemes: tuple[Lexeme, ...]

    def grouped(self) -> Fraction | None:
        """Return its value if all that is multiplied or divided behind a slash is below the fraction's line: 6/2*3 as 6/(2*3)."""
        return _Reader(self.lexemes, HUNDREDTH, grouped=True).sum() if self.divides else None

    def slack(self) -> Fraction:
        """Return how far its decimals, if each was rounded to its places, may have moved the value."""
        decimals = [number for number, lexeme in enumerate(self.lexemes) if lexeme.kind == "number" and _looks_rounded(lexeme)]
        moved = (_Reader(self.lexemes, HUNDREDTH, rounded=number).sum() for number in decimals)
        return sum((abs(value - self.value) for value in moved if value is not None and self.value is not None), Fraction(0))


class _Reader:
    """Reads the longest expression at the start of some lexemes: + - * / with precedence, signs, brackets and fractions."""

    def __init__(self, lexemes: Sequence[Lexeme], percent: Fraction, rounded: int = -1, grouped: bool = False) -> None:
        self.lexemes = lexemes
        self.percent = percent
        self.rounded = rounded  # the number of the decimal that is taken half a unit of its last place higher
        self.grouped = grouped
        self.slash = (0, 0)  # the last sign of division and the end of its divisor
        self.at = 0
        self.defined = True  # until something without a value is met
        self.sure = True

    def peek(self, ahead: int = 0) -> Lexeme | None:
        return self.lexemes[self.at + ahead] if self.at + ahead < len(self.lexemes) else None

    def operator(self, *wanted: str) -> str:
        """Consume the next lexeme if it is one of these operators; return it, or "" ."""
        found = self.peek()
        if found is not None and found.kind == "operator" and found.text in wanted:
            self.at += 1
            self.sure &= found.sure
            return found.text
        return ""

    def sum(self) -> Fraction | None:
        value = self.product()
        while value is not None:
            before = self.at
            operator = self.operator("+", "-")
            # "5 -- 3" is rather a dash.
            self.sure &= not (operator == "-" and self._touches("-"))
            term = self.product() if operator else None
            if term is None:
                self.at = before
                break
            value = value + term if operator == "+" else value - term
        return value

    def _touches(self, text: str) -> bool:
        following = self.peek()
        return following is not None and following.text == text and following.start == self.lexemes[self.at - 1].end

    def product(self) -> Fraction | None:
        value, divided = self.factor(), False
        while value is not None:
            before, sure, defined = self.at, self.sure, self.defined
            operator = self.operator("*", "/")
            if not operator and self.bracket_follows():
                operator = "juxtaposed"
                self.defined &= not divided  # 6/2(3)
            # "a / b/c" and "a / b*c" have two readings.
            self.sure &= not (divided and (operator == "/" or (operator == "*" and self._closer())))
            divided |= operator == "/"
            slash = self.at
            term = self.product() if self.grouped and operator == "/" else self.factor() if operator else None
            if term is None:
                self.at, self.sure, self.defined = before, sure, defined
                break
            if operator == "/":
                self.slash = (slash - 1, self.at)
            if operator == "/" and term == 0:
                self.defined = False
            else:
                value = value / term if operator == "/" else value * term
        return value

    def _closer(self) -> bool:
        """Whether the sign of multiplication just read stands closer to its factors than the sign of division before."""
        slash, end = self.slash
        wide = self.lexemes[slash].start - self.lexemes[slash - 1].end
        return self.lexemes[self.at - 1].start - self.lexemes[end - 1].end < wide

    def bracket_follows(self) -> bool:
        """Whether a bracket or a fraction follows the last lexeme as its factor, as in 2(3 + 4)."""
        last, following = self.lexemes[self.at - 1], self.peek()
        if following is None or last.kind == "unit" or following.text not in ("(", "[", r"\frac"):
            return False
        if following.start != last.end:
            self.sure = False
        if following.text == r"\frac" and last.kind == "number":  # 2\frac{1}{2} is mixed
            self.defined = False
        return True

    def factor(self) -> Fraction | None:
        before = self.at
        value: Fraction | None = None
        found = self.peek()
        if sign := self.operator("-", "+"):
            value = self.factor()
            value = -value if value is not None and sign == "-" else value
        elif (opening := self.operator("(", "[")) or self.operator(r"\frac"):
            value = self.bracketed(opening) if opening else self.fraction()
        elif found is not None and found.kind == "number":
            self.at += 1
            value = self.number(found)
        if value is None:
            self.at = before
            return None
        return self.followed(value)

    def number(self, found: Lexeme) -> Fraction:
        self.sure &= found.sure
        self.defined &= found.value is not None
        value = found.value if found.value is not None else Fraction(1)
        if self.at - 1 == self.rounded:
            value += Fraction(1, 2 * 10 ** len(found.text.partition(".")[2]))
        part = self.peek()
        if part is not None and part.kind == "number" and part.text[0] in "¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞" and part.start == found.end:
            self.at += 1
            self.sure = False
            value += part.value or 0
        return value

    def bracketed(self, opening: str) -> Fraction | None:
        inner = self.sum()
        return inner if inner is not None and self.operator(PIECES[opening]) else None

    def fraction(self) -> Fraction | None:
        above = self.bracketed("{") if self.operator("{") else None
        below = self.bracketed("{") if above is not None and self.operator("{") else None
        if above is None or below is None:
            return None
        self.defined &= below != 0
        return above / below if below else above

    def followed(self, value: Fraction) -> Fraction:
        """Take the percent signs, powers and units behind a factor."""
        while (found := self.peek()) is not None and found.kind in ("percent", "power", "unit"):
            if found.kind == "unit" and not self.unit_belongs():
                break
            self.at += 1
            self.defined &= found.kind != "power"
            value = value * self.percent if found.kind == "percent" else value
        return value

    def unit_belongs(self) -> bool:
        """Whether units are followed by what goes on with the expression, or by the end of the lexemes."""
        ahead = 0
        while (found := self.peek(ahead)) is not None and found.kind == "unit":
            ahead += 1
        return found is None or (found.kind == "operator" and found.text not in ("(", "[", "{", r"\frac"))


def read_start(lexemes: Sequence[Lexeme]) -> Side | None:
    """Return the longest expression that starts the lexemes, without the units at its end."""
    reader = _Reader(lexemes[:MAX_LEXEMES], HUNDREDTH)
    if reader.sum() is None:
        return None
    used = list(lexemes[: reader.at])
    while used[-1].kind == "unit":
        used.pop()
    return _side(used)


def read_end(lexemes: Sequence[Lexeme]) -> Side | None:
    """Return the longest expression that ends the lexemes."""
    for first in range(max(0, len(lexemes) - MAX_LEXEMES), len(lexemes)):
        reader = _Reader(lexemes[first:], HUNDREDTH)
        if reader.sum() is not None and reader.at == len(lexemes) - first:
            return _side(lexemes[first:])
    return None


def _side(lexemes: Sequence[Lexeme]) -> Side:
    reader, plain = _Reader(lexemes, HUNDREDTH), _Reader(lexemes, Fraction(1))
    value, percentless = reader.sum(), plain.sum()
    value = value if reader.defined else None
    return Side(
        lexemes[0].start,
        lexemes[-1].end,
        value,
        percentless if reader.defined else None,
        computes=sum(lexeme.kind == "number" for lexeme in lexemes) > 1 or any(lexeme.kind == "power" for lexeme in lexemes),
        sure=reader.sure and not _has_mixed_hyphen(lexemes),
        divides=any(lexeme.text in ("/", r"\frac") for lexeme in lexemes),
        lexemes=tuple(lexemes),
    )


def _looks_rounded(number: Lexeme) -> bool:
    """Whether a decimal may stand for a longer one, as 0.33 and 16.7 may, 0.5, 0.25 and amounts of money not."""
    places = number.text.partition(".")[2]
    if not places or number.value is None or (len(places) == 2 and not number.text[0].isdigit() and number.text[0] != "."):
        return False
    return number.text[-1] in "1367" if len(places) == 1 else (20 * number.value).denominator > 1


def _has_mixed_hyphen(lexemes: Sequence[Lexeme]) -> bool:
    """Whether there is a "1-1/2", which may mean one and a half."""
    for whole, hyphen, above, slash, below in zip(*(lexemes[i:] for i in range(5)), strict=False):
        tight = whole.end == hyphen.start and hyphen.end == above.start and above.end == slash.start and slash.end == below.start
        proper = above.value is not None and below.value is not None and above.value < below.value
        if tight and proper and (hyphen.text, slash.text) == ("-", "/"):
            return True
    return False
