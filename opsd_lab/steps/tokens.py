"""Where the steps of a text lie in its tokens. `tokens` are always the texts whose concatenation is the steps' text."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Literal

from opsd_lab.steps.step import Step

ErrorPhase = Literal["before", "first_error", "after"]


def token_steps(tokens: Sequence[str], steps: Sequence[Step]) -> tuple[list[int], list[str]]:
    """Return for each token the index of its step (-1: in none) and that step's label ("": in none).

    `tokens` are the texts whose concatenation the steps were found in. A token belongs to the first step that any of
    its visible characters lies in; blank tokens belong to a step that they lie in as a whole.

    Raises:
        ValueError: when a step's text is not what the joined tokens hold at its place.
    """
    text = "".join(tokens)
    owner = [-1] * len(text)
    for index, step in reversed(list(enumerate(steps))):
        if text[step.start : step.end] != step.text:
            raise ValueError(
                f"step {index} is {step.text!r}, but the joined tokens hold {text[step.start : step.end]!r} at "
                f"[{step.start}, {step.end}); find the steps in the very text that the tokens make up"
            )
        owner[step.start : step.end] = [index] * len(step.text)
    numbers: list[int] = []
    start = 0
    for token in tokens:
        inside = range(start, start + len(token))
        owners = [owner[i] for i in inside if not text[i].isspace()] or [min((owner[i] for i in inside), default=-1)]
        numbers.append(next((number for number in owners if number >= 0), -1))
        start += len(token)
    return numbers, [steps[number].label if number >= 0 else "" for number in numbers]


def error_phases(tokens: Sequence[str], steps: Sequence[Step]) -> list[ErrorPhase]:
    """Place each token relative to the first incorrect of the steps, which are in order.

    "first_error" are the tokens of that step (as `token_steps` gives them, and any without text between them), "before" and
    "after" those on its two sides; without an incorrect step all are "before". A later step is not an error by itself because it
    builds on the mistake: labels are about the step alone, and that it comes after a mistake is what this tells.

    Raises:
        ValueError: as `token_steps` does.
    """
    wrong = next((index for index, step in enumerate(steps) if step.label == "incorrect"), None)
    numbers, _ = token_steps(tokens, steps)
    if wrong is None:
        return ["before"] * len(tokens)
    own = [position for position, number in enumerate(numbers) if number == wrong]
    starts = list(accumulate(map(len, tokens), initial=0))[:-1]
    # A step all of whose tokens begin in an earlier step has none of its own.
    first = own[0] if own else sum(start < steps[wrong].end for start in starts)
    end = own[-1] + 1 if own else first
    return ["before" if i < first else "first_error" if i < end else "after" for i in range(len(tokens))]


def span_tokens(tokens: Sequence[str], start: int, end: int, cut: Literal["error", "widen"] = "error") -> tuple[int, int]:
    """Return the first token of a span of characters [start, end) and the one after its last.

    White space at the edges of the span and of the tokens counts for nothing. A token without text, which is a part of a character
    that a later token completes, belongs to that token. `cut` says what happens where an edge falls between the visible characters
    of a token: "widen" takes the whole token, "error" refuses the span. `start` and `end` count characters of the joined `tokens`.

    Raises:
        ValueError: when the span does not lie in the text, has no visible character, or (with "error") cuts a token in two.
    """
    text = "".join(tokens)
    if not 0 <= start <= end <= len(text):
        raise ValueError(f"the span [{start}, {end}) does not lie in a text of {len(text)} characters; give it in the joined tokens")
    visible = text[start:end].strip()
    if not visible:
        raise ValueError(f"the span [{start}, {end}) holds {text[start:end]!r}, no visible character; widen it to the text it means")
    low = start + len(text[start:end]) - len(text[start:end].lstrip())
    high = low + len(visible)
    ends = list(accumulate(map(len, tokens)))
    first = next(i for i, stop in enumerate(ends) if stop > low)
    last = next(i for i, stop in enumerate(ends) if stop >= high)
    for index, edge in ((first, low), (last, high)):
        begin = ends[index] - len(tokens[index])
        before, after = text[begin:edge].strip(), text[edge : ends[index]].strip()
        if cut == "error" and before and after:
            raise ValueError(
                f"the span [{start}, {end}) of {visible[:40]!r} cuts token {index}, {tokens[index]!r}, between {before!r} and "
                f'{after!r}; move the edge to the edge of a token, or take whole tokens with cut="widen"'
            )
    while first > 0 and not tokens[first - 1]:
        first -= 1
    return first, last + 1
