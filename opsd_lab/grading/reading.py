"""From an answer's text to the ways to read it: first what kind of thing it is, then its parts."""

import functools
import re
from contextlib import suppress
from fractions import Fraction
from itertools import pairwise

from opsd_lab.grading.brackets import read_bracketed, split_top
from opsd_lab.grading.dressing import UPRIGHT, undressed
from opsd_lab.grading.numbers import MAX_ANSWER, MAX_ENTRIES, as_number
from opsd_lab.grading.readings import DOTS, Broken, Choice, Items, Named, Nothing, Reading, Readings, RealSet, Value
from opsd_lab.grading.relations import has_relation, joined, read_relation
from opsd_lab.grading.tokens import Unreadable
from opsd_lab.grading.trees import exact, with_signs
from opsd_lab.grading.values import DANGLING, read_value
from opsd_lab.grading.wording import NUMBER_WORDS, read_choice, read_clock, read_ratio, read_truth, read_words, without_lead

COMMA_DECIMAL = re.compile(r"[-+]?(?:0,[0-9]+|[0-9]+,(?:[0-9]{2}|[0-9]{4,})|[0-9]{1,3}(?:\.[0-9]{3})+,[0-9]+)")
EITHER = re.compile(r",?\s+or (?:equivalently|approximately|about|in other words|an equivalent form(?: such as)?),?\s+")
REMARK = re.compile(r"^(.*[0-9A-Za-z)}%])\s+\((?:i\.e\.|[A-Za-z]{2,})[A-Za-z ,.;'-]*\)$", re.S)
CONCLUSION = re.compile(r"(?<=[0-9)}A-Za-z])\s+is (?:the|our|my) [a-z ]{3,40}$")
NONE_AT_ALL = re.compile(
    r"\\emptyset|(?:there (?:is|are) )?no(?: real| integer| such)? (?:solutions?|values?|answers?|numbers?)(?: exists?)?"
    r"|none|(?:the )?empty set|no solutions? exist",
    re.I,
)


@functools.lru_cache(maxsize=4096)
def read(text: str, reference: bool = False) -> Readings:
    """Return the ways to read an answer; none when it is longer than `MAX_ANSWER` or not understood."""
    if len(text) > MAX_ANSWER:
        return Readings(())
    plain = without_lead(undressed(text))
    plain = CONCLUSION.sub("", REMARK.sub(r"\1", plain)).strip()
    if not plain:
        return Readings(())
    try:
        ways = [_read(without_lead(version.strip()), reference) for version in EITHER.split(plain)]
        if not all(_may_be_one(*pair) for pair in pairwise(way.sure[0] for way in ways if way.sure)):
            return Readings(())
        return Readings(tuple(r for way in ways for r in way.sure), tuple(r for way in ways for r in way.doubtful))
    except RecursionError:
        return Readings(())


def _may_be_one(one: Reading, other: Reading) -> bool:
    """Whether two versions of an answer can be the same: two different ones are a guess at each of them."""
    one, other = (way.reading if isinstance(way, Named) else way for way in (one, other))
    if isinstance(one, Items) and isinstance(other, Items) and one.kind == other.kind:
        return len(one.items) == len(other.items) and all(map(_may_be_one, one.items, other.items))
    if not isinstance(one, Value) or not isinstance(other, Value) or (one.unit, one.percent) != (other.unit, other.percent):
        return True
    values = [exact(way.tree) for way in (one, other)]
    places = [way.places for way in (one, other) if way.places is not None]
    rounding = Fraction(1, 2) / 10 ** min(places) if places else 0
    return None in values or abs(values[0] - values[1]) <= rounding


def _read(plain: str, reference: bool) -> Readings:
    upright = plain.replace(UPRIGHT, "")
    if NONE_AT_ALL.fullmatch(upright):
        return Readings((Nothing(),))
    if (truth := read_truth(upright)) is not None:
        return Readings((truth,))
    sure: list[Reading] = []
    doubtful: list[Reading] = []
    choice, rest = read_choice(upright)
    if choice is not None:
        sure.append(choice)
        if rest:
            found = _read(without_lead(undressed(rest)), reference) if rest != plain else Readings(())
            return Readings((*sure, *found.sure), found.doubtful)
    if (clock := read_clock(upright)) is not None:
        sure.append(clock)
    if COMMA_DECIMAL.fullmatch(plain) and not re.search(r",[0-9]*0$", plain):
        point = plain.replace(".", "").replace(",", ".")
        sure += read_value(point, reference).sure
    try:
        found = read_whole(plain, reference)
        sure += found.sure
        doubtful += found.doubtful
    except Unreadable:
        if not sure and not reference and DANGLING.fullmatch(plain) and _readable(plain.rstrip("-+*/^= ")):
            return Readings((Broken(),))
    if re.fullmatch("[a-df-hj]", plain):  # (c) in lower case is a choice; a bare c may be one
        doubtful.append(Choice(plain.upper()))
    if not sure and (words := read_words(upright)) is not None:
        sure.append(words)
        if words.text in NUMBER_WORDS:
            sure.append(Value(("num", NUMBER_WORDS[words.text])))
    return Readings(tuple(sure), tuple(doubtful))


def _readable(text: str) -> bool:
    try:
        return bool(read_whole(text, reference=True).sure)
    except Unreadable:
        return False


def read_whole(text: str, reference: bool) -> Readings:
    """Return the ways to read an answer that is one thing, or several with commas, "and" or "or" between them.

    Raises:
        Unreadable: when any part is not understood.
    """
    text = text.strip()
    if text == r"\ldots":
        return Readings((DOTS,))
    if as_number(text) is not None:
        return read_value(text, reference)
    if "\\begin" not in text and re.fullmatch(r"[-+]?[0-9]+\s+and\s+(?:[0-9]+/[0-9]+|\\frac.*)", text):
        return read_value(text, reference)
    parts, separators = split_top(text)
    if len(parts) > MAX_ENTRIES:
        raise Unreadable("too many entries")
    if len(parts) > 1:
        if re.match(r"[0-9]+ [A-Za-z]+,? (?:and )?[0-9]+ [A-Za-z]", text):
            with suppress(Unreadable):
                return read_value(text, reference)
        return _several(parts, separators, reference)
    return _single(text, reference)


def _several(parts: list[str], separators: list[str], reference: bool) -> Readings:
    ways = [read_whole(part, reference) for part in parts]
    if not all(way.sure for way in ways):
        raise Unreadable(parts)
    spans = [way.sure[0] for way in ways]
    if all(isinstance(span, RealSet) for span in spans) and (whole := joined(spans, separators)) is not None:
        return Readings((whole,))
    firsts, lasts = tuple(way.sure[0] for way in ways), tuple(way.sure[-1] for way in ways)
    versions = dict.fromkeys((_flat(firsts), _flat(lasts)))
    # An unknown unit may stand at the last entry only: "3, 4 and 5 apples".
    return Readings(tuple(Items("list", version) for version in versions))


def _flat(readings: tuple[Reading, ...]) -> tuple[Reading, ...]:
    """Join lists within a list, and drop a name that all entries share."""
    flat: list[Reading] = []
    for reading in readings:
        flat += reading.items if isinstance(reading, Items) and reading.kind == "list" else [reading]
    names = {entry.name if isinstance(entry, Named) else None for entry in flat}
    if len(names - {None}) == 1 and isinstance(flat[0], Named):
        flat = [entry.reading if isinstance(entry, Named) else entry for entry in flat]
        flat = list(_flat(tuple(flat))) if any(isinstance(entry, Items) and entry.kind == "list" for entry in flat) else flat
    return tuple(flat)


def _single(text: str, reference: bool) -> Readings:
    bracketed = read_bracketed(text, reference, read_whole)
    if bracketed is not None:
        return bracketed
    if has_relation(text):
        return read_relation(text, reference, read_whole)
    if (ratio := read_ratio(text)) is not None:
        return Readings((ratio,))
    found = read_value(text, reference)
    return Readings(tuple(map(_both_signs, found.sure)), tuple(map(_both_signs, found.doubtful)))


def _both_signs(value: Value) -> Reading:
    trees = with_signs(value.tree)
    if len(trees) == 1:
        return value
    return Items("list", tuple(Value(tree, unit=value.unit) for tree in trees))
