"""Where the answer that is graded stands in a completion."""

import re

from opsd_lab.grading.boxes import Box, find_boxes, joined_boxes
from opsd_lab.grading.found import after_thinking, find_answers
from opsd_lab.grading.numbers import NUMBER

Span = tuple[int, int]

BETWEEN = r"(?:[\s,$*{}]|\\[,;! ])*"  # what may stand between the characters of an answer that was read without it


def answer_spans(text: str) -> list[Span]:
    """Return where the final answer that `find_answers` reads stands: what its boxes hold, else each digit of its number.

    Thinking is passed over as it is there. An empty list means that there is no answer.
    """
    boxed, number = find_answers(text)
    answer = boxed if boxed is not None else number
    if answer is None:
        return []
    part = after_thinking(text)
    if find_answers(part) == (None, None):
        part = text
    start = len(text) - len(part)
    if boxed is not None:
        return [(start + low, start + high) for box in _boxes(part, boxed) for low, high in [_content(part, box)]]
    characters = BETWEEN.join(re.escape(character) for character in answer if not character.isspace())
    matches = list(re.finditer(characters, part)) or list(NUMBER.finditer(part))
    places = range(*matches[-1].span()) if matches else ()
    return [(start + i, start + i + 1) for i in places if part[i].isdigit()]


def _boxes(text: str, answer: str) -> list[Box]:
    """Return the boxes that make up the last answer."""
    boxes = find_boxes(text)
    first = max(i for i in range(len(boxes)) if answer in joined_boxes(text, boxes[i:])[:1])
    return [box for box in boxes[first:] if box.content in answer]


def _content(text: str, box: Box) -> Span:
    place = text.rfind(box.content, box.start, box.end)
    if place >= 0:
        return place, place + len(box.content)
    return text.index("{", box.start) + 1, box.end - 1  # a box in a box was unwrapped
