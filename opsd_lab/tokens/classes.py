"""What kind of token each token is, read from the text that it stands in. Knows no models."""

import re
from collections.abc import Sequence

import numpy as np

CLASSES = ("style marker", "number", "operator", "connective", "special", "space", "other")

# fmt: off
STYLE_MARKERS = frozenset({
    "wait", "hmm", "hmmm", "hm", "okay", "ok", "alright", "well", "so", "let's", "now", "alternatively", "actually",
    "maybe", "perhaps", "oh", "ah", "anyway", "basically",
})
CONNECTIVES = frozenset({
    "because", "therefore", "then", "thus", "if", "since", "hence", "and", "but", "or", "nor", "yet", "however", "although",
    "though", "while", "whereas", "unless", "until", "otherwise", "consequently", "moreover", "furthermore", "finally",
    "next", "also",
})
# fmt: on
# The marks of chat templates and of thinking, whether the tokenizer holds them whole or spells them.
SPECIAL = re.compile(r"<[|｜][^<>|｜\s]{2,64}[|｜]>|</?(?:s|think|bos|eos|pad|unk|(?:start|end)_of_turn)>")
LEXEME = re.compile(
    rf"(?P<special>{SPECIAL.pattern})"
    r"|(?P<rest>\*\*+|--+|(?m:^)[ \t]*[-*+](?=[ \t]))"  # bold, rules, and the mark of a list's item
    r"|(?P<number>[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?)"
    r"|(?P<operator>[-+*/=<>()^×÷·±√≤≥≠≈≡\u2212]"
    r"|\\(?:[dt]?frac|times|cdot|div|pm|mp|sqrt|sum|prod|int|leq?|geq?|neq?|lt|gt|approx|equiv|p?mod|bmod)(?![A-Za-z]))"
    r"|(?P<command>\\[A-Za-z]+)"
    # One letter before a hyphen is a variable: "x-y" is a difference.
    r"|(?P<word>[^\W\d_]+['’][^\W\d_]+|[^\W\d_]{2,}(?:-[^\W\d_]{2,})*|[^\W\d_])"
)
CODES = {name: code for code, name in enumerate(CLASSES)}


def token_classes(tokens: Sequence[str]) -> list[str]:
    """Return the class of each token, one of `CLASSES`, by the words and numbers of the joined text.

    A word or number that several tokens spell is classified whole and gives all of them its class: " the" + "refore" is a
    connective and " so" + "me" no style marker. Where one ends, blanks and other kinds of characters decide, not the tokens.
    A token that touches several such units has the class of the first that is neither "other" nor "space": " $5" is a number.
    Words joined by a hyphen or an apostrophe are one word ("well-known" is "other", "let's" a style marker). A hyphen, star
    or plus that marks an item of a list and the stars of bold type are no operators. A token without text holds the first bytes
    of a character that a later token ends, and has that token's class.

    Takes time linear in the text.
    """
    text = "".join(tokens)
    codes = np.where(np.fromiter(map(str.isspace, text), bool, len(text)), CODES["space"], CODES["other"])
    for match in LEXEME.finditer(text):
        if name := _class(match):
            codes[match.start() : match.end()] = CODES[name]
    # Each token takes the first of its best characters: those with a class of their own, then "other", then "space".
    rank = np.select([codes == CODES["space"], codes == CODES["other"]], [2, 1], 0)
    order = rank * len(text) + np.arange(len(text))
    lengths = np.fromiter(map(len, tokens), np.int64, len(tokens))
    visible = np.flatnonzero(lengths)
    starts = (np.cumsum(lengths) - lengths)[visible]
    best = np.minimum.reduceat(order, starts) % len(text) if len(visible) else starts
    of_visible = np.append(codes[best], CODES["other"])
    return [CLASSES[code] for code in of_visible[np.searchsorted(visible, np.arange(len(tokens)))]]


def _class(match: re.Match[str]) -> str:
    """Return the class of a unit of text, "" for one that leaves its characters what they are."""
    if match.lastgroup in CODES:
        return match.lastgroup
    word = match.group().lower().replace("’", "'") if match.lastgroup == "word" else ""
    return "style marker" if word in STYLE_MARKERS else "connective" if word in CONNECTIVES else ""
