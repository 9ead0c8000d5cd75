"""Where a text writes mathematics between LaTeX's delimiters."""

import re

PARAGRAPH = re.compile(r"(?:(?!\n[^\S\n]*\n).)+", re.DOTALL)
OPENING = re.compile(r"\\\\|\\\$|(?P<open>\$\$|\\\[|\\\(|\$(?!\s))")
# A lone dollar closes what a dollar opened unless it stands after a blank or before a digit, as in "$5 and $10".
CLOSING = {
    "$$": re.compile(r"\$\$"),
    r"\[": re.compile(r"(?<!\\)\\\]"),
    r"\(": re.compile(r"(?<!\\)\\\)"),
    "$": re.compile(r"(?<![\s\\$])\$(?![0-9$])"),
}


def math_spans(text: str) -> list[tuple[int, int]]:
    r"""Return the spans of $...$, $$...$$, \(...\) and \[...\] with their delimiters, disjoint and in order.

    None goes across an empty line, and what is never closed is none; `\$` is a currency sign, and so is a dollar sign that no other
    closes. Takes time linear in the text.
    """
    spans: list[tuple[int, int]] = []
    for paragraph in PARAGRAPH.finditer(text):
        at, end = paragraph.span()
        unclosed: set[str] = set()  # delimiters that nothing closes from here to the paragraph's end
        while opening := OPENING.search(text, at, end):
            at = opening.end()
            kind = opening["open"]
            if kind is None or kind in unclosed:
                continue
            closing = CLOSING[kind].search(text, at + 1, end)
            if closing is None:
                unclosed.add(kind)
            else:
                at = closing.end()
                spans.append((opening.start(), at))
    return spans
