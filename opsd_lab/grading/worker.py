"""The process that compares expressions, run by its path as a script: mpmath and `limited_process` are all it loads.

Requests: `["same", a, b]`, two trees as JSON, whether they have one value wherever both have one; `["ratio", a, b]`, whether a is a
constant times b; `["implies", a, b]`, whether b vanishes where a does; `["near", decimal, tree, places, goes_on]`, whether the tree's
value rounds to the decimal. Replies are "yes", "no" and "open", to a ratio its sign.
"""

import json
import random
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import mpmath
from mpmath import mp

# Run by its path with -P, a script finds other modules by their paths only.
_shared = runpy.run_path(str(Path(__file__).parents[1] / "basics" / "limited_process.py"))
limit_memory, serve = _shared["limit_memory"], _shared["serve"]

DIGITS = (60, 120)  # decimal digits of the two evaluations
AGREE = 40  # digits in which equal values agree
POINTS = 4
MAX_MAGNITUDE = 4_000  # binary places before the point
NO_VALUE = (ArithmeticError, ValueError, TypeError, mpmath.libmp.NoConvergence)

Point = dict[str, object]


def variables(tree: list) -> set[str]:
    """Return the names in a tree."""
    if tree[0] == "name":
        return {tree[1]}
    return set().union(*(variables(part) for part in tree[1:] if isinstance(part, list)), set())


def value(tree: list, point: Point, base_ten: bool = False) -> object:
    """Return a tree's value at a point, in the precision of `mp`; `base_ten` reads a log without a base so.

    Raises:
        ArithmeticError, ValueError: where it has none.
    """
    kind = tree[0]
    if kind == "num":
        top, _, bottom = tree[1].partition("/")
        return mp.mpf(int(top)) / int(bottom or 1)
    if kind == "name":
        return point[tree[1]]
    if kind == "const":
        return {"pi": mp.pi, "e": mp.e, "i": mp.mpc(0, 1), "inf": mp.inf}[tree[1]] + 0
    operands = [value(part, point, base_ten) for part in tree[1:] if isinstance(part, list)]
    return operate(tree[1] if kind == "call" else kind, operands, tree, base_ten)


def operate(operation: str, operands: list, tree: list, base_ten: bool) -> object:
    """Apply one operation to values.

    `operands` are the values, in order. `tree` is the expression that they come from; an unknown function is told by its name there.
    `base_ten` reads a log without a base so.

    Raises:
        ArithmeticError, ValueError: where it has no value, or an operand is too large to go on with.
    """
    first = operands[0]
    # Numbers of so many binary places make functions, exponents and roundings slow; nobody means them.
    judged = () if operation in ("+", "neg", "*", "/", "abs") else operands[1:] if operation == "^" else operands
    if any(mp.isfinite(x) and mp.mag(x) > MAX_MAGNITUDE for x in judged):
        raise ValueError("too large")
    match operation:
        case "+":
            return sum(operands[1:], first)
        case "neg":
            return -first
        case "*":
            return first * operands[1]
        case "/":
            return first / operands[1]
        case "^":
            return mp.power(first, operands[1])
        case "root":
            return real_root(first, operands[1])
        case "ln":
            return mp.log(first)
        case "lg":
            return mp.log10(first)
        case "log":
            return mp.log(first, operands[1]) if len(operands) > 1 else mp.log10(first) if base_ten else mp.log(first)
        case "abs":
            return abs(first)
        case "apply":  # an unknown function: some fixed one, different for each name
            seed = sum(map(ord, tree[2][1]))
            return mp.sin(operands[1] * (seed + mp.mpf(1) / 3)) + operands[1] / seed
        case "arccot" | "arcsec" | "arccsc":
            return getattr(mp, operation[1:].replace("rc", "a", 1))(first)
        case "arcsin" | "arccos" | "arctan" | "arcsinh" | "arccosh" | "arctanh":
            return getattr(mp, "a" + operation[3:])(first)
        case (
            "sin" | "cos" | "tan" | "cot" | "sec" | "csc" | "sinh" | "cosh" | "tanh" | "coth" | "exp" | "floor" | "ceil" | "factorial"
        ):
            return getattr(mp, operation)(first)
        case "binomial":
            return mp.binomial(*operands)
        case "max" | "min":
            return (max if operation == "max" else min)(operands)
    raise ValueError(operation)


def real_root(inside: object, degree: object) -> object:
    """Return the root, the real one where an odd degree gives it."""
    if degree == 3 and not isinstance(inside, mp.mpc) and inside < 0:
        return -mp.root(-inside, 3)
    return mp.sqrt(inside) if degree == 2 else mp.power(inside, 1 / degree)


def points(names: set[str], count: int = POINTS, negative: bool = False) -> Iterator[Point]:
    """Yield random points, the same for the same names."""
    draw = random.Random(" ".join(sorted(names)) + str(negative))
    for _ in range(count):
        numbers = {name: draw.randrange(211, 2999) / 1009 * (draw.choice((-1, 1)) if negative else 1) for name in sorted(names)}
        yield {name: mp.mpf(number) for name, number in numbers.items()}


def close(a: object, b: object, digits: int = AGREE) -> bool:
    """Whether two values agree relatively."""
    if mp.isinf(a) or mp.isinf(b):
        return bool(a == b)
    return bool(abs(a - b) <= mp.mpf(10) ** -digits * max(abs(a), abs(b)))


def equal_at(a: Callable[[], object], b: Callable[[], object]) -> bool | None:
    """Whether two values are equal, seen in two precisions: what shrinks with the rounding error is rounding error."""
    gaps = []
    for digits in DIGITS:
        mp.dps = digits
        left, right = a(), b()
        if mp.isnan(left) or mp.isnan(right):
            raise ValueError("no value")
        if close(left, right):
            return True
        if mp.isinf(left) or mp.isinf(right):
            return False
        gaps.append(abs(left - right))
    if gaps[1] < gaps[0] * mp.mpf(10) ** -AGREE:
        return True
    return False if close(gaps[0], gaps[1], 6) else None


def same(a: list, b: list, base_ten: bool = False) -> bool | None:
    """Whether two trees agree at positive points and, where both are real there, at negative ones."""
    names = variables(a) | variables(b)
    seen = 0
    for negative in (False, True) if names else (False,):
        for point in points(names, POINTS if names else 1, negative):
            try:
                if negative and not all(is_real(value(tree, point)) for tree in (a, b)):
                    continue
                verdict = equal_at(lambda p=point: value(a, p, base_ten), lambda p=point: value(b, p, base_ten))
            except NO_VALUE:
                continue
            if verdict is not True:
                return verdict
            seen += not negative
    return True if seen >= (2 if names else 1) else None


def near(decimal: list, tree: list, places: int, goes_on: bool) -> bool | None:
    """Whether a tree's value rounds to a decimal with so many places, or begins with its digits when they go on.

    `decimal` is the decimal as a tree. `places` counts its digits after the point. `goes_on` says that further digits were left out,
    so that the value may be up to one unit of the last place away, and not half of one.
    """
    mp.dps = DIGITS[0] + abs(places)
    found = value(tree, {})
    if not is_real(found) or not mp.isfinite(found):
        return False
    return bool(abs(mp.re(found) - value(decimal, {})) * (1 if goes_on else 2) <= mp.mpf(10) ** -places)


def is_real(number: object) -> bool:
    """Whether a value has no imaginary part."""
    return not isinstance(number, mp.mpc) or abs(number.imag) <= mp.mpf(10) ** -AGREE * abs(number)


def ratio(a: list, b: list) -> str | None:
    """Return "+" or "-" when a is a positive or negative constant times b, "no" when it is none, None when that stays open."""
    names = variables(a) | variables(b)
    mp.dps = DIGITS[0]
    found = []
    for point in [*points(names), *points(names, negative=True)]:
        try:
            left, right = value(a, point), value(b, point)
            if right == 0 and left == 0:
                continue
            found.append(left / right)
        except NO_VALUE:
            continue
    if len(found) < 2:
        return None
    if found[0] == 0 or not all(close(found[0], other) for other in found):
        return "no"
    return ("+" if found[0].real > 0 else "-") if is_real(found[0]) else "i"


def implies(a: list, b: list) -> bool | None:
    """Whether b vanishes at zeros of a, looked for along each variable; None when none is found."""
    mp.dps = DIGITS[0]
    names = variables(a) | variables(b)
    held = None
    for name in sorted(variables(a)):
        for point in points(names, 2):
            for start in (mp.mpf("0.7"), mp.mpc("-1.3", "0.9")):
                try:
                    root = mp.findroot(lambda x, p=point, n=name: value(a, {**p, n: x}), start, tol=mp.mpf(10) ** -80, maxsteps=80)
                    there = {**point, name: root}
                    scale = abs(value(b, {**there, name: root + mp.mpf("0.1")})) + 1
                    held = abs(value(b, there)) < scale * mp.mpf(10) ** -20
                except (*NO_VALUE, ZeroDivisionError, KeyError):
                    continue
                if not held:
                    return False
    return held


def reply(request: str, *texts: str) -> str:
    """Answer a request by "yes", "no" or "open"; a ratio by its sign."""
    mp.dps = DIGITS[0]
    try:
        a, b = map(json.loads, texts[:2])
        match request:
            case "same":
                verdict = same(a, b)
                if verdict is False and '"log"' in texts[0] + texts[1] and same(a, b, base_ten=True):
                    verdict = None
            case "ratio":
                return ratio(a, b) or "open"
            case "near":
                verdict = near(a, b, int(texts[2]), texts[3] == "1")
            case _:
                verdict = implies(a, b)
    except Exception:  # whatever a library raises over an untrusted text decides nothing
        return "open"
    return {True: "yes", False: "no", None: "open"}[verdict]


if __name__ == "__main__":
    serve(reply, ("same", '["num", "1"]', '["num", "1/2"]'), float(sys.argv[1]), int(sys.argv[2]))
