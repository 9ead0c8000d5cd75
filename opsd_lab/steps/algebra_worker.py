"""The process that compares algebra, run by its path as a script: math-verify and `limited_process` are all it loads.

`["identity", left, right]` asks whether two LaTeX expressions are equal for all values of their symbols, `["solutions", left, right,
left, right]` how the solutions of two equations compare. Only LaTeX parsing is used: SymPy's own parser ends in `eval`.
"""

import logging
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from math_verify import LatexExtractionConfig, parse

# Run by its path with -P, a script finds modules by their paths only.
serve = runpy.run_path(str(Path(__file__).parents[1] / "basics" / "limited_process.py"))["serve"]

LATEX = (LatexExtractionConfig(boxed_match_priority=0),)

Expression = Any  # SymPy's Expr, which is math-verify's dependency and not ours


class UnreadableError(ValueError):
    """An expression that is none, or whose value is not defined or not exact."""


def read(text: str) -> Expression:
    """Parse an expression of symbols and rational numbers; what has been written is kept, and not simplified.

    Raises:
        UnreadableError: for anything else, and where zero divides.
    """
    # math-verify's own time-outs need signals; the parent's limit stands in for them.
    found = parse(rf"\boxed{{{text}}}", LATEX, parsing_timeout=None)
    if not found or not hasattr(found[0], "as_numer_denom"):
        raise UnreadableError(text)
    check(found[0])
    for denominator in denominators(found[0]):
        if denominator.doit().cancel() == 0:
            raise UnreadableError(text)
    return found[0]


def check(expression: Expression) -> Expression:
    """Return an expression that consists of symbols and rational numbers only.

    Raises:
        UnreadableError: for any other, such as one that holds infinity or a rounded number.
    """
    if not all(atom.is_Symbol or atom.is_Rational for atom in expression.atoms()):
        raise UnreadableError(str(expression)[:99])
    return expression


def denominators(expression: Expression) -> Iterator[Expression]:
    """Yield whatever stands below a fraction line, or has a negative power, anywhere in an expression."""
    if expression.is_Pow and not expression.exp.is_nonnegative:
        yield expression.base
    for part in expression.args:
        yield from denominators(part)


def compare_sides(left: Expression, right: Expression) -> str:
    """Return "correct" for an identity, "incorrect" where no value of the symbols makes the sides equal, else "unverifiable"."""
    difference = (left - right).doit()
    if not difference.is_rational_function():
        return "correct" if check(difference.simplify()) == 0 else "unverifiable"
    difference = check(difference.cancel())
    if difference == 0:
        return "correct"
    return "incorrect" if difference.is_Rational else "unverifiable"


def solutions(left: Expression, right: Expression) -> Expression:
    """Return the polynomial whose roots, all simple, are an equation's solutions.

    Raises:
        UnreadableError: unless it is one of rational functions with one unknown and rational coefficients, and has solutions.
    """
    if len(left.free_symbols | right.free_symbols) != 1:
        raise UnreadableError("not one unknown")
    (unknown,) = left.free_symbols | right.free_symbols
    below = [polynomial(part, unknown) for side in (left, right) for part in denominators(side)]
    found = polynomial((left - right).doit().together().as_numer_denom()[0], unknown).sqf_part()
    for part in below:
        found = found.quo(found.gcd(part))
    if found.degree() < 1:
        raise UnreadableError("no solution, or every number is one")
    return found.monic()


def polynomial(expression: Expression, unknown: Expression) -> Expression:
    """Return an expression as a polynomial with rational coefficients.

    Raises:
        UnreadableError: when it is none.
    """
    found = expression.doit().as_poly(unknown, domain="QQ")
    if found is None:
        raise UnreadableError(str(expression)[:99])
    return found


def compare_solutions(previous: Expression, following: Expression) -> str:
    """Return "correct" for the same roots, "incorrect" for no root in common, else "unverifiable"."""
    if previous.gens != following.gens:
        return "unverifiable"
    if previous == following:
        return "correct"
    return "incorrect" if previous.gcd(following).degree() == 0 else "unverifiable"


def reply(question: str, *sides: str) -> str:
    """Return the verdict."""
    try:
        read_sides = [read(side) for side in sides]
        if question == "identity":
            return compare_sides(*read_sides)
        return compare_solutions(solutions(*read_sides[:2]), solutions(*read_sides[2:]))
    except Exception:
        return "unverifiable"


if __name__ == "__main__":
    logging.disable()
    # The parser builds its tables on first use; that must not count against an equation.
    warm_up = (r"(\frac{x_{1}}{2})^{2}-(-\sqrt{x_{2}})", r"2\cdot (x_{1}+3)")
    serve(reply, ("identity", *warm_up), float(sys.argv[1]), int(sys.argv[2]))
