"""Units beside a number: which words are units, which of them measure the same, and how the answer's end is taken off."""

import re
from fractions import Fraction

from opsd_lab.grading.dressing import UPRIGHT

# unit: (what it measures, how many of the base unit)
_TABLE = {
    "length": "mm 1/1000 millimeter 1/1000 millimetre 1/1000 cm 1/100 centimeter 1/100 centimetre 1/100 m 1 meter 1 metre 1 km 1000 "
    "kilometer 1000 kilometre 1000 in 127/5000 inch 127/5000 ft 381/1250 foot 381/1250 feet 381/1250 yd 1143/1250 yard 1143/1250 "
    "mi 201168/125 mile 201168/125",
    "mass": "mg 1/1000 milligram 1/1000 g 1 gram 1 kg 1000 kilogram 1000 ton 1000000 tonne 1000000 oz 45359237/1600000 "
    "ounce 45359237/1600000 lb 45359237/100000 pound 45359237/100000",
    "time": "ms 1/1000 s 1 sec 1 second 1 min 60 minute 60 h 3600 hr 3600 hour 3600 day 86400 week 604800",
    "volume": "ml 1/1000 mL 1/1000 milliliter 1/1000 millilitre 1/1000 l 1 L 1 liter 1 litre 1",
    "money": "$ 1 dollar 1 usd 1 USD 1 cent 1/100 \u00a2 1/100 buck 1",
    "euro": "\u20ac 1 euro 1 eur 1 EUR 1",
    "sterling": "\u00a3 1 gbp 1 GBP 1",
    "yen": "\u00a5 1 yen 1",
    "rupee": "\u20b9 1 rupee 1",
    "angle": r"\degree 1 degree 1 deg 1 radian 0 rad 0",
}
KNOWN = {
    unit: (measure, Fraction(size))
    for measure, line in _TABLE.items()
    for unit, size in zip(line.split()[::2], line.split()[1::2], strict=True)
}
MULTIPLES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
LETTERS = set("mgshldckLNJWVAKC")  # single letters that may be units in an answer
_NO_UNITS = (
    "and or not less more least most than remainder rem mod base if for where when to from between through plus minus times over "
    "divided by equals equal is are sqrt pi sin cos tan log ln exp infinity inf infty with without except but no into point half"
)
NO_UNITS = set(_NO_UNITS.split())

WORD = rf"(?:{UPRIGHT}?[A-Za-z]+\.?|\\degree|[\u20ac\u00a3\u00a5\u20b9\u00a2$])"
MEASURE = rf"{WORD}(?:\^\{{?-?[1-4]\}}?)?"
UNIT = re.compile(rf"\(?({MEASURE}(?:(?:\s*[/*]\s*|\s+|-){MEASURE}){{0,5}})\)?")
VALUE_ENDS = re.compile(
    r"(?<=[0-9)\]}%!])(?=\s*[(A-Za-z\\\u20ac\u00a3\u00a5\u20b9\u00a2$"
    + UPRIGHT
    + r"])|(?<=[A-Za-z])(?=\s+[(A-Za-z\\"
    + UPRIGHT
    + r"])|(?<=[A-Za-z])(?=\\degree)"
)
TURNED = re.compile(r"(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
LEADING = re.compile(
    r"(?P<sign>[-+]?)\s*(?P<unit>[\u20ac\u00a3\u00a5\u20b9$]|(?:USD|EUR|GBP|Rs\.?)\s)\s*(?P<value>[-+]?\s*[0-9.\\].*)", re.S
)


def singular(word: str) -> str:
    """Return a unit's word without its plural and its point."""
    word = word.rstrip(".")
    if word in KNOWN or len(word) < 3:
        return word
    if word == "feet":
        return "foot"
    if word == "inches":
        return "inch"
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def canonical(unit: str) -> str:
    """Return a unit in one spelling, such as "km/h" for kilometres per hour written with or without a bar."""
    unit = unit.replace(UPRIGHT, "").replace("{", "").replace("}", "")
    unit = re.sub(r"\bsquare\s+([A-Za-z]+)|\bsq\.?\s*([A-Za-z]+)", lambda m: f"{m[1] or m[2]}^2", unit)
    unit = re.sub(r"\bcubic\s+([A-Za-z]+)|\bcu\.?\s+([A-Za-z]+)", lambda m: f"{m[1] or m[2]}^3", unit)
    unit = re.sub(r"\s+per\s+", "/", unit)
    words = re.split(r"([\s/*^]+)", unit.strip())
    return "".join(singular(word) if i % 2 == 0 else word.strip() or " " for i, word in enumerate(words))


def split_unit(text: str) -> tuple[str, str | None, bool]:
    r"""Return an answer without the unit at its end or the currency at its front, the unit or None, and whether it is sure.

    A single letter that did not stand in \text{...} is not sure: it may be a variable.
    """
    if leading := LEADING.fullmatch(text):
        value, unit, _ = split_unit(leading["sign"] + leading["value"].strip())
        return value, leading["unit"].strip() if unit is None or unit in ("USD", "EUR", "GBP") else unit, True
    for end in VALUE_ENDS.finditer(text):
        value, rest = text[: end.start()].strip(), text[end.start() :]
        found = UNIT.fullmatch(rest.strip())
        if r"\degree" in rest and TURNED.search(value):
            continue
        if found and (sure := _is_unit(found[1], spaced=rest[0].isspace())) is not None and _is_value(value):
            return value, canonical(found[1]), sure
    return text, None, True


def _is_unit(unit: str, spaced: bool) -> bool | None:
    """Whether words are a unit for sure; None when they are none."""
    words = re.findall(r"[A-Za-z]+", unit.replace(r"\degree", ""))
    if any(word.lower() in NO_UNITS or word in MULTIPLES for word in words):
        return None
    bare = re.findall(rf"(?<![{UPRIGHT}A-Za-z])[A-Za-z]+", unit.replace(r"\degree", ""))
    letters = [word for word in bare if len(word) == 1]
    if not all(word in LETTERS for word in letters):
        return None
    if not all(
        word in KNOWN or singular(word) in KNOWN or len(word) > 3 or (spaced and len(word) > 2) for word in bare if len(word) > 1
    ):
        return None
    return not letters


def _is_value(text: str) -> bool:
    return bool(re.search(r"[0-9]|\\(?:pi|frac|sqrt)", text)) and not re.search(
        rf"[A-Za-z]{{4,}}(?<!frac)(?<!sqrt)(?<!cdot)(?<!overline)|{UPRIGHT}", text
    )


def same_measure(a: str, b: str) -> tuple[Fraction, Fraction] | None:
    """Return the sizes of two known units of one measure, else None."""
    if a in KNOWN and b in KNOWN and KNOWN[a][0] == KNOWN[b][0] and KNOWN[a][1] * KNOWN[b][1]:
        return KNOWN[a][1], KNOWN[b][1]
    return None
