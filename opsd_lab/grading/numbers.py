"""Plain numbers as people type them: integers, decimals, thousands with commas, fractions a/b."""

import re
from fractions import Fraction

MAX_ANSWER = 1_000  # characters; a longer answer is unverifiable
MAX_ENTRIES = 99

NUMBER = re.compile(r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|(?<![0-9A-Za-z.])\.[0-9]+)(?:/[0-9]+)?")
PLAIN = re.compile(rf"([-+\u2212]?)({NUMBER.pattern})")


def as_number(text: str) -> Fraction | None:
    """Return the exact value of a plain integer, decimal or fraction of at most `MAX_ANSWER` characters, else None."""
    literal = PLAIN.fullmatch(text.strip()) if len(text) <= MAX_ANSWER else None
    if literal is None:
        return None
    numerator, _, denominator = literal[2].replace(",", "").partition("/")
    divisor = Fraction(denominator or 1)
    if divisor == 0:
        return None
    value = Fraction(numerator) / divisor
    return value if literal[1] in ("", "+") else -value


def as_numbers(text: str) -> tuple[Fraction, ...] | None:
    """Return the values of plain numbers, `MAX_ENTRIES` at most, with commas between them, else None; "1,234" is one number."""
    if (number := as_number(text)) is not None:
        return (number,)
    entries = text.split(",") if len(text) <= MAX_ANSWER else []
    values = tuple(as_number(entry) for entry in entries)
    return None if None in values or not 2 <= len(values) <= MAX_ENTRIES else values
