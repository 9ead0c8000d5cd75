"""The operands of an expression: numbers, names, groups, roots, functions; what stands between them is `expressions`'s."""

from fractions import Fraction

from opsd_lab.grading.tokens import CONSTANTS, FUNCTIONS, GREEK, TRIG, Token, Unreadable, in_base
from opsd_lab.grading.trees import Tree

MAX_EXPONENT = 400  # of ten in 1e400; what is larger stays a power
ENDS = {"(": ")", "[": "]", "{": "}", "\\{": "\\}", "\\lfloor": "\\rfloor", "\\lceil": "\\rceil"}


class Operands:
    """A parser's place in the tokens, and how it reads one operand there; a subclass has `sum`, `factor` and `exponent`."""

    def __init__(self, tokens: list[Token], tight: bool) -> None:
        self.tokens, self.at, self.depth, self.bars, self.tight = tokens, 0, 0, 0, tight

    def peek(self, ahead: int = 0) -> str | None:
        """Return the text of a token, None behind the last."""
        return self.tokens[self.at + ahead][1] if self.at + ahead < len(self.tokens) else None

    def kind(self, ahead: int = 0) -> str | None:
        """Return the kind of a token, None behind the last."""
        return self.tokens[self.at + ahead][0] if self.at + ahead < len(self.tokens) else None

    def take(self, wanted: str | None = None) -> str:
        """Step over the next token, which must be the wanted one."""
        token = self.peek()
        if token is None or (wanted is not None and token != wanted):
            raise Unreadable(f"{wanted} expected, not {token}")
        self.at += 1
        return token

    def sum(self) -> Tree:
        """Read a whole expression."""
        raise NotImplementedError

    def factor(self) -> Tree:
        """Read an operand with its powers."""
        raise NotImplementedError

    def exponent(self) -> Tree:
        """Read what follows a ^."""
        raise NotImplementedError

    def begins_factor(self) -> bool:
        """Whether an operand follows."""
        raise NotImplementedError

    def group(self, opening: str) -> Tree:
        """Read what stands in brackets."""
        self.take(opening)
        bars, self.bars = self.bars, 0
        tree = self.sum()
        self.bars = bars
        self.take(ENDS[opening])
        return tree

    def argument(self) -> Tree:
        r"""Read what follows \frac or \sqrt: a group in braces, one digit, or one letter or command."""
        if self.peek() == "{":
            return self.group("{")
        if self.kind() == "number":
            _, digits, _ = self.tokens[self.at]
            if not digits.isdigit():
                raise Unreadable(digits)
            if len(digits) > 1:
                self.tokens[self.at] = ("number", digits[1:], False)
            else:
                self.at += 1
            return ("num", Fraction(digits[0]))
        return self.atom()

    def atom(self) -> Tree:
        """Read one operand without its powers."""
        kind, token = self.kind(), self.peek()
        if kind == "number":
            return self.number()
        if kind == "letter":
            self.take()
            return self.name(token)
        if token in ("(", "{", "["):
            return self.group(token)
        if token == "|":
            self.take()
            self.bars += 1
            tree = self.sum()
            self.bars -= 1
            self.take("|")
            return ("call", "abs", tree)
        if kind == "command":
            self.take()
            return self.command(token[1:])
        raise Unreadable(f"no operand at {token}")

    def name(self, letter: str) -> Tree:
        """Read the rest of a letter: its index, its primes, its arguments."""
        if self.peek() == "_":
            self.take()
            index = self._index()
            return ("name", f"{letter}_{index}")
        primes = 0
        while self.peek() == "'":
            self.take()
            primes += 1
        if letter in "ei" and not primes:
            return ("const", letter)
        if letter == "C" and self._two_arguments():
            return self._choose()
        if letter in "fgh" and self.peek() == "(":
            return ("call", "apply", ("name", letter + "'" * primes), self.group("("))
        return ("name", letter + "'" * primes)

    def _two_arguments(self) -> bool:
        depth = 0
        for at in range(self.at, len(self.tokens)):
            token = self.tokens[at][1]
            depth += (token == "(") - (token == ")")
            if depth == 0:
                return False
            if depth == 1 and token == ",":
                return True
        return False

    def _choose(self) -> Tree:
        self.take("(")
        top = self.sum()
        self.take(",")
        bottom = self.sum()
        self.take(")")
        return ("call", "binomial", top, bottom)

    def _index(self) -> str:
        if self.peek() != "{":
            return self.take()
        self.take("{")
        index = ""
        while self.peek() not in ("}", None):
            index += self.take().removeprefix("\\")
        self.take("}")
        return index

    def number(self) -> Tree:
        """Read a number, in a base or mixed if it is."""
        digits = self.take()
        if self.peek() == "_":
            self.take()
            return ("num", Fraction(in_base(digits, self._index())))
        mantissa, _, exponent = digits.lower().partition("e")
        tree = ("num", Fraction(mantissa))
        if exponent:
            power = int(exponent)
            ten = ("num", Fraction(10))
            if abs(power) > MAX_EXPONENT:
                return ("*", tree, ("^", ten, ("num", Fraction(power))))
            return ("num", Fraction(mantissa) * Fraction(10) ** power)
        return self._mixed(tree) if digits.isdigit() else tree

    def _mixed(self, whole: Tree) -> Tree:
        part = None
        if self.peek() == "\\frac":
            before = self.at
            self.take()
            top, bottom = self.argument(), self.argument()
            if top[0] == bottom[0] == "num" and 0 < top[1] < bottom[1] and self.peek() not in ("^", "!"):
                part = top[1] / bottom[1]
            else:
                self.at = before
        elif self.kind() == "number" and self.kind(2) == "number" and self.peek(1) == "/" and self.tokens[self.at][2]:
            top, bottom = self.peek(), self.peek(2)
            if not (top.isdigit() and bottom.isdigit() and 0 < int(top) < int(bottom)):
                raise Unreadable("two numbers side by side")
            self.at += 3
            part = Fraction(int(top), int(bottom))
        return whole if part is None else ("num", whole[1] + part)

    def command(self, name: str) -> Tree:
        """Read what a command needs."""
        if name == "frac":
            top = self.argument()
            return ("/", top, self.argument())
        if name == "binom":
            top = self.argument()
            return ("call", "binomial", top, self.argument())
        if name in ("sqrt", "root", "cuberoot", "cbrt"):
            return self.root(name)
        if name in CONSTANTS:
            return ("const", CONSTANTS[name])
        if name in GREEK:
            return self.name("\\" + name)
        if name in ("lfloor", "lceil"):
            tree = self.sum()
            self.take(f"\\r{name[1:]}")
            return ("call", name[1:], tree)
        if name in FUNCTIONS:
            return self.function(name)
        raise Unreadable(f"\\{name}")

    def root(self, name: str) -> Tree:
        """Read a root of any degree."""
        degree = ("num", Fraction(3 if name in ("cuberoot", "cbrt") else 2))
        if name == "sqrt" and self.peek() == "[":
            degree = self.group("[")
        if self.peek() == "(":
            inside = self.group("(")
        elif name == "sqrt":
            inside = self.argument() if self.peek() == "{" or not self._plain_number() else self.number()
        else:
            inside = self.atom()
        return ("call", "root", inside, degree)

    def _plain_number(self) -> bool:
        # sqrt12 without a backslash is not told from \sqrt12 here, so that only one digit is sure.
        return self.kind() == "number" and len(self.peek()) == 1

    def function(self, name: str) -> Tree:
        """Read a function with its power, base and arguments."""
        power = base = None
        while self.peek() in ("^", "_"):
            if self.take() == "^":
                power = self.exponent()
            else:
                base = self.group("{") if self.peek() == "{" else self.atom()
        inside = [self.group(self.peek())] if self.peek() == "{" else self._inside(name)
        if power == ("neg", ("num", Fraction(1))) and name in TRIG:
            name, power = "arc" + name, None
        if base is not None:
            if name != "log":
                raise Unreadable(f"index of {name}")
            inside.append(base)
        tree = ("call", {"asin": "arcsin", "acos": "arccos", "atan": "arctan"}.get(name, name), *inside)
        return tree if power is None else ("^", tree, power)

    def _inside(self, name: str) -> list[Tree]:
        if self.peek() == "(":
            self.take()
            trees = [self.sum()]
            while self.peek() == ",":
                self.take()
                trees.append(self.sum())
            self.take(")")
            if len(trees) > 1 and name not in ("gcd", "lcm", "max", "min"):
                raise Unreadable(f"arguments of {name}")
            return trees
        tree = self.factor()
        while self.begins_factor() and self.peek() not in ("(", "[") and self.peek().lstrip("\\") not in FUNCTIONS:
            tree = ("*", tree, self.factor())
        return [tree]
