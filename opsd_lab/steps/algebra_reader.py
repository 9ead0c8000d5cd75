r"""Expressions with letters, as people and models write them, read and written again as unambiguous LaTeX.

What goes on to a computer algebra system is made here of nothing but numbers, x_{1}, x_{2}, ..., + - \cdot ^ \frac and \sqrt, and
holds no text of the model's own. Every letter is a symbol of which nothing is assumed: what holds for all holds for e, i and pi.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from opsd_lab.steps.algebra_lexer import Lexeme, lex
from opsd_lab.steps.mathematics import math_spans

MAX_DIGITS = 30  # of one number
MAX_LEXEMES = 64  # of one side of an equation; this also bounds the reader's recursion

BRACKETS = {"(": ")", "[": "]", "{": "}"}
MULTIPLIED = frozenset("abcdkmnxyz")  # letters that a bracket may multiply; f(x + 1), P(A) and the like are no products


@dataclass(frozen=True)
class Side:
    """An expression: its place, and its LaTeX in pieces; None: it cannot be read with certainty.

    `letters` are in the order of their first appearance, `bare` means that nothing but a name stands there,
    `latex_text` that it stands between LaTeX's delimiters.
    """

    start: int
    end: int
    pieces: tuple[str, ...] | None
    letters: tuple[str, ...]
    bare: bool
    decimal: bool
    latex_text: bool

    def latex(self, names: Mapping[str, int]) -> str:
        """Return the LaTeX with x_{names[letter]} for each letter."""
        return "".join(f"x_{{{names[piece[1:]]}}}" if piece[0] == "@" else piece for piece in self.pieces or ())


@dataclass
class _Reader:
    """Reads the longest expression at the start of some lexemes; `certain` until something in it has two readings."""

    lexemes: Sequence[Lexeme]
    at: int = 0
    certain: bool = True
    factor_letter: str = ""  # the letter that the last factor consists of, a power aside

    def peek(self, ahead: int = 0) -> Lexeme | None:
        return self.lexemes[self.at + ahead] if self.at + ahead < len(self.lexemes) else None

    def take(self, *texts: str) -> str:
        """Consume the next lexeme if it is one of these operators or commands; return it, or "" ."""
        found = self.peek()
        if found is not None and found.kind in ("operator", "command") and found.text in texts:
            self.at += 1
            return found.text
        return ""

    def sum(self) -> list[str] | None:
        value = self.product()
        while value is not None:
            before = self.at
            operator = self.take("+", "-")
            term = self.product() if operator else None
            if term is None:
                self.at = before
                break
            value = [*value, operator, *term]
        return value

    def product(self) -> list[str] | None:
        value, divided = self.factor(), False
        while value is not None:
            before, certain = self.at, self.certain
            operator = self.take("*", "/")
            if not operator and self.juxtaposed():
                operator = "juxtaposed"
                self.certain &= not divided  # 1/2x
            term = self.factor() if operator else None
            if term is None:
                self.at, self.certain = before, certain
                break
            divided = operator == "/"
            value = [r"\frac{", *value, "}{", *term, "}"] if divided else [*value, r"\cdot ", *term]
        return value

    def juxtaposed(self) -> bool:
        """Whether a factor follows without a sign of multiplication."""
        last, following, second, third = self.lexemes[self.at - 1], self.peek(), self.peek(1), self.peek(2)
        if following is None or (following.start != last.end and not (following.latex and last.latex)):
            return False
        if following.kind == "letter":
            self.certain &= last.text != "d"  # dx
            return True
        if following.kind == "command":
            mixed = following.text == r"\frac" and last.kind == "number" and third is not None and third.kind == "number"
            self.certain &= not mixed  # 2\frac{1}{2}
            return True
        if following.kind == "operator" and following.text in BRACKETS and (following.text != "{" or following.latex):
            argument = second is not None and second.kind != "operator" and third is not None and third.text in BRACKETS.values()
            self.certain &= not self.factor_letter or (self.factor_letter in MULTIPLIED and not argument)
            return True
        return False

    def factor(self) -> list[str] | None:
        before = self.at
        if sign := self.take("-", "+"):
            value = self.factor()
            value = value and (["(-", *value, ")"] if sign == "-" else value)
        else:
            value = self.power()
        if value is None:
            self.at = before
        return value

    def power(self) -> list[str] | None:
        start = self.at
        base = self.atom()
        if base is None:
            return None
        letter = self.lexemes[start].text if self.at == start + 1 and self.lexemes[start].kind == "letter" else ""
        before = self.at
        raised = self.peek()
        if raised is not None and raised.kind == "superscript":
            self.at += 1
            base = ["(", *base, ")^{", raised.text, "}"]
        elif self.take("^"):
            exponent = self.exponent(letter)
            if exponent is None:
                self.at = before
            else:
                base = ["(", *base, ")^{", *exponent, "}"]
        self.factor_letter = letter
        return base

    def exponent(self, letter: str) -> list[str] | None:
        first = self.peek()
        value = self.factor()
        following = self.peek()
        if first is not None and value is not None and first.text not in BRACKETS:
            # x^10 in LaTeX is x^1 0; e^2x, 2^ab, and x^1/2 have two readings wherever they stand.
            self.certain &= not (first.latex and len(first.text) > 1)
            touching = following is not None and following.kind == "letter" and following.start == self.lexemes[self.at - 1].end
            self.certain &= not (touching and (letter in ("", "e") or first.kind != "number") and not first.latex)
            self.certain &= not (first.text == "1" and following is not None and following.text == "/")
        return value

    def atom(self) -> list[str] | None:
        before, found = self.at, self.peek()
        if found is None:
            return None
        value: list[str] | None = None
        if found.kind in ("number", "letter"):
            self.at += 1
            return self.number(found.text) if found.kind == "number" else ["@" + found.text]
        if self.take(r"\frac"):
            above = self.group("{")
            below = self.group("{") if above is not None else None
            value = None if below is None else [r"(\frac{", *above, "}{", *below, "})"]
        elif self.take(r"\sqrt"):
            index = self.group("[")
            inside = self.group("{")
            value = None if inside is None else [r"\sqrt", *(["[", *index, "]"] if index else []), "{", *inside, "}"]
        elif found.kind == "operator" and found.text in BRACKETS and (found.text != "{" or found.latex):
            inside = self.group(found.text)
            value = None if inside is None else ["(", *inside, ")"]
        if value is None:
            self.at = before
        return value

    def group(self, opening: str) -> list[str] | None:
        inside = self.sum() if self.take(opening) else None
        return inside if inside is not None and self.take(BRACKETS[opening]) else None

    def number(self, text: str) -> list[str]:
        self.certain &= len(text) <= MAX_DIGITS
        whole, _, decimals = text.partition(".")
        return [rf"(\frac{{{int(whole + decimals)}}}{{1{'0' * len(decimals)}}})"] if decimals else [whole]


def read_start(lexemes: Sequence[Lexeme]) -> tuple[Side, int] | None:
    """Return the longest expression that starts the lexemes, and how many of them it takes."""
    reader = _Reader(lexemes[:MAX_LEXEMES])
    pieces = reader.sum()
    if pieces is None:
        return None
    used = lexemes[: reader.at]
    letters = tuple(dict.fromkeys(lexeme.text for lexeme in used if lexeme.kind == "letter"))
    one_name = all(lexeme.kind == "letter" and not lexeme.latex for lexeme in used) and used[-1].end - used[0].start == len(used)
    bare = one_name or (len(used) == 1 and used[0].kind == "letter")
    decimal = any(lexeme.kind == "number" and "." in lexeme.text for lexeme in used)
    side = Side(used[0].start, used[-1].end, tuple(pieces) if reader.certain else None, letters, bare, decimal, used[0].latex)
    return side, reader.at


def read_end(lexemes: Sequence[Lexeme]) -> Side | None:
    """Return the longest expression that ends the lexemes."""
    for first in range(max(0, len(lexemes) - MAX_LEXEMES), len(lexemes)):
        found = read_start(lexemes[first:])
        if found is not None and found[1] == len(lexemes) - first:
            return found[0]
    return None


def read_whole(text: str) -> Side | None:
    """Return the expression that a text consists of, between LaTeX's delimiters or not; None where it is more or less than one."""
    text = text.strip()
    delimited = math_spans(text) == [(0, len(text))]
    if delimited:
        width = 1 if text[0] == "$" != text[1] else 2
        text = text[width:-width]
    latex = delimited or "\\" in text or "{" in text
    runs = lex(text, [(0, len(text))] if latex else [])
    if len(runs) != 1 or len(runs[0]) != 1 or len(runs[0][0]) > MAX_LEXEMES:
        return None
    found = read_start(runs[0][0])
    return found[0] if found is not None and found[1] == len(runs[0][0]) else None
