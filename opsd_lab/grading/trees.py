"""What can be said about an expression's tree exactly: its value where that is rational, its variables, its two signs."""

import math
from collections.abc import Iterator
from fractions import Fraction

Tree = tuple

MAX_BITS = 20_000  # of a numerator or denominator; larger ones are left to the worker
MAX_FACTORIAL = 500


def exact(tree: Tree) -> Fraction | None:
    """Return a tree's value where rational arithmetic gives it, within `MAX_BITS` at every step, else None."""
    match tree:
        case ("num", value):
            return value
        case ("const" | "name" | "pm" | "mp", _):
            return None
    operation = tree[1] if tree[0] == "call" else tree[0]
    if operation == "apply":
        return None
    values = [exact(operand) for operand in tree[2 if tree[0] == "call" else 1 :]]
    if None in values:
        return None
    try:
        value = _apply(operation, values)
    except (ZeroDivisionError, OverflowError):
        return None
    return value if value is not None and max(value.numerator.bit_length(), value.denominator.bit_length()) <= MAX_BITS else None


def _apply(operation: str, values: list[Fraction]) -> Fraction | None:
    first, whole = values[0], all(value.denominator == 1 for value in values)
    match operation:
        case "+":
            return sum(values, Fraction())
        case "neg":
            return -first
        case "*":
            return first * values[1]
        case "/":
            return first / values[1]
        case "^":
            return _power(first, values[1])
        case "abs":
            return abs(first)
        case "floor" | "ceil":
            return Fraction(getattr(math, operation)(first))
        case "factorial" if whole and 0 <= first <= MAX_FACTORIAL:
            return Fraction(math.factorial(int(first)))
        case "binomial" if whole and 0 <= values[1] <= first <= MAX_FACTORIAL:
            return Fraction(math.comb(int(first), int(values[1])))
        case "gcd" | "lcm" if whole and len(values) > 1:
            return Fraction(getattr(math, operation)(*map(int, values)))
        case "max" | "min":
            return (max if operation == "max" else min)(values)
        case "root" if values[1] == 2 and first >= 0:
            root = Fraction(math.isqrt(first.numerator), math.isqrt(first.denominator))
            return root if root * root == first else None
    return None


def _power(base: Fraction, exponent: Fraction) -> Fraction | None:
    if exponent.denominator != 1 or abs(exponent) > MAX_BITS:
        return None
    bits = max(base.numerator.bit_length(), base.denominator.bit_length(), 1)
    return base ** int(exponent) if bits * abs(exponent) <= MAX_BITS else None


def names(tree: Tree) -> frozenset[str]:
    """Return a tree's variables."""
    return frozenset(node[1] for node in nodes(tree) if node[0] == "name")


def has_constant(tree: Tree, name: str) -> bool:
    """Whether a constant, such as "pi", occurs in a tree."""
    return ("const", name) in nodes(tree)


def nodes(tree: Tree) -> Iterator[Tree]:
    """Yield a tree and all trees in it."""
    yield tree
    for part in tree[1:]:
        if isinstance(part, tuple):
            yield from nodes(part)


def with_signs(tree: Tree) -> list[Tree]:
    r"""Return the two trees that a tree with \pm or \mp stands for, the upper signs first; a tree without them alone."""
    if not any(node[0] in ("pm", "mp") for node in nodes(tree)):
        return [tree]
    return [_signed(tree, upper=True), _signed(tree, upper=False)]


def _signed(tree: Tree, upper: bool) -> Tree:
    parts = tuple(_signed(part, upper) if isinstance(part, tuple) else part for part in tree)
    if parts[0] not in ("pm", "mp"):
        return parts
    return parts[1] if (parts[0] == "pm") == upper else ("neg", parts[1])


def to_json(tree: Tree) -> list:
    """Return a tree as lists of texts, rational numbers as "a/b"."""
    return [to_json(part) if isinstance(part, tuple) else str(part) for part in tree]
