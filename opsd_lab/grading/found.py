r"""Answers without a box: the last number of a text, or the whole expression that it is part of; and the text behind the thinking."""

import re

from opsd_lab.grading.boxes import extract_boxed
from opsd_lab.grading.brackets import at_top
from opsd_lab.grading.dressing import GROUP, to_ascii, undressed
from opsd_lab.grading.numbers import as_number
from opsd_lab.grading.plain_runs import last_value
from opsd_lab.grading.relations import NAME
from opsd_lab.grading.units import split_unit

# Where a model's thinking ends, in the marks of several families.
THINKING_ENDS = re.compile(
    r"</think(?:ing)?>|</reasoning>|</thought>|\[/THINK\]|\u25c1/think\u25b7|<\|channel\|>\s*final\s*<\|message\|>"
)
MARKS = re.compile(r"<\|[^|<>\n]{1,60}\|>|</?[A-Za-z]{1,20}/?>|\[/?(?:INST|THINK)\]")
HASHES = re.compile(r"^####\s*([-$\\+(]*[0-9.\\{}$][^\n]{0,60}?)\s*$", re.M)
TAGGED = re.compile(r"<answer>(.{1,200}?)</answer>", re.S | re.I)
REMARK = re.compile(r"(?<=[^\s(])[.!]?\s*\(([^()\n]{1,60})\)\s*[.!]?\s*$")
GOES_ON = re.compile(r"\b(?:so|thus|total|therefore|answer|altogether|is|are|gives|equals|and|plus|but)\b|=", re.I)
_DOLLARS = (  # not two prices: a digit or a command in it, no words behind the first number, no digit behind its end
    r"(?<![\\$])\$(?P<d>(?=[^$\n]*[0-9\\])(?![ 0-9.,]*(?: [a-z]{2,}|[-+*/=]\s*$))[^$\n]{1,300}?)(?<!\\)\$(?![0-9])"
)
MATH = re.compile(rf"\$\$(?P<a>.+?)\$\$|\\\[(?P<b>.+?)\\\]|\\\((?P<c>.+?)\\\)|{_DOLLARS}", re.S)
WINDOW = 2_000  # characters before the last digit that are looked at
VALUES = re.compile(r"[0-9]|\\pi|\\sqrt|\\infty")
RAISED_UNIT = re.compile(r"\$\s*(\^\s*\{?[23]\}?)\s*\$")
BOLD = re.compile(r"(?<![0-9A-Za-z)])\*\*|\*\*(?![0-9A-Za-z(])")
TIMES = re.compile(r"\\(?:times|cdot)(?![A-Za-z])")
LETTERED = re.compile(r"[A-Za-z]{3,}")
ENVIRONMENT = re.compile(
    r"\\begin\{(aligned|align\*?|gathered|split|equation\*?|gather\*?)\}|\\end\{(?:aligned|align\*?|gathered|split|equation\*?|gather\*?)\}"
)


def after_thinking(text: str) -> str:
    """Return what stands behind the end of the thinking, the whole text when there is no such mark."""
    ends = list(THINKING_ENDS.finditer(text))
    return text[ends[-1].end() :] if ends else text


def find_answers(text: str) -> tuple[str | None, str | None]:
    """Return a completion's answer in a box and its last number, from behind the thinking if either stands there."""
    answer = after_thinking(text)
    found = extract_boxed(answer), extract_last_number(answer)
    if answer is not text and found == (None, None):
        return extract_boxed(text), extract_last_number(text)
    return found


def extract_last_number(text: str) -> str | None:
    r"""Return the last number of a text, or the whole expression that it is part of; None if there is none.

    A number that stands alone is a plain literal such as "-1234.5" or "3/4", without thousands commas. A minus is a sign unless it
    subtracts ("9 - 4", "9-4", "9 -4" end in 4) or hyphenates ("grade-4"). One that touches more is given with it: "\frac{3}{4}",
    "x^2", "3:45", "3 1/2", "50%". What stands in <answer> tags, or alone behind ####, goes before what follows it, and a
    remark in parentheses at the end does not count.
    """
    if tagged := TAGGED.findall(text):
        return extract_last_number(tagged[-1])
    if hashes := HASHES.search(text):
        return extract_last_number(hashes[1])
    text = MARKS.sub(" ", to_ascii(_around_the_last_value(text)))
    text = BOLD.sub(" ", TIMES.sub("*", RAISED_UNIT.sub(r"\1", text)))
    remark = REMARK.search(text)
    if remark and not GOES_ON.search(remark[1]) and LETTERED.search(remark[1] + "   ") and re.search(r"[A-Za-z]{2,}", remark[1]):
        line = text[: remark.start()].rpartition("\n")[2]
        if re.search(r"[0-9]\S*(?:\s+[a-zA-Z]+){0,3}[.!]?$", line):
            text = text[: remark.start()]
    place, found = _last_digit(text)
    if found is None:
        return None
    if place < 0:
        return _from_math(found)
    return last_value(text[: place + 1], text[place + 1 :])


def _around_the_last_value(text: str) -> str:
    """Return the part of a text that decides, so that the work on a hostile one stays small."""
    last = next((at for at in range(len(text) - 1, -1, -1) if text[at].isnumeric() or text[at] in "\u03c0\u221a"), -1)
    commands = max(text.rfind(name) for name in ("\\pi", "\\sqrt", "\\infty"))
    last = max(last, commands)
    return text[max(0, last - WINDOW) : last + WINDOW // 4]


def _last_digit(text: str) -> tuple[int, str | None]:
    """Return the place of the last digit outside formulas, or -1 and the formula when one that holds a value comes later."""
    formulas = [found for found in MATH.finditer(text) if VALUES.search(found.group())]
    end = formulas[-1].end() if formulas else 0
    for place in range(len(text) - 1, end - 1, -1):
        if "0" <= text[place] <= "9":
            return place, text
    if formulas:
        return -1, next(group for group in formulas[-1].groups() if group is not None)
    return 0, None


def _from_math(formula: str) -> str:
    formula = ENVIRONMENT.sub(" ", formula)
    rows = [row for row in formula.split("\\\\") if VALUES.search(row)]
    side = _last_side((rows[-1] if "&" in formula and rows else formula).replace("&", " "))
    plain = undressed(side)
    if as_number(plain) is None and re.fullmatch(r"[-+]?\$?[-+]?[0-9.,]+", plain):
        plain = plain.replace("$", "")
    bare, unit, sure = split_unit(plain)
    if unit and sure and as_number(bare) is not None:
        plain = bare
    plain = GROUP.sub(lambda m: re.sub("[^0-9]", "", m.group()), plain)
    if as_number(plain) is not None:
        return plain.lstrip("+").replace(",", "")
    return side.strip()


def _last_side(formula: str) -> str:
    """Return what an equation says a name or a calculation is; other equations and inequalities whole."""
    outside = {place for place, _, top in at_top(formula) if top}
    equal = [
        found
        for found in re.finditer(
            r"(?<![<>!:])=(?!=)|\\approx(?![A-Za-z])|\\(?:implies|Rightarrow|to|rightarrow|therefore)(?![A-Za-z])", formula
        )
        if found.start() in outside
    ]
    arrows = [found for found in equal if found.group()[0] == "\\" and "approx" not in found.group()]
    if arrows:
        return _last_side(formula[arrows[-1].end() :])
    if not equal or re.search(r"[<>]|\\(?:le|ge|lt|gt|leq|geq|neq?)(?![A-Za-z])", formula):
        return formula
    left, right = undressed(formula[: equal[0].start()]), formula[equal[-1].end() :]
    several = len(equal) > 1 and re.search(r",|\\text\s*\{\s*(?:and|or)|;", formula)
    if several or not right.strip():
        return formula
    if len(equal) > 1 or NAME.fullmatch(left) or not re.search(r"[A-Za-z]", re.sub(r"\\[A-Za-z]+", "", left)):
        return right
    return right if re.search(r"\\text|[A-Za-z]{3,}", formula[: equal[0].start()]) else formula
