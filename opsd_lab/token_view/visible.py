"""Model text made visible: white space, control characters and bidirectional controls get a mark that can be read."""

import html
import unicodedata
from itertools import pairwise

EMPTY = "∅"
NEWLINE = "⏎"
# Characters that Python calls printable and that show nothing (Unicode's Default_Ignorable_Code_Point, and the Braille blank).
BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0")


def visible_text(text: str, *, newline: str = NEWLINE, space: str = " ") -> str:
    """Return `text` with every character that does not print replaced by one that does.

    A newline becomes `newline` and a space becomes `space`; a tab becomes "⇥", and any other character that does not
    print (a control character, a bidirectional control, a zero-width space, half of a surrogate pair, a blank letter) its
    code point, such as "U+202E"; a variation selector does so too, unless it follows the character that it varies. A
    combining mark that would sit on the text before it gets a dotted circle, and empty text becomes "∅".
    """
    if not text:
        return EMPTY
    shown = [_visible_character(c, before, newline, space) for before, c in pairwise(f" {text}")]
    if unicodedata.category(shown[0][0]).startswith("M"):
        shown.insert(0, "◌")
    return "".join(shown)


def _visible_character(character: str, before: str, newline: str, space: str) -> str:
    if character == "\n":
        return newline
    if character == " ":
        return space
    if character == "\t":
        return "⇥"
    hidden = character in BLANK or (_varies(character) and (before.isspace() or _varies(before)))
    return character if character.isprintable() and not hidden else f"U+{ord(character):04X}"


def _varies(character: str) -> bool:
    return "\ufe00" <= character <= "\ufe0f" or "\U000e0100" <= character <= "\U000e01ef"


def visible_html(text: str) -> tuple[str, str]:
    """Return the escaped visible text of one token, and the line breaks that belong after it.

    The two are apart so that a token's colour ends at its newline mark. A newline inside the token breaks the line
    where it stands.
    """
    body = text.rstrip("\n")
    trailing = len(text) - len(body)
    shown = visible_text(body, newline=f"{NEWLINE}\n") if body or not trailing else ""
    escaped = html.escape(shown, quote=True).replace("\n", "<br>").replace(" ", "<i> </i>")
    return escaped + NEWLINE * trailing, "<br>" * trailing
