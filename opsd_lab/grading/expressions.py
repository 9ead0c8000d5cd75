r"""Expressions in LaTeX or plain notation, read into trees of tuples by a parser of our own, without `eval`.

A tree is ("num", Fraction), ("name", str), ("const", "pi" | "e" | "i" | "inf"), or an operation with its operands: ("+", ...),
("*", a, b), ("/", a, b), ("^", a, b), ("neg", a), ("pm", a), ("mp", a), ("call", function, ...). Letters differ by case and by
index. Juxtaposition multiplies; an integer before a proper fraction is a mixed number.
"""

from fractions import Fraction

from opsd_lab.grading.operands import Operands
from opsd_lab.grading.tokens import Unreadable, tokens_of
from opsd_lab.grading.trees import Tree

MAX_DEPTH = 60


def parse_expression(text: str, *, tight: bool = False) -> Tree:
    """Return the tree of one expression; `tight` binds juxtaposition before a slash, so that 1/2x is 1/(2x).

    Raises:
        Unreadable: when any part of the text is not read.
    """
    parser = _Parser(tokens_of(text), tight)
    tree = parser.sum()
    if parser.peek() is not None:
        raise Unreadable(text)
    return tree


class _Parser(Operands):
    """Operators in the order of their binding."""

    def sum(self) -> Tree:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable("nested too deeply")
        terms = []
        sign = self._sign()
        terms.append(self._signed(sign, self.product()))
        while self.peek() in ("+", "-", "\\pm", "\\mp"):
            terms.append(self._signed(self._sign(), self.product()))
        self.depth -= 1
        return terms[0] if len(terms) == 1 else ("+", *terms)

    def _sign(self) -> str:
        sign = "+"
        while self.peek() in ("+", "-", "\\pm", "\\mp"):
            token = self.take()
            if token == "-":
                sign = {"+": "-", "-": "+", "\\pm": "\\mp", "\\mp": "\\pm"}[sign]
            elif token != "+":
                sign = token if sign == "+" else {"\\pm": "\\mp", "\\mp": "\\pm"}[token]
        return sign

    @staticmethod
    def _signed(sign: str, tree: Tree) -> Tree:
        match sign:
            case "-":
                return ("neg", tree)
            case "\\pm" | "\\mp":
                return (sign[1:], tree)
        return tree

    def product(self) -> Tree:
        tree = self.factor()
        while True:
            token = self.peek()
            if token == "*":
                self.take()
                tree = ("*", tree, self.signed_factor())
            elif token == "/":
                self.take()
                divisor = self.signed_factor()
                while self.tight and self.begins_factor():
                    divisor = ("*", divisor, self.factor())
                tree = ("/", tree, divisor)
            elif self.begins_factor():
                tree = ("*", tree, self.factor())
            else:
                return tree

    def signed_factor(self) -> Tree:
        return self._signed(self._sign(), self.factor())

    def begins_factor(self) -> bool:
        token, kind = self.peek(), self.kind()
        if token is None or (token == "|" and self.bars):
            return False
        if kind == "number":  # 2 3, x3 and (a) 3 are no products, (n+1)2^n is one
            return self.tokens[self.at - 1][1] in (")", "}", "!") and not self.tokens[self.at][2]
        if kind == "sign":
            return token in ("(", "{", "[", "|")
        return not (kind == "command" and token in ("\\}", "\\rfloor", "\\rceil", "\\pm", "\\mp", "\\degree", "\\|"))

    def factor(self) -> Tree:
        tree = self.atom()
        while True:
            token = self.peek()
            if token in ("^", "**"):
                self.take()
                return ("^", tree, self.exponent())
            if token == "!":
                self.take()
                tree = ("call", "factorial", tree)
            elif token == "\\degree":
                self.take()
                tree = ("*", tree, ("/", ("const", "pi"), ("num", Fraction(180))))
            else:
                return tree

    def exponent(self) -> Tree:
        if self.peek() == "{":
            return self.group("{")
        sign = self._sign()
        return self._signed(sign, self.factor())
