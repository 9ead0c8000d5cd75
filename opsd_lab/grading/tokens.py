"""An expression's text cut into numbers, letters, commands and signs; which words are functions, constants or no mathematics."""

import re

TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][-+]?[0-9]+(?![0-9A-Za-z.]))?)"
    r"|(?P<command>\\[A-Za-z]+|\\[{}|])|(?P<word>[A-Za-z]+)|(?P<sign>\*\*|[-+*/^_!(){}\[\]|,'%]))"
)
_GREEK = (
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau upsilon phi varphi "
    "chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega ell"
)
_TRIG = "sin cos tan cot sec csc sinh cosh tanh coth"
_FUNCTIONS = "arcsin arccos arctan asin acos atan ln log lg exp sqrt cbrt abs floor ceil gcd lcm max min"
_SHORT_WORDS = "yes no odd even red one two six ten day all any and or not the of to in is cat dog man men boy box"
GREEK, TRIG, SHORT_WORDS = set(_GREEK.split()), set(_TRIG.split()), set(_SHORT_WORDS.split())
FUNCTIONS = TRIG | set(_FUNCTIONS.split())
CONSTANTS = {"pi": "pi", "infty": "inf", "infinity": "inf", "inf": "inf"}
LONGEST_PRODUCT = 3  # letters in a row that are a product; more are a word

Token = tuple[str, str, bool]  # its kind, its text, whether a blank stands before it


class Unreadable(ValueError):
    """The text is not an expression that our parser knows."""


def tokens_of(text: str) -> list[Token]:
    """Return a text's tokens.

    Raises:
        Unreadable: for a character or a word that no expression holds.
    """
    tokens, at = [], 0
    text = text.rstrip()
    while at < len(text):
        found = TOKEN.match(text, at)
        if found is None:
            raise Unreadable(text)
        kind, spaced = found.lastgroup, found.start(found.lastgroup) > at
        tokens += _split_word(found[kind], spaced) if kind == "word" else [(kind, found[kind], spaced)]
        at = found.end()
    return tokens


def _split_word(word: str, spaced: bool) -> list[Token]:
    if word in FUNCTIONS or word in CONSTANTS:
        return [("command", "\\" + word, spaced)]
    for name in ("pi", "sqrt"):
        if word.endswith(name) and len(word) <= len(name) + 2 and len(word) > len(name):
            return [*_split_word(word[: -len(name)], spaced), ("command", "\\" + name, False)]
    if word.startswith("pi") and len(word) <= 4:
        return [("command", "\\pi", spaced), *_split_word(word[2:], False)]
    if len(word) > LONGEST_PRODUCT or word.lower() in SHORT_WORDS:
        raise Unreadable(word)
    return [("letter", letter, spaced and i == 0) for i, letter in enumerate(word)]


def in_base(digits: str, base: str) -> int:
    """Return the value of a numeral with its base as index, such as 101 and "2".

    Raises:
        Unreadable: when the base is no number from 2 to 36, or a digit is not one of its digits.
    """
    names = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "sixteen": 16}
    base = base.strip("() ").removeprefix("base").strip()
    number = names.get(base, int(base) if base.isdecimal() and len(base) < 3 else 0)
    try:
        return int(digits, number) if 2 <= number <= 36 else int("", 10)
    except ValueError:
        raise Unreadable(f"{digits} in base {base}") from None
