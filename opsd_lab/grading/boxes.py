r"""Answers in \boxed{...}, in time linear in the text."""

import re
from dataclasses import dataclass

BRACES = re.compile(r"\\(?:fbox|boxed)\s*\{|\\\\(?=[{}])|\\[{}]|[{}]")
JOINER = re.compile(
    r"\s|\\(?:text|mbox|textrm)?(?=\{)|[{}]|\$|\\[,;:! ()\[\]]|\\q?quad|\\(?:text|mbox|textrm|textbf|mathrm)(?![A-Za-z])|&|~"
)
JOINS = re.compile(r"(?:,|;|and|or|,and|,or)*", re.I)
DENIED = re.compile(r"\b(?:not|isn't|never|rather than|instead of)\s+(?:\$|\\\(|\s)*$", re.I)
LONGEST_GAP = 60


@dataclass(frozen=True)
class Box:
    """One outermost box: where it lies in the text, and its content, boxes in it unwrapped."""

    start: int
    end: int
    content: str


def find_boxes(text: str) -> list[Box]:
    """Return the outermost boxes whose braces balance, in order; a blank one holds no answer and is left out."""
    opened: list[tuple[int, int] | None] = []  # for a box's brace where it and its content start, for any other None
    closed: list[tuple[int, int, int, int]] = []
    for mark in BRACES.finditer(text):
        match mark.group():
            case r"\{" | r"\}" | r"\\":
                continue
            case "{":
                opened.append(None)
            case "}":
                start = opened.pop() if opened else None
                if start is not None:
                    closed.append((*start, mark.start(), mark.end()))
            case _:
                opened.append((mark.start(), mark.end()))
    closed.sort()
    boxes, end = [], -1
    inner: list[tuple[int, int]] = []
    outer: tuple[int, int, int, int] | None = None
    for box in [*closed, (len(text) + 1,) * 4]:
        if box[0] >= end:
            if outer is not None and (content := _content(text, outer, inner)):
                boxes.append(Box(outer[0], outer[3], content))
            outer, inner, end = box, [], box[3]
        else:
            inner += [(box[0], box[1]), (box[2], box[3])]
    return boxes


def _content(text: str, outer: tuple[int, int, int, int], inner: list[tuple[int, int]]) -> str:
    pieces, at = [], outer[1]
    for start, end in sorted(inner):
        pieces.append(text[at:start])
        at = end
    return "".join([*pieces, text[at : outer[2]]]).strip()


def joined_boxes(text: str, boxes: list[Box]) -> list[str]:
    r"""Return the answers that boxes give: those with only a comma, "and", "or" or \quad between them are one."""
    answers: list[list[str]] = []
    for before, box in zip([None, *boxes], boxes, strict=False):
        gap = text[before.end : box.start] if before else ""
        if before and answers and len(gap) <= LONGEST_GAP and _joins(gap):
            if box.content not in answers[-1]:
                answers[-1].append(box.content)
        elif not DENIED.search(text[max(0, box.start - 30) : box.start]) or not answers:
            answers.append([box.content])
    return [", ".join(parts) for parts in answers]


def _joins(gap: str) -> bool:
    bare = JOINER.sub("", gap)
    return bool(JOINS.fullmatch(bare)) and (bool(bare) or "quad" in gap or "&" in gap)


def extract_boxed(text: str) -> str | None:
    r"""Return the last answer in \boxed{...} or \fbox{...} whose braces balance; None if there is none.

    Boxes joined by commas, "and", "or" or \quad are one answer with commas; a box within a box is unwrapped; one that a "not"
    precedes does not count. Takes time linear in the text.
    """
    answers = joined_boxes(text, find_boxes(text))
    return answers[-1] if answers else None
