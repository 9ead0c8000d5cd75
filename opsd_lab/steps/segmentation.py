"""A text cut into lines, sentences, equations, or what is thought and what is answered."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

from opsd_lab.steps.arithmetic import arithmetic_steps
from opsd_lab.steps.mathematics import math_spans
from opsd_lab.steps.step import Step, StepKind

Cut = Literal["lines", "sentences", "equations", "think"]

LINE = re.compile(r"[^\r\n]+")
BLANK_LINE = re.compile(r"\n[^\S\n]*\n")
# Marks that may end a sentence, with the quotes, brackets and delimiters of mathematics that close behind them. Each part is
# possessive, so that long runs of marks take linear time.
CLOSERS = r"[)\]}\"'’”»」』*_`]*+"
SENTENCE_END = re.compile(
    r"(?<![.?!…؟۔।。！？])(?P<mark>[.?!…؟۔।。！？]++)"
    rf"(?P<close>{CLOSERS}(?:\$\$?|[ \t\n]*+\\\]|[ \t]*+\\\))?+{CLOSERS})(?P<blank>\s++|\Z|(?<=[。！？」』]))"
)
ABBREVIATION = re.compile(
    r"\b(?:(?i:e\.g|i\.e|w\.r\.t|s\.t|vs|cf|resp|approx|viz)|Drs?|Mrs?|Ms|Prof|Jr|Sr|Figs?|Eqs?|Thm|Lem|Prop|Cor|Sec|Ch|St)\Z"
)
BEFORE_A_NUMBER = re.compile(
    r"\b(?:Nos?|nos?|pp?|[Vv]ols?|[Ee]x|[Pp]robs?|eqs?|figs?|ch|sec|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\Z"
)
# Units behind a number: "5 sq. ft. each", "3 ft. 4 in. tall".
UNIT = re.compile(
    r"(?:[0-9½¼¾⅓⅔]|\b(?:sq|cu)\.?)[ ]?(?:sq|cu|ft|in|yds?|mi|oz|lbs?|gals?|qts?|pts?|tbsp|tsp|mins?|secs?|hrs?|h|wks?|mos?|yrs?|km"
    r"|cm|mm|m|kg|mg"
    r"|g|ml|l|doz|pcs|deg|max|min|avg)\Z"
)
BEFORE_LOWER_CASE = re.compile(r"\b(?:etc|al|a\.m|p\.m|U\.S)\Z")  # abbreviations that a sentence may end with
GOES_ON = re.compile(r"[=+*/^<>≤≥≠×÷·,;:)\]}]")  # what never begins a sentence
ITEM = re.compile(r"^[ \t]*(?:[-*+•]|\(?[0-9]{1,3}(?P<dot>[.)])|\#{1,6})[ \t]+", re.MULTILINE)
OUTDENTED = re.compile(r"\n(?=\S)")
NUMBERED = re.compile(r"(?:(?<=[.:;!?,][ \t])|^[ \t]*+)\(?(?P<number>[0-9]{1,3})(?P<dot>[.)])(?=[ \t])", re.MULTILINE)
# What opens a model's thinking, and what closes it.
THINKING = {
    **{f"<{name}>": f"</{name}>" for name in ("think", "thinking", "thought", "reasoning", "seed:think")},
    "[THINK]": "[/THINK]",
    "◁think▷": "◁/think▷",
    "<|begin_of_thought|>": "<|end_of_thought|>",
    "<|START_THINKING|>": "<|END_THINKING|>",
}
CHANNEL = "<|channel|>analysis"
OPENED = re.compile("|".join(map(re.escape, [*THINKING, CHANNEL])))
CLOSED = {opened: re.compile(re.escape(closed)) for opened, closed in THINKING.items()}
CLOSED[CHANNEL] = re.compile(r"<\|end\|>|(?=<\|start\|>|<\|channel\|>(?!analysis))")
TAG = re.compile("|".join(map(re.escape, [*THINKING.values(), *THINKING, CHANNEL])))
LOOK_BACK = 16  # characters; longer than any abbreviation


@dataclass(frozen=True)
class Segment:
    """The characters of a text from `start` up to, without, `end`; the first and the last of them are visible."""

    start: int
    end: int
    kind: StepKind


def segments(text: str, by: Cut) -> list[Segment]:
    r"""Cut a text into disjoint segments, in order; white space at their edges belongs to none, and blank ones are left out.

    "lines". "sentences": they end with . ? ! … (or their Arabic, Devanagari and full-width forms), at an empty line, around the
    items of a list and headings, and where thinking begins and ends, but not inside numbers, after common abbreviations, or inside
    $...$, $$...$$, \(...\) and \[...\]. "equations": what `arithmetic_steps` finds. "think": thinking with its marks (`<think>`,
    `<thinking>`, `[THINK]`, `◁think▷`, `<|channel|>analysis` and the others of `THINKING`) is a segment of kind "think", what lies
    outside one of kind "answer"; thinking that is never closed goes to the end, and a `</think>` that was never opened closes what
    the prompt opened. Except for "equations" every visible character is in a segment.

    Raises:
        ValueError: for another way to cut.
    """
    match by:
        case "lines":
            return [Segment(*_stripped(text, *line.span()), "line") for line in LINE.finditer(text) if line.group().strip()]
        case "sentences":
            return list(_pieces(text, _sentence_edges(text), "sentence"))
        case "equations":
            return [Segment(step.start, step.end, step.kind) for step in arithmetic_steps(text)]
        case "think":
            return [part for start, end, kind in _thoughts(text) for part in _pieces(text, [start, end], kind)]
    raise ValueError(f"segments: by={by!r} is not one of {get_args(Cut)}")


def _stripped(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), end - len(piece) + len(piece.rstrip())


def _pieces(text: str, edges: Sequence[int], kind: StepKind) -> Iterator[Segment]:
    for start, end in pairwise(edges):
        if text[start:end].strip():
            yield Segment(*_stripped(text, start, end), kind)


def _sentence_edges(text: str) -> list[int]:
    edges = {0, len(text)}
    edges.update(match.start() for match in BLANK_LINE.finditer(text))
    outdented = [match.start() for match in OUTDENTED.finditer(text)]
    items = list(ITEM.finditer(text))
    for item in items:
        edges.add(item.start())
        edges.update(outdented[bisect_left(outdented, item.end()) :][:1])
    numbered = _numbered(text)
    edges.update(item.start() for item in numbered)
    edges.update(edge for start, end, _ in _thoughts(text) for edge in (start, end))
    dots = {item.start("dot") for item in [*items, *numbered]}
    edges.update(match.end("close") for match in SENTENCE_END.finditer(text) if match.start() not in dots and _ends(text, match))
    spans = math_spans(text)
    starts = [start for start, _ in spans]
    inside = {edge for edge in edges if (at := bisect_left(starts, edge) - 1) >= 0 and edge < spans[at][1]}
    return sorted(edges - inside)


def _numbered(text: str) -> list[re.Match[str]]:
    """Return the numbers 1., 2., ... of lists that are written within a line."""
    found: list[re.Match[str]] = []
    counted: list[re.Match[str]] = []
    for match in NUMBERED.finditer(text):
        number = int(match["number"])
        goes_on = bool(counted) and number == len(counted) + 1 and "\n" not in text[counted[-1].end() : match.start()]
        if not goes_on and len(counted) > 1:
            found += counted
        counted = [*counted, match] if goes_on else [match] if number == 1 else []
    return found + (counted if len(counted) > 1 else [])


def _ends(text: str, match: re.Match[str]) -> bool:
    mark, following = match["mark"], text[match.end() : match.end() + 1]
    before = text[max(0, match.start() - LOOK_BACK) : match.start()]
    if GOES_ON.match(following) or (mark == "." and ABBREVIATION.search(before)):
        return False
    if not following or "\n" in match["blank"]:
        return True
    if mark == "." and following.isdigit() and (BEFORE_A_NUMBER.search(before) or UNIT.search(before)):
        return False
    # "etc." goes on in lower case; so do "1 + ... + 9" and "5! - 3".
    if mark in ("!", "…") or mark.startswith("..") or (mark == "." and (BEFORE_LOWER_CASE.search(before) or UNIT.search(before))):
        return not following.islower() and following not in "-\u2212"
    return True


def _thoughts(text: str) -> Iterator[tuple[int, int, StepKind]]:
    at = 0
    first = TAG.search(text)
    if first is not None and not OPENED.fullmatch(first.group()):
        yield 0, first.end(), "think"
        at = first.end()
    while opened := OPENED.search(text, at):
        yield at, opened.start(), "answer"
        closed = CLOSED[opened.group()].search(text, opened.end())
        at = closed.end() if closed is not None else len(text)
        yield opened.start(), at, "think"
    yield at, len(text), "answer"


def label_segments(text: str, segments: Sequence[Segment], equations: Sequence[Step]) -> list[Step]:
    """Return the segments as steps, each labelled by the equations that begin in it.

    A segment is "incorrect" if one of them is; "correct" if there are some and all are; else "unverifiable". Its source is that
    of the equation that decided: the first incorrect one, else the first unverifiable one, else the first; "" where there is
    none.
    """
    starts = [segment.start for segment in segments]
    inside: list[list[Step]] = [[] for _ in segments]
    for equation in equations:
        at = bisect_right(starts, equation.start) - 1
        if at >= 0 and equation.start < segments[at].end:
            inside[at].append(equation)
    steps = []
    for segment, found in zip(segments, inside, strict=True):
        ranked = (equation for label in ("incorrect", "unverifiable", "correct") for equation in found if equation.label == label)
        decided = next(ranked, None)
        label, source = (decided.label, decided.source) if decided else ("unverifiable", "")
        steps.append(Step(segment.start, segment.end, text[segment.start : segment.end], label, source, segment.kind))
    return steps
