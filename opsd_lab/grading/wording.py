"""Answers in words: choices, yes and no, times of day, ratios, text; and the words that lead to a value."""

import re
from fractions import Fraction

from opsd_lab.grading.expressions import parse_expression
from opsd_lab.grading.readings import Choice, Clock, Ratio, Truth, Words
from opsd_lab.grading.tokens import Unreadable

MAX_WORDS = 4
TRUTHS = {"yes": True, "true": True, "y": True, "no": False, "false": False}
LETTER = r"\(?\s*[A-J]\s*\)?"
ONE_CHOICE = re.compile(r"\(\s*([A-Ja-j])\s*\)[.:]?|([A-J])[.):]?")
CHOICES = re.compile(rf"{LETTER}(?:\s*(?:,|;|&|and|,\s*and|\s)\s*{LETTER})+")
LABELLED = re.compile(r"(?:\(\s*([A-J])\s*\)[.:]?\s*|([A-J])\)\s*|([A-J])[.:]\s+)(?=[0-9A-Za-z\\$\-.])(.+)", re.S)
CLOCK = re.compile(r"([0-9]{1,2})(?::([0-9]{2}))?(?::([0-9]{2}))?\s*(?:(a|p)(?:m|\.m\.?)|(?:o'clock|hours|hrs))?", re.I)
RATIO = re.compile(r"[^:]+(?::[^:]+){1,3}")
TO = re.compile(r"([0-9]+) to ([0-9]+)")
_DENIALS = "not no never less more fewer greater least most under over between than without unless if when where cannot can't isn't"
DENIALS = set(_DENIALS.split())
LEAD = re.compile(
    r"(?:[A-Za-z][A-Za-z' ]*?\b(?:is|are|equals?|was|were|gives|has|have)\b(?:\s+(?:equal to|exactly))?\s*:?\s+"
    r"|(?:[A-Za-z][A-Za-z' ]{2,}|\(?[A-Za-z] ?\)?ns(?:wer)?)\s*[:=]\s*"
    r"|(?:the\s+)?(?:final\s+|correct\s+)*(?:answer|ans|result|solution|option|choice|total|sum|value)\s+(?=[-(0-9A-J\\$]))(?=\S)",
    re.I,
)
HEDGE = re.compile(
    r"(?:approximately|approx\.?|about|around|roughly|exactly|only|nearly|almost|just|a total of|circa|\\approx|=|:)\s*"
    r"(?=[-0-9\\$.(A-Z\u20ac\u00a3])",
    re.I,
)
_COUNTED = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty"
)
NUMBER_WORDS = {word: Fraction(i) for i, word in enumerate(_COUNTED.split())}


def without_lead(text: str) -> str:
    """Return an answer without the words that lead to it, such as "The answer is", unless they deny or compare."""
    for _ in range(3):
        found = LEAD.match(text) or HEDGE.match(text)
        if found is None or set(re.findall(r"[a-z']+", found.group().lower())) & DENIALS or not text[found.end() :].strip():
            break
        text = text[found.end() :].strip()
    return text


def read_choice(text: str) -> tuple[Choice | None, str]:
    """Return the letters of options and what stands behind one, as in "(C) 12"; None when there are none."""
    if found := ONE_CHOICE.fullmatch(text):
        return Choice((found[1] or found[2]).upper()), ""
    if CHOICES.fullmatch(text) or (2 <= len(text) <= 5 and re.fullmatch("[A-J]+", text) and list(text) == sorted(set(text))):
        return Choice("".join(sorted(set(re.findall("[A-J]", text))))), ""
    if found := LABELLED.fullmatch(text):
        return Choice(found[1] or found[2] or found[3]), found[4]
    return None, text


def read_truth(text: str) -> Truth | None:
    """Return yes or no, true or false."""
    value = TRUTHS.get(text.lower().strip(" .!'"))
    return None if value is None or (len(text) == 1) else Truth(value)


def read_clock(text: str) -> Clock | None:
    """Return a time of day such as 4:30, 16:30 or 4 p.m.; a lone number is none."""
    found = CLOCK.fullmatch(text)
    if found is None or not (found[2] or found[4]):
        return None
    hours, minutes, seconds = int(found[1]), int(found[2] or 0), int(found[3] or 0)
    if hours > 24 or minutes > 59 or seconds > 59 or (found[4] and not 1 <= hours <= 12):
        return None
    half = found[4].lower() + "m" if found[4] else None
    if half:
        hours = hours % 12 + (12 if half == "pm" else 0)
    return Clock(hours * 60 + minutes + Fraction(seconds, 60), half)


def read_ratio(text: str) -> Ratio | None:
    """Return numbers with colons between them; None when there is no colon.

    Raises:
        Unreadable: when a part is not understood.
    """
    if found := TO.fullmatch(text):
        return Ratio(tuple(("num", Fraction(part)) for part in found.groups()))
    if ":" not in text:
        return None
    if not RATIO.fullmatch(text) or re.match(r"[0-9]{1,2}:[0-9]{2}\s?[A-Za-z]", text):  # a time with something unknown behind it
        raise Unreadable(text)
    parts = tuple(parse_expression(part.strip()) for part in text.split(":"))
    return None if ("num", Fraction()) in parts else Ratio(parts)


def read_words(text: str) -> Words | None:
    """Return at most `MAX_WORDS` words without digits or signs; None for anything else."""
    if not re.fullmatch(r"[^\W\d_][^\d\\^_={}<>+*/|()\[\]]*", text):
        return None
    words = [word for word in re.findall(r"[^\W\d_]+(?:'[a-z]+)?", text.lower()) if word not in ("a", "an", "the")]
    return Words(" ".join(words)) if 1 <= len(words) <= MAX_WORDS and len("".join(words)) > 1 else None
