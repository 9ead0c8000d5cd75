"""The symbols of mathematics in plain text and in LaTeX."""

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

# Words of up to three letters that are no products of letters.
SMALL_WORD = re.compile(
    "a(?:dd|ll|m|nd?|ny|re|s|t)|b(?:e|ut|y)|c(?:an|m|os|ot|sc)|d(?:ay|et|id|o)|e(?:nd|q|tc|xp)|for|g(?:cd|et|o)|h(?:ad|as|e|ow)"
    "|i(?:f|n|s|ts?)|k[gm]|l(?:cm|et|hs|im|n|og)|m(?:ax|ay|e|in|m|od|y)|n(?:ew|o|or|ot|ow)|o(?:dd|ff?|ld|n|ne|r|ur|ut)|p(?:er|ut)"
    "|rhs|s(?:ay|ec|ee|et|he|in|ix|o|um)|t(?:an|en|he|hm|o|oo|ry|wo)|u(?:p|se?)|via|w(?:as|ay|e|ho|hy)|y(?:es|et|ou)",
    re.IGNORECASE,
)
GREEK = (
    "alpha|beta|gamma|delta|epsilon|varepsilon|zeta|eta|theta|vartheta|iota|kappa|lambda|mu|nu|xi|pi|rho|sigma|tau|upsilon|phi|varphi"
    "|chi|psi|omega"
)
POWERS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")
OPERATORS = dict.fromkeys(["×", "·", r"\times", r"\cdot"], "*") | {"÷": "/", r"\div": "/", "\u2212": "-", "**": "^"}

LETTER = r"[^\W\d_⁰¹²³⁴⁵⁶⁷⁸⁹]"
LEXEME = re.compile(
    r"(?P<list>(?m:^)[ \t]*(?:[-*+•]|\(?[0-9]{1,3}[.)]|\(?[a-z][.)])[ \t]+)"
    r"|(?P<blank>[ \t]+|(?:\\\\)?[ \t]*\n[ \t]*&?[ \t]*(?==[^=>])|\\\\[ \t]*&?[ \t]*(?==[^=>])"
    r"|\\[,;!: ]|\\(?:left|right|[bB]igg?[lr]?)(?=[ \t]*[()\[\]]))"
    r"|(?P<number>(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?)"
    r"|(?P<equals>(?<![=<>!:+\-*/^~\\])&?[ \t]*=(?![=>])(?:[ \t]*&)?)"
    rf"|(?P<letters>(?:{LETTER}+(?:['’]{LETTER}+)*|\\(?:{GREEK})(?![A-Za-z]))(?:_(?:[A-Za-z0-9]|\{{[A-Za-z0-9,]{{1,12}}\}}))?)"
    r"|(?P<superscript>[⁰¹²³⁴⁵⁶⁷⁸⁹]+)"
    r"|(?P<command>\\[dt]?frac(?![A-Za-z])|\\sqrt(?![A-Za-z]))"
    r"|(?P<operator>(?<=[A-Za-z0-9)])\*\*(?=[A-Za-z0-9(])|(?<!\*)\*(?!\*)|[-+/^×÷·\u2212()\[\]{}]"
    r"|\\(?:times|cdot|div)(?![A-Za-z]))"
    r"|(?s:.)"
)


@dataclass(frozen=True)
class Lexeme:
    """A symbol of mathematics at a place in a text; `latex`: between LaTeX's delimiters."""

    kind: Literal["number", "letter", "operator", "superscript", "command"]
    text: str
    start: int
    end: int
    latex: bool


def lex(text: str, spans: Sequence[tuple[int, int]]) -> list[list[list[Lexeme]]]:
    """Return a text's unbroken runs of mathematics, each cut at its equals signs; `spans` are its parts in LaTeX, in order."""
    starts = [start for start, _ in spans]
    runs: list[list[list[Lexeme]]] = [[[]]]
    for match in LEXEME.finditer(text):
        kind, found = match.lastgroup, match.group()
        at = bisect_right(starts, match.start()) - 1
        latex = at >= 0 and match.start() < spans[at][1]
        if kind == "blank" or (found == "&" and latex):
            continue
        if kind == "equals":
            runs[-1].append([])
        elif kind == "letters" and not (letters := _letters(match, latex)):
            runs.append([[]])
        elif kind == "letters":
            runs[-1][-1] += letters
        elif kind in ("number", "superscript", "command", "operator"):
            written = re.sub(r"\\[dt]frac", r"\\frac", found.replace(",", "").translate(POWERS))
            runs[-1][-1].append(Lexeme(kind, OPERATORS.get(found, written), *match.span(), latex))
        else:
            runs.append([[]])
    return runs


def _letters(match: re.Match[str], latex: bool) -> list[Lexeme]:
    """Return one lexeme a letter; none for what is rather a word."""
    name, underscore, index = match.group().partition("_")
    if name.startswith("\\"):
        return [Lexeme("letter", match.group(), *match.span(), latex)]
    if not name.isascii() or not name.isalpha() or len(name) > 3 or (len(name) > 1 and SMALL_WORD.fullmatch(name)):
        return []
    found = [Lexeme("letter", letter, match.start() + i, match.start() + i + 1, latex) for i, letter in enumerate(name)]
    # "S_n-1" in plain text means the term before S_n.
    following = match.string[match.end() : match.end() + 1]
    if underscore and not latex and not index.startswith("{") and following and following in "+-\u2212":
        return []
    return [*found[:-1], Lexeme("letter", found[-1].text + underscore + index.strip("{}"), found[-1].start, match.end(), latex)]
