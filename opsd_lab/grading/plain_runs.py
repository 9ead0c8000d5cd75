r"""The value that the last digit of running text belongs to: a plain number, or the run of an expression around it."""

import re
from typing import NamedTuple

from opsd_lab.grading.numbers import NUMBER, as_number
from opsd_lab.grading.tokens import FUNCTIONS
from opsd_lab.grading.units import KNOWN, MULTIPLES, singular

LOOK_BACK = 200  # characters
# A minus that directly precedes its number, and the operand that would make it a subtraction.
MINUS = re.compile(r"(?P<operand>[0-9)\]}%][ \t]*|[A-Za-z])?[-\u2212]\$?$")
SPACED_MINUS = re.compile(r"(?:\b(?:equals?|is|are|be|was|to|answer|get|gives|result|gets)|[=:])\s*[-\u2212]\s+\$?$", re.I)
TOKEN = re.compile(
    r"(?P<number>[0-9]+(?:[,.][0-9]+)*(?:[eE][-+]?[0-9]+)?|\.[0-9]+)|(?P<word>\\?[A-Za-z]+)|(?P<space>[ \t\u00a0]+)|(?P<sign>.)", re.S
)
TIME = re.compile(r"[0-9]{1,2}(?::[0-9]{1,2}){1,2}$")
HALF_OF_DAY = re.compile(r"\s*[ap]\.?m\b\.?", re.I)
UNIT_POWER = re.compile(
    r"(?P<number>[-+]?\$?[0-9][0-9,]*(?:\.[0-9]+)?(?:/[0-9]+)?)\s*"
    r"(?P<unit>(?:square |cubic )?[A-Za-z]+(?:\s*/\s*[A-Za-z]+)?)\s*\^\s*\{?-?[1-4]$"
)
MIXED = re.compile(
    r"(?<![0-9.,/] )(?<![0-9.,/])[-\u2212]?[0-9]+(?:\s+|\s+and\s+|-)(?:\\frac\{[0-9]+\}\{[0-9]+|(?P<top>[0-9]+)/(?P<bottom>[0-9]+))$"
)
FRACTION = re.compile(r"[-\u2212]?[0-9]*\s?\\frac\{[0-9]+\}\{[0-9]+$")
GROUPS = re.compile(r"(?<![0-9.,]\s)(?<![0-9.,])[-\u2212]?[0-9]{1,3}(?:[ \u00a0][0-9]{3})+$")
TUPLE = re.compile(r"(?<![A-Za-z0-9])\([-\u2212]?[0-9./]+(?:\s*,\s*[-\u2212]?[0-9./]+){1,9}$")
SCIENTIFIC = re.compile(r"[-\u2212]?[0-9.]+\s*(?:x|\*)\s*10\s*\^\s*[{(]?\s*-?[0-9]+$")
RAISES = re.compile(r"[0-9A-Za-z)\]}]\s*(?:\^|\*\*)\s*[{(]?\s*-?[0-9]*$|_\{?[0-9]*$|\\(?:root|cuberoot|sqrt|frac)\b")
MULTIPLE = re.compile(rf"\s+(?:{'|'.join(sorted(set(MULTIPLES) - {'dozen'}))})\b")
NAMED_BY_LETTER = set("mgshlLkKMBbtdcDGTWVAJNp")  # units, or a size such as 5k
CURRENCIES = {"usd", "us", "eur", "gbp", "rs", "no", "cad", "aud"}
OPERATORS = set("+-*/^_!|()[]{}\u2212")


class Piece(NamedTuple):
    """One token of running text."""

    kind: str
    text: str


def last_value(before: str, behind: str) -> str:
    """Return the value whose last digit ends `before`; `behind` is the rest of the text."""
    before = before[max(0, len(before) - 1000) :]
    line = before.rpartition("\n")[2][-LOOK_BACK:]
    if (time := TIME.search(line)) and not re.search(r"[0-9./-]$", line[: time.start()]):
        half = HALF_OF_DAY.match(behind)
        return time.group() + (half.group() if half else "")
    if (unit := UNIT_POWER.search(line)) and (_is_unit(unit["unit"]) or len(unit["unit"]) > 3):
        return _signed(before[: len(before) - len(line)] + line[: unit.start()], unit["number"])
    if (pair := TUPLE.search(line)) and (end := re.match(r"\s*\)", behind)) and as_number(pair.group()[1:]) is None:
        return pair.group() + end.group()
    for pattern in (SCIENTIFIC, MIXED, FRACTION, GROUPS):
        found = pattern.search(line)
        if not found:
            continue
        if pattern is MIXED and found["top"] and not 0 < int(found["top"]) < int(found["bottom"]):
            continue
        closing = re.match(r"[})]*", behind).group() if "{" in found.group() or "(" in found.group() else ""
        if re.search(r"[0-9A-Za-z)}]\s*$", line[: found.start()]) and found.group()[0] in "-\u2212":
            return found.group()[1:] + closing
        return found.group() + closing
    tail = _tail(behind)
    run = _run(line)
    closing = re.match(r"[})\]]*", behind[len(tail) :]).group()
    run = _balanced(_trimmed(line, _balanced(run + tail + closing[: _open_brackets(run)])))
    if tail or not _is_plain(run):
        return run
    multiple = MULTIPLE.match(behind)
    number = _plain(before)
    if behind.startswith("%") or re.match(r"\s*percent\b", behind):
        return number + "%"
    return number + multiple.group() if multiple else number


def _is_unit(words: str) -> bool:
    return all(word in KNOWN or singular(word) in KNOWN for word in re.findall("[A-Za-z]+", words) if word not in ("square", "cubic"))


def _plain(before: str) -> str:
    last = None
    for match in NUMBER.finditer(before):
        last = match
    return _signed(before[: last.start()], last.group())


def _signed(before: str, number: str) -> str:
    number = number.replace(",", "").replace("$", "")
    if number[0] in "-+":
        return number.lstrip("+")
    minus = MINUS.search(before[-80:])
    negative = (minus is not None and minus["operand"] is None) or SPACED_MINUS.search(before[-80:]) is not None
    return ("-" if negative else "") + number


def _tail(behind: str) -> str:
    """Return what is written against the number's right side and belongs to it, such as i, x^n or \\pi."""
    found = re.match(
        r"[ ]?\\pi\b|\s?pi\b|[ ]?\\degree|(?:[a-zA-Z](?![A-Za-z0-9])(?:\^\{?[0-9A-Za-z]+\}?)?)|/[a-z](?![A-Za-z])|\\?![!]", behind
    )
    if found is None or found.group() in NAMED_BY_LETTER or found.group().strip() == "\\degree":
        return ""
    return found.group()


def _run(line: str) -> str:
    """Return the longest run of mathematics at a line's end."""
    pieces = [Piece(found.lastgroup, found.group()) for found in TOKEN.finditer(line)]
    start = len(pieces)
    while start > 0 and _belongs(pieces, start - 1):
        start -= 1
    return "".join(piece.text for piece in pieces[start:]).strip()


def _open_brackets(run: str) -> int:
    return max(0, sum(run.count(mark) for mark in "([{") - sum(run.count(mark) for mark in ")]}"))


def _trimmed(line: str, run: str) -> str:
    """Return a run without the operators before its first operand, but with its sign."""
    lead = re.match(r"[-+\u2212*/^\s]+", run)
    if lead:
        signed = lead.group()[-1:] in "-\u2212" or bool(SPACED_MINUS.search(line[: line.rfind(run[lead.end() : lead.end() + 8])]))
        run = ("-" if signed else "") + run[lead.end() :]
    return run


def _belongs(pieces: list[Piece], at: int) -> bool:
    piece = pieces[at]
    right = pieces[at + 1] if at + 1 < len(pieces) else None
    beyond = pieces[at + 2] if at + 2 < len(pieces) else None
    if piece.kind == "space":
        left = pieces[at - 1] if at else None
        if left is None or right is None:
            return False
        spans = (
            right.text in "+-*/^)\u2212"
            or left.text in "+-*/^(\u2212"
            or left.text.lstrip("\\") in FUNCTIONS | {"root", "cuberoot", "pi"}
        )
        return spans and not (right.text == "-" and left.kind == "word" and len(left.text) > 1 and left.text not in FUNCTIONS)
    if piece.kind == "number":
        return right is None or right.kind != "number"
    if piece.kind == "word":
        name = piece.text.lstrip("\\")
        if name in FUNCTIONS or name in ("pi", "root", "cuberoot", "frac", "theta", "alpha", "beta"):
            return True
        if len(name) > 1 or piece.text[0] == "\\":  # CO2 and x12 are no numbers, USD5 is one
            return right is not None and right.kind == "number" and name.lower() not in CURRENCIES
        if right is not None and right.kind == "space":
            return beyond is not None and beyond.text in OPERATORS - {"(", "[", "{"} and not (name in "aAI" and beyond.text == "-")
        return right is not None and (right.text in OPERATORS or right.kind == "number")
    if piece.text == "*":
        left = next((p for p in reversed(pieces[:at]) if p.kind != "space"), None)
        return (
            left is not None
            and (left.kind != "sign" or left.text in ")]}")
            and (right is None or right.text != "*")
            and left.text != "*"
        )
    return piece.text in OPERATORS


def _balanced(run: str) -> str:
    """Return a run from behind its last bracket that is not closed, or not opened."""
    opened: list[int] = []
    start = 0
    for place, char in enumerate(run):
        if char in "([{":
            opened.append(place)
        elif char in ")]}":
            if opened:
                opened.pop()
            else:
                start = place + 1
    outside = [place for place in opened if place >= start]
    return run[(outside[-1] + 1 if outside else start) :].strip()


def _is_plain(run: str) -> bool:
    """Whether a run is plain numbers with operators, so that its last number is the answer, as in "9 - 4"."""
    if RAISES.search(run) or re.search(r"[A-Za-z^_!|\\]", run):
        return False
    last = re.search(r"[0-9][0-9.,]*(?:/[0-9]+)*$", run)
    if last is None:
        return True
    return (
        NUMBER.fullmatch(last.group()) is not None
        and "(" not in run[last.start() :]
        and not re.search(r"\)\s*/\s*[0-9]+$|/\s*\(", run)
    )
