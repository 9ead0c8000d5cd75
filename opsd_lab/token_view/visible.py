"""Model text made visible: white space, control characters and bidirectional controls get a mark that can be read."""

import html
import unicodedata
from itertools import pairwise

EMPTY = "∅"
NEWLINE = "⏎"
# Characters that Python calls printable and that show nothing: Unicode's Default_Ignorable_Code_Point, and blank glyphs.
BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0\U00016fe4\U0001d159")
KEYCAPS = "0123456789#*"


def visible_text(text: str, *, newline: str = NEWLINE, space: str = " ") -> str:
    """Return `text` with every character that does not print replaced by one that does.

    A newline becomes `newline` and a space becomes `space`; a tab becomes "⇥", and any other character that does not
    print (a control character, a bidirectional control, a zero-width space, half of a surrogate pair, a blank letter) its
    code point, such as "U+202E"; a variation selector does so too, unless it follows a character that it can vary. A
    combining mark that stands on nothing visible gets a dotted circle, and empty text becomes "∅".
    """
    if not text:
        return EMPTY
    own = {"\n": newline, " ": space, "\t": "⇥"}
    shown = []
    for before, character in pairwise(f" {text}"):
        if character in own:
            shown.append(own[character])
        elif _is_hidden(character, before):
            shown.append(f"U+{ord(character):04X}")
        else:
            shown.append(f"◌{character}" if _stands_alone(character, before) else character)
    return "".join(shown)


def literal(text: str) -> str:
    """Return a text as a Python literal in which nothing is invisible, not even what `repr` takes for printable."""
    quote, shown = repr(text)[0], []
    for before, character in pairwise(f" {text}"):
        if character in "'\"":
            shown.append(f"\\{character}" if character == quote else character)
        elif character != " " and (_is_hidden(character, before) or _varies(character) or _stands_alone(character, before)):
            shown.append(repr(character)[1:-1] if not character.isprintable() else character.encode("unicode_escape").decode())
        else:
            shown.append(repr(character)[1:-1])
    return f"{quote}{''.join(shown)}{quote}"


def _is_hidden(character: str, before: str) -> bool:
    if not character.isprintable() or character in BLANK:
        return True
    if not _varies(character):
        return False
    bases = KEYCAPS if character in "\ufe0e\ufe0f" else ""
    return not _is_seen(before) or _varies(before) or (before.isascii() and before not in bases)


def _stands_alone(character: str, before: str) -> bool:
    return unicodedata.category(character).startswith("M") and not _is_seen(before)


def _is_seen(character: str) -> bool:
    return character.isprintable() and not character.isspace() and character not in BLANK


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
