r"""What stands in brackets: sets, tuples, intervals of every notation, unions, matrices; and cutting at commas outside brackets."""

import functools
import re
from collections.abc import Callable, Iterator
from itertools import pairwise, product

from opsd_lab.grading.dressing import ROW
from opsd_lab.grading.readings import Items, Named, Nothing, Reading, Readings, RealSet, Value
from opsd_lab.grading.tokens import Unreadable
from opsd_lab.grading.trees import Tree, exact

ReadWhole = Callable[[str, bool], Readings]
ReadPart = Callable[[str], Readings]

INFINITY: Tree = ("const", "inf")
MINUS_INFINITY: Tree = ("neg", INFINITY)
OPEN, CLOSE = (
    ("(", "[", "{", "\\{", "\\langle", "\\begin", "\\lfloor", "\\lceil"),
    (")", "]", "}", "\\}", "\\rangle", "\\end", "\\rfloor", "\\rceil"),
)
PIECES = re.compile(r"\\[A-Za-z]+|\\[{}|]|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|.", re.S)
MATRIX = re.compile(r"\\begin\s*\{([pbvVB]|small)?matrix\*?\}(.*)\\end\s*\{(?:[pbvVB]|small)?matrix\*?\}", re.S)
ARRAY = re.compile(r"[(\[]?\s*\\begin\s*\{array\}\s*\{[^{}]*\}(.*)\\end\s*\{array\}\s*[)\]]?", re.S)
REALS = re.compile(r"\\mathbb\s*\{?R\}?|\\R|(?:all |the )?real numbers|all reals|\\Re")
BUILDER = re.compile(r"\\?\{\s*(?P<name>[^|:]+?)\s*(?:\||:)(?P<condition>.+?)\\?\}", re.S)


def at_top(text: str) -> Iterator[tuple[int, str, bool]]:
    """Yield a text's pieces with their places and whether they stand outside all brackets."""
    depth = 0
    for found in PIECES.finditer(text):
        piece = found.group()
        depth -= piece in CLOSE
        yield found.start(), piece, depth <= 0
        depth += piece in OPEN


def split_top(text: str, marks: tuple[str, ...] = (",", ";", "and", "or")) -> tuple[list[str], list[str]]:
    """Return the parts between the marks outside brackets, and the marks; ", and" is one mark, an empty part none."""
    if text.startswith("]"):
        return [text], []
    parts, between, start, mark = [], [], 0, None
    for place, piece, top in [*at_top(text), (len(text), "", True)]:
        if not (top and (piece in marks or place == len(text))):
            continue
        part = text[start:place].strip()
        if part:
            if parts:
                between.append(mark)
            parts.append(part)
            mark = piece
        elif piece in ("and", "or"):
            mark = piece
        start = place + len(piece)
    return parts, between


def enclosed(text: str) -> tuple[str, str, str] | None:
    r"""Return opening, inside and closing when one pair of brackets holds the whole text; ]a, b[ counts."""
    found = re.fullmatch(r"(\\\{|\\langle|[(\[\]{])(.*?)(\\\}|\\rangle|[)\]\[}])", text, re.S)
    if found is None:
        return None
    opening, inside, closing = found.groups()
    if "]" not in opening and closing != "[":
        last = len(text) - len(closing)
        if any(top and piece in CLOSE and place < last for place, piece, top in at_top(text)):
            return None
    return opening, inside.strip(), closing


def read_bracketed(text: str, reference: bool, read_whole: ReadWhole) -> Readings | None:
    """Return the ways to read a set, a tuple, an interval, a union or a matrix; None when it is none of them.

    Raises:
        Unreadable: when it is one whose parts are not understood.
    """
    if REALS.fullmatch(text):
        return Readings((RealSet(((MINUS_INFINITY, False, INFINITY, False),)),))
    if matrix := (MATRIX.fullmatch(text) or ARRAY.fullmatch(text)):
        return Readings((_matrix(matrix.groups()[-1], reference, read_whole),))
    if "\\cup" in text:
        return Readings((_union(split_top(text, ("\\cup",))[0], reference, read_whole),))
    if "\\setminus" in text or re.search(r"\\backslash", text):
        return Readings((_without(text, reference, read_whole),))
    pair = enclosed(text)
    if pair is None:
        return None
    opening, inside, closing = pair
    if opening == "\\{" and (builder := BUILDER.fullmatch(text)):
        return _built(builder, reference, read_whole)
    parts, _ = split_top(inside, (",", ";"))
    # Each part is read once, whatever the pair may be: reading it twice at every level of nested pairs would take for ever.
    read_part = functools.cache(lambda part: read_whole(part, reference))
    if opening in ("\\{", "{") and closing in ("\\}", "}"):
        if opening == "{" and len(parts) < 2:
            return None
        return Readings(tuple(Items("set", items) for items in _versions(parts, read_part)))
    if len(parts) < 2 and not (parts and opening == "\\langle"):
        return read_whole(inside, reference) if opening in "([" and closing in ")]" and "=" in inside else None
    readings: list[Reading] = []
    if (opening, closing) in (("(", ")"), ("\\langle", "\\rangle")):
        readings += [Items("tuple", items) for items in _versions(parts, read_part)]
    elif (opening, closing) == ("[", "]"):
        readings += [Items("brackets", items) for items in _versions(parts, read_part)]
    if len(parts) == 2 and opening in ("(", "[", "]") and (ends := _ends(parts, read_part)):
        interval = RealSet(((ends[0], opening == "[", ends[1], closing == "]"),))
        readings = [interval, *readings] if opening == "[" or closing in "][" or opening == "]" else [*readings, interval]
    if not readings:
        raise Unreadable(text)
    return Readings(tuple(readings))


def _versions(parts: list[str], read_part: ReadPart) -> list[tuple[Reading, ...]]:
    """Return the parts' readings, by the first and by the last way to read each."""
    ways = [read_part(part).sure for part in parts]
    if not all(ways):
        raise Unreadable(parts)
    if len(parts) <= 3:
        return list(dict.fromkeys(product(*(way[:2] for way in ways))))
    return list(dict.fromkeys((tuple(way[0] for way in ways), tuple(way[-1] for way in ways))))


def _ends(parts: list[str], read_part: ReadPart) -> tuple[Tree, Tree] | None:
    ends = []
    for part in parts:
        value = next((way for way in read_part(part.removeprefix("+").strip()).sure if isinstance(way, Value)), None)
        if value is None:
            return None
        ends.append(value.tree)
    return ends[0], ends[1]


def _matrix(body: str, reference: bool, read_whole: ReadWhole) -> Items:
    rows = [row for row in body.split(ROW) if row.strip()]
    cells = [[cell.strip() for cell in row.split("&")] for row in rows]
    if not cells or len({len(row) for row in cells}) > 1:
        raise Unreadable(body)
    ways = [read_whole(cell, reference).sure for row in cells for cell in row if cell or not cells]
    if not all(ways) or len(ways) != len(cells) * len(cells[0]):
        raise Unreadable(body)
    return Items("matrix", tuple(way[0] for way in ways), len(cells))


def _union(parts: list[str], reference: bool, read_whole: ReadWhole) -> Reading:
    sets: list[Reading] = []
    for part in parts:
        ways = read_whole(part, reference).sure
        found = next((way for way in ways if isinstance(way, RealSet)), None) or next(
            (way for way in ways if isinstance(way, Items)), None
        )
        if found is None:
            raise Unreadable(part)
        sets.append(found)
    pieces: list = []
    for found in sets:
        if isinstance(found, RealSet):
            pieces += found.pieces
        else:  # {a} is [a, a]
            if not all(isinstance(item, Value) for item in found.items):
                raise Unreadable(parts)
            pieces += [(item.tree, True, item.tree, True) for item in found.items]
    if all(isinstance(found, Items) for found in sets):
        return Items("set", tuple(item for found in sets for item in found.items))
    return RealSet(tuple(pieces), next((found.name for found in sets if isinstance(found, RealSet) and found.name), None))


def _without(text: str, reference: bool, read_whole: ReadWhole) -> Reading:
    whole, holes = re.split(r"\\setminus|\\backslash", text, maxsplit=1)
    if not REALS.fullmatch(whole.strip()):
        raise Unreadable(text)
    items = next((way.items for way in read_whole(holes.strip(), reference).sure if isinstance(way, Items)), None)
    if not items or not all(isinstance(item, Value) and exact(item.tree) is not None for item in items):
        raise Unreadable(text)  # which of them is the larger is not known here
    return RealSet(around([item.tree for item in items]))


def around(holes: list[Tree]) -> tuple:
    """Return the intervals that are left of the real line without some rational numbers."""
    marks = [MINUS_INFINITY, *sorted(set(holes), key=exact), INFINITY]
    return tuple((low, False, high, False) for low, high in pairwise(marks))


def _built(builder: re.Match[str], reference: bool, read_whole: ReadWhole) -> Readings:
    condition = re.sub(r"^\s*[A-Za-z]\s*\\in\s*(?:\\mathbb\s*\{?R\}?|\\R)\s*,", "", builder["condition"])
    condition = re.sub(r",\s*[A-Za-z]\s*\\in\s*(?:\\mathbb\s*\{?R\}?|\\R)\s*$", "", condition).strip()
    name = re.sub(r"\\in\s*(?:\\mathbb\s*\{?R\}?|\\R)\s*$", "", builder["name"]).strip()
    sure = read_whole(condition, reference).sure
    found = tuple(RealSet(way.pieces) for way in sure if isinstance(way, RealSet) and way.name == name)
    found += tuple(
        Items("set", (way.reading,)) for way in sure if isinstance(way, Named) and isinstance(way.reading, Value) and way.name == name
    )
    if not found and not any(isinstance(way, Nothing) for way in sure):
        raise Unreadable(condition)
    return Readings(found)
