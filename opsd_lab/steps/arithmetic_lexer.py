r"""Arithmetic as people and models write it, in plain text and in LaTeX, as symbols at their places."""

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

MAX_DIGITS = 30  # of one number; a longer one makes its step unverifiable
MAX_UNIT_WORDS = 6  # between a number and the operator behind it

DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\ufe58\ufe63"
DASH = "\u2013"
SAME_CHARACTER = (
    dict.fromkeys("×·∗∙⋅＊", "*")
    | dict.fromkeys("÷∕⁄／", "/")
    | dict.fromkeys("\u2212－", "-")
    | dict.fromkeys(DASHES, DASH)
    | {
        "＋": "+",
        "＝": "=",
        "（": "(",
        "）": ")",
        "％": "%",
        "＄": "$",
        "．": ".",
        "，": ",",
        "［": "[",
        "］": "]",
        "：": ":",
        "＾": "^",
    }
)
SAME_OPERATOR = {r"\times": "*", r"\cdot": "*", r"\ast": "*", r"\div": "/", "x": "*", "X": "*", DASH: "-"}
PIECES = {"(": ")", "[": "]", "{": "}"}

# Words that compute, or that a number beside them is only a part of; none of them is a unit or may stand beside an equation.
OPERATOR_WORDS = (
    r"(?:times|plus|minus|by|over|than|modulo|mod|modulus|rem|choose|divided|multiplied|subtracted|raised|gcd|gcf|lcm|hcf"
    r"|a?(?:sin|cos|tan|sec|csc|cot)h?|arc\w+|log\w*|ln|lg|exp|sqrt|root|lim|max|min|det|sgn|sum_\w*|squared?|cubed?|factorial"
    r"|half|halves|thirds?|quarters?|fourths?|fifths?|twice|thrice|double|triple|negative|minus|inverse|reciprocal|floor|ceil(?:ing)?"
    r"|abs|absolute|power|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty|fifty|sixty|hundreds?"
    r"|thousands?|millions?|billions?|dozens?|percent)"
)
NO_UNIT = re.compile(
    rf"(?:{OPERATOR_WORDS}|of|and|or|so|is|are|was|were|then|thus|hence|therefore|because|if|that|which|equals?|but|not|since|while"
    r"|more|less|fewer|greater|remainder|remaining|left|to|from|with|at|have|has|had|get|gets|got)",
    re.IGNORECASE,
)
# Units that may touch their number, as in "7cm"; other short words there are rather products of unknowns.
TOUCHING_UNITS = re.compile(
    r"(?:[cmkµ]m|[mk]?g|[mcd]?[lL]|lbs?|oz|ft|in|yds?|mi|mph|kph|hrs?|mins?|secs?|[kKMGT][bB]|k?[Ww]h?|[kM]Hz|am|pm|st|nd|rd|th"
    r"|[^\W\d_]{4,})(?![^\W_])"
)
WHOLE = r"(?:[0-9]{1,3}(?:(?:,(?:\\!)?|\{,\}|\\,|\{\\,\})[0-9]{3})+(?![0-9])|[0-9]+)"
LEXEME = re.compile(
    r"(?P<mark>(?m:^)[ \t]*+(?:[-*+•>]|\#{1,6}|\(?[0-9]{1,3}[.)](?![ \t]*+[-+*/=])|\(?[a-z][.)])[ \t]++)"
    r"|(?P<power>(?<=[0-9)])(?:\*\*| \*\* )(?=[0-9(])[0-9]{0,3}|\^[0-9]{1,3}|[⁰¹²³⁴⁵⁶⁷⁸⁹]+|\^\{(?!\\circ)[^{}\n]{1,12}\}"
    r"|\^\([0-9]{1,3}\))"
    r"|(?P<blank>[ \t]++|&|\\\\[ \t]*+(?:\r?\n)?+[ \t]*+(?:&[ \t]*+)?+(?==[^=>])|\r?\n[ \t]*+(?:&[ \t]*+)?+(?==[^=>])"
    r"|\\[;:! ]|\\,(?![0-9]{3})|~|\\q?quad(?![A-Za-z])|\\(?:left|right|[bB]igg?[lr]?)(?=[ \t]*+[()\[\]])|\\?[$€£¥₹](?=[-(]))"
    r"|(?P<mixed>(?<![0-9.,])[0-9]+[ \t]+[1-9][0-9]?/[0-9]{1,3}(?![0-9/])(?![.,][0-9]))"
    r"|(?P<number>(?:(?:\\?\$|[€£¥₹])[ \t]?)?(?:[0-9]{1,3}(?:[ ][0-9]{3})+(?![0-9])(?:\.[0-9]+)?"
    rf"|{WHOLE}(?:\.[0-9]+)?|\.[0-9]+))"
    r"|(?P<vulgar>[¼-¾⅐-⅞])"
    r"|(?P<shortfrac>\\[dt]?frac[ ]?[0-9][ ]?[0-9](?![0-9]))"
    r"|(?P<equals>(?<![=<>!:+*/^~\\-])=(?![=>])(?:[ \t]*+(?:&[ \t]*+)?+(?:\\\\)?+\r?\n)?)"
    r"|(?P<percent>\\?%)"
    r"|(?P<degree>°|\^\{?\\circ\}?|¢|€|\$(?=[ \t]*[-+*/=x)]))"
    r"|(?P<per>/[ ]?(?:[^\W\d_]{2,}+|[hsml](?![^\W_])))"
    rf"|(?P<operator>(?<!\*)\*(?!\*)|[-+/()\[\]{{}}{DASH}]|\\(?:times|cdot|ast|div)(?![A-Za-z])"
    r"|(?<=[0-9)\]} \t%])[xX](?=[ \t]*(?:\\?\$)?[.0-9(])|\\[dt]?frac(?![A-Za-z]))"
    r"|(?P<text>\\(?:text|textrm|textbf|mathrm|mbox)\{[^{}\n\\]{0,40}\})"
    r"|(?P<words>[^\W\d_]++)"
    r"|(?s:.)"
)
Kind = Literal["number", "operator", "unit", "percent", "power"]


@dataclass(frozen=True)
class Lexeme:
    """A symbol at a place in a text; `value` of a number, None if it cannot be told; `sure`: it has no second reading."""

    kind: Kind
    text: str
    start: int
    end: int
    value: Fraction | None = None
    sure: bool = True


def plain(text: str) -> str:
    """Return the text with the digits, signs and blanks of other scripts as ASCII ones, character by character."""
    return text if text.isascii() else re.sub(r"[^\x00-\x7f]", lambda match: _plain(match.group()), text)


def _plain(character: str) -> str:
    if character in SAME_CHARACTER:
        return SAME_CHARACTER[character]
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    return " " if unicodedata.category(character) == "Zs" else character


def lex(text: str) -> list[list[list[Lexeme]]]:
    """Return a `plain` text's unbroken runs of arithmetic, each cut at its equals signs."""
    runs: list[list[list[Lexeme]]] = [[[]]]
    words = 0  # since the last number
    for match in LEXEME.finditer(text):
        kind = match.lastgroup
        here = runs[-1][-1]
        if kind == "equals":
            runs[-1].append([])
        elif kind == "blank":
            continue
        elif kind in ("words", "per", "text"):
            words = words + 1 if here and here[-1].kind == "unit" else 1
            if here and words <= MAX_UNIT_WORDS and _is_unit(match, here[-1]):
                here.append(Lexeme("unit", _name(match.group()), *match.span()))
            else:
                runs.append([[]])
        elif kind == "degree" and here and here[-1].kind == "number":
            here.append(Lexeme("unit", match.group(), *match.span()))
        elif kind in ("percent", "power") and here and (here[-1].kind in ("number", "percent") or here[-1].text in PIECES.values()):
            here.append(Lexeme(kind, match.group(), *match.span()))
        elif kind in ("number", "mixed", "vulgar", "shortfrac"):
            here.append(_number(match, kind))
        elif kind == "operator":
            found = match.group()
            sure = found != DASH and not (found in "xX" and text[match.end() : match.end() + 1] in "(.")
            operator = r"\frac" if found.endswith("frac") else SAME_OPERATOR.get(found, found)
            here.append(Lexeme("operator", operator, *match.span(), sure=sure))
        else:
            runs.append([[]])
    return [run for run in runs if len(run) > 1]


def _name(unit: str) -> str:
    inside = re.sub(r"\\\w+\{|\}", "", unit).strip(" /").lower()
    return inside[:-1] if inside.endswith("s") else inside


def _is_unit(match: re.Match[str], last: Lexeme) -> bool:
    if last.kind == "operator" and last.text not in (")", "]"):
        return False
    found = match.group().removeprefix("/").strip()
    if match.lastgroup == "text" or (last.kind == "unit" and found.lower() == "of"):
        return True
    if NO_UNIT.fullmatch(found):
        return False
    if match.start() == last.end and match.lastgroup == "words" and last.kind != "unit":
        return TOUCHING_UNITS.match(found) is not None
    following = match.string[match.end() : match.end() + 1]
    return (len(found) > 1 or match.lastgroup == "per") and following not in ("(", "_", "^", "'")


def _number(match: re.Match[str], kind: str) -> Lexeme:
    found = match.group()
    if kind == "vulgar":
        whole = Fraction(unicodedata.numeric(found)).limit_denominator(10)
        return Lexeme("number", found, *match.span(), whole)
    if kind == "shortfrac":
        above, below = re.findall("[0-9]", found)
        return Lexeme("number", found, *match.span(), Fraction(int(above), int(below)) if below != "0" else None)
    if kind == "mixed":
        whole, above, below = map(int, re.findall("[0-9]+", found)) if len(found) <= MAX_DIGITS else (0, 0, 0)
        value = whole + Fraction(above, below) if 0 < above < below else None
        return Lexeme("number", found, *match.span(), value, sure=False)
    digits = re.sub(r"[^0-9.]", "", found)
    whole = digits.partition(".")[0]
    # "0900" is rather a time of day, a number in a list or the rest of something that was not read; "0x10" is in another base.
    odd = (len(whole) > 1 and whole[0] == "0") or (digits == "0" and match.string[match.end() : match.end() + 1] in ("x", "X"))
    value = Fraction("0" + digits) if len(digits) <= MAX_DIGITS and not odd else None
    grouped_by_blanks = re.search(r"[0-9][ ][0-9]|\\,", found) is not None
    return Lexeme("number", found, *match.span(), value, sure=not grouped_by_blanks)
