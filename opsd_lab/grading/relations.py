"""Equations and inequalities: values with a name, intervals in disguise, and what can only be held against another relation."""

import re

from opsd_lab.grading.brackets import INFINITY, MINUS_INFINITY, ReadWhole, at_top
from opsd_lab.grading.expressions import parse_expression
from opsd_lab.grading.readings import Items, Named, Reading, Readings, RealSet, Relation, Value
from opsd_lab.grading.tokens import Unreadable
from opsd_lab.grading.trees import Tree, exact, names

SIGN_NAMES = {
    "=": "=", "==": "=", "\\approx": "=", "<": "<", ">": ">", "\\le": "<=", "<=": "<=", "=<": "<=", "\\ge": ">=", ">=": ">=",
    "\\ne": "!=", "!=": "!=", "\\in": "in",
}  # fmt: skip
SIGN = re.compile(r"\\(?:approx|le|ge|ne|in)(?![A-Za-z])|<=|>=|=<|!=|==|=|<|>")
FLIPPED = {">": "<", ">=": "<="}
NAME = re.compile(  # of a value: x, a_1, f(2), AB, area, the area, (x, y), m\\angle ABC, P(A), |AB|
    r"(?:[A-Za-z]|\\[A-Za-z]+)(?:_\{?[A-Za-z0-9]+\}?)?'*(?:\([^()]*\))?|[A-Z]{2,3}|[A-Za-z]{4,}|[A-Za-z]{2,}(?: [A-Za-z]+)+"
    r"|\([a-z](?:, ?[a-z])+\)|\\?\|?\\?overline\{?[A-Z]{2}\}?\|?|(?:m ?)?\\angle ?[A-Z]{1,3}|P\([^()]*\)|\|[A-Z]{2}\|"
)
LETTER = re.compile(r"(?:[A-Za-z]|\\[A-Za-z]+)(?:_\{?[A-Za-z0-9]+\}?)?'*")


def _places(text: str) -> list[tuple[int, str]]:
    outside = {place for place, _, top in at_top(text) if top}
    return [(found.start(), found.group()) for found in SIGN.finditer(text) if found.start() in outside]


def has_relation(text: str) -> bool:
    """Whether a sign of equality, order or membership stands outside brackets."""
    return bool(_places(text))


def read_relation(text: str, reference: bool, read_whole: ReadWhole) -> Readings:
    """Return the ways to read an equation, an inequality or a chain of them.

    Raises:
        Unreadable: when a side is not understood, or signs point in different directions.
    """
    places = _places(text)
    starts = [0, *(place + len(sign) for place, sign in places)]
    ends = [*(place for place, _ in places), len(text)]
    sides = [text[start:end].strip() for start, end in zip(starts, ends, strict=True)]
    signs = [SIGN_NAMES[sign] for _, sign in places]
    if set(signs) == {"="}:
        return _equation(sides, reference, read_whole)
    if signs == ["in"]:
        ways = read_whole(sides[1], reference).sure
        return Readings(tuple(RealSet(w.pieces, sides[0]) if isinstance(w, RealSet) else Named(sides[0], w) for w in ways))
    if signs == ["!="]:
        return Readings((_unequal(sides),))
    return Readings((_inequality(sides, signs),))


def _equation(sides: list[str], reference: bool, read_whole: ReadWhole) -> Readings:
    if not sides[0]:
        return read_whole(sides[-1], reference)
    named = [side for side in sides if NAME.fullmatch(side) and not side.startswith("\\frac")]
    if len(sides) == 2 and len(named) == 2:
        if not any(len(side) > 3 for side in named):
            return Readings((Relation(tuple(map(parse_expression, sides)), ("=",)),))
        named = named[:1]
    others = [side for side in sides if side not in named]
    if named and others and all(_free(other, named) for other in others):
        ways = read_whole(others[-1], reference)
        if len(named) == 1:
            return Readings(
                tuple(Named(_name(named[0]), w) for w in ways.sure), tuple(Named(_name(named[0]), w) for w in ways.doubtful)
            )
        return Readings((Items("list", tuple(Named(_name(name), ways.sure[0]) for name in named)),))
    trees = tuple(_tree(side) for side in sides)
    if not any(map(names, trees)):
        return read_whole(sides[-1], reference)
    if len(trees) > 2:
        if not names(trees[-1]):
            return read_whole(sides[-1], reference)
        raise Unreadable(sides)
    return Readings((Relation(trees, ("=",)),))


def _free(text: str, named: list[str]) -> bool:
    letters = {name for name in named if LETTER.fullmatch(name)}
    try:
        return not letters & names(parse_expression(text))
    except Unreadable:
        return True


def _name(text: str) -> str:
    return re.sub(r"[\s{}]", "", text)


def _tree(side: str) -> Tree:
    return parse_expression(re.sub(r"(?<=[0-9]),(?=[0-9]{3})", "", side))


def _letter(side: str, tree: Tree) -> bool:
    return tree[0] == "name" and bool(LETTER.fullmatch(side))


def _unequal(sides: list[str]) -> Reading:
    left, right = map(_tree, sides)
    if _letter(sides[0], left) and left[1] not in names(right):
        return RealSet(((MINUS_INFINITY, False, right, False), (right, False, INFINITY, False)), left[1])
    return Relation((left, right), ("!=",))


def _inequality(sides: list[str], signs: list[str]) -> Reading:
    if set(signs) <= {">", ">="}:
        sides, signs = sides[::-1], [FLIPPED[sign] for sign in signs[::-1]]
    if not set(signs) <= {"<", "<="}:
        raise Unreadable(signs)
    if len(sides) == 2 and "" in sides:
        low, high = (MINUS_INFINITY, _tree(sides[1])) if not sides[0] else (_tree(sides[0]), INFINITY)
        return RealSet(((low, signs == ["<="] and bool(sides[0]), high, signs == ["<="] and not sides[0]),))
    trees = [_tree(side) for side in sides]
    closed = [sign == "<=" for sign in signs]
    for at, tree in enumerate(trees):
        others = trees[:at] + trees[at + 1 :]
        if not _letter(sides[at], tree) or any(tree[1] in names(other) for other in others):
            continue
        if len(trees) == 2 and not (names(others[0]) and _letter(sides[1 - at], others[0])):
            piece = (MINUS_INFINITY, False, others[0], closed[0]) if at == 0 else (others[0], closed[0], INFINITY, False)
            return RealSet((piece,), tree[1])
        if len(trees) == 3 and at == 1 and not any(map(names, others)):
            return RealSet(((others[0], closed[0], others[1], closed[1]),), tree[1])
    return Relation(tuple(trees), tuple(signs))


def joined(spans: list[RealSet], marks: list[str]) -> RealSet | None:
    """Return the one set that several, with "and", "or" or commas between them, stand for; None when that is open."""
    if len({span.name for span in spans}) > 1:
        return None
    name = spans[0].name
    pieces = tuple(piece for span in spans for piece in span.pieces)
    if name is None or set(marks) == {"or"}:
        return RealSet(pieces, name)
    if len(pieces) != 2 or "or" in marks:
        return None
    below = next((piece for piece in pieces if piece[0] == MINUS_INFINITY), None)
    above = next((piece for piece in pieces if piece[2] == INFINITY), None)
    if below is None or above is None:
        return None
    low, high = exact(above[0]), exact(below[2])
    if marks == ["and"] or (low is not None and high is not None and low <= high):
        return RealSet(((above[0], above[1], below[2], below[3]),), name)
    return RealSet(pieces, name) if low is not None and high is not None else None


def relation_of(reading: Reading) -> Relation | None:
    """Return a relation as it is, and a named value such as y = 2x + 1 as the equation that it is; else None."""
    if isinstance(reading, Relation):
        return reading
    if (
        isinstance(reading, Named)
        and isinstance(reading.reading, Value)
        and LETTER.fullmatch(reading.name)
        and reading.name not in ("e", "i")
    ):
        try:
            return Relation((parse_expression(reading.name), reading.reading.tree), ("=",))
        except Unreadable:
            return None
    return None
