"""Model text made visible: white space, control characters and bidirectional controls get a mark that can be read."""

import html
import unicodedata

EMPTY = "∅"
NEWLINE = "⏎"


def visible_text(text: str, *, newline: str = NEWLINE, space: str = " ") -> str:
    """Return `text` with every character that does not print replaced by one that does.

    A newline becomes `newline` and a space becomes `space`; a tab becomes "⇥", and any other character that does not
    print (a control character, a bidirectional control, a zero-width space, half of a surrogate pair) its code point,
    such as "U+202E". A combining mark that would sit on the text before it gets a dotted circle, and empty text
    becomes "∅".
    """
    if not text:
        return EMPTY
    shown = [_visible_character(c, newline, space) for c in text]
    if unicodedata.category(text[0]).startswith("M"):
        shown.insert(0, "◌")
    return "".join(shown)


def _visible_character(character: str, newline: str, space: str) -> str:
    if character == "\n":
        return newline
    if character == " ":
        return space
    if character == "\t":
        return "⇥"
    return character if character.isprintable() else f"U+{ord(character):04X}"


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
