r"""From what people write to one plain notation: what only dresses an answer goes, what carries meaning stays.

`undressed` turns Unicode into ASCII and LaTeX, drops colours, sizes and spacing, and unwraps \text{...}. A letter that stood alone
in \text{...} keeps the mark `UPRIGHT` before it: upright letters are units, others are variables.
"""

import re
import unicodedata

UPRIGHT, ROW = "\ue000", "\ue001"

SIGNS = {
    **dict.fromkeys("\u2212\u2013\u2014\u2012\u2010\u2011", "-"),
    **dict.fromkeys("\u00d7\u00b7\u22c5\u2219\u2217\u2022", "*"),
    **dict.fromkeys("\u00f7\u2215\u2044", "/"),
    **dict.fromkeys("\u00a0\u2007\u2009\u202f\u2002\u2003\u2005\u2006\u2008\u200a\u3000", "\u00a0"),
    **dict.fromkeys("\u200b\u2060\ufeff\u200e\u200f", ""),
    **dict.fromkeys("\u201c\u201d\u2018\u2019", "'"),
    **dict.fromkeys("\u3002\uff61", "."),
    **dict.fromkeys("\uff0c\u3001", ","),
    "\u2264": r"\le ",
    "\u2a7d": r"\le ",
    "\u2265": r"\ge ",
    "\u2a7e": r"\ge ",
    "\u2260": r"\ne ",
    "\u2248": r"\approx ",
    "\u221e": r"\infty ",
    "\u222a": r"\cup ",
    "\u2208": r"\in ",
    "\u2205": r"\emptyset ",
    "\u00b1": r"\pm ",
    "\u2213": r"\mp ",
    "\u221a": r"\root ",
    "\u221b": r"\cuberoot ",
    "\u00b0": r"\degree ",
    "\u00ba": r"\degree ",
    "\u211d": r"\mathbb{R}",
    "\u2124": r"\mathbb{Z}",
    "\u2026": r"\ldots ",
    "\u03c0": r"\pi ",
    "\u03b8": r"\theta ",
    "\u03b1": r"\alpha ",
    "\u03b2": r"\beta ",
    "\u03bb": r"\lambda ",
    "\u0394": r"\Delta ",
    "\u27e8": r"\langle ",
    "\u27e9": r"\rangle ",
}
RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ", "0123456789+-()ni", strict=True))
LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₍₎", "0123456789+-()", strict=True))
RAISED_RUN, LOWERED_RUN = re.compile(f"[{''.join(RAISED)}]+"), re.compile(f"[{''.join(LOWERED)}]+")

WRAPPERS = re.compile(
    r"\\(text|textbf|textit|textrm|textnormal|textsf|texttt|mbox|hbox|mathrm|mathbf|mathit|mathsf|boldsymbol|bm|operatorname|emph|"
    r"underline|underset|uppercase|mathop|ensuremath)\s*\*?\s*\{([^{}]*)\}"
)
UPRIGHTS = {"text", "textbf", "textit", "textrm", "textnormal", "textsf", "texttt", "mbox", "hbox", "mathrm", "mathsf", "emph"}
COLOURED = re.compile(
    r"\\textcolor\s*\{[^{}]*\}|\\(?:color|colorbox)\s*\{[^{}]*\}|\\color\s*(?:red|blue|green|black|orange|purple)\b"
)
SIZES = re.compile(
    r"\\(?:left|right|bigl|bigr|Bigl|Bigr|biggl|biggr|big|Big|bigg|Bigg|middle|displaystyle|textstyle|scriptstyle|limits|"
    r"tiny|small|normalsize|large|Large|LARGE|huge|Huge|bf|rm|it|mathstrut|boldmath|centering|nonumber|notag|strut)(?![A-Za-z])"
    r"(?:\s*\.(?=\s*\\?[|\]\[(){}]|\s*$))?"
)
SPACES = re.compile(
    r"\\(?:quad|qquad|enspace|thinspace|medspace|thickspace|nobreakspace)(?![A-Za-z])|\\(?:hspace|vspace|hskip|phantom|label|tag)\*?\s*\{[^{}]*\}|~"
)
RENAMED = [
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\[dt]binom(?![A-Za-z])"), r"\\binom"),
    (re.compile(r"\\(?:leqslant|leqq|leq)(?![A-Za-z])"), r"\\le "),
    (re.compile(r"\\(?:geqslant|geqq|geq)(?![A-Za-z])"), r"\\ge "),
    (re.compile(r"\\(?:neq|not\s*=)(?![A-Za-z])"), r"\\ne "),
    (re.compile(r"\\lt(?![A-Za-z])"), "<"),
    (re.compile(r"\\gt(?![A-Za-z])"), ">"),
    (re.compile(r"\\(?:simeq|sim|doteq)(?![A-Za-z])"), r"\\approx "),
    (re.compile(r"\\(?:cdot|times|ast)(?![A-Za-z])"), "*"),
    (re.compile(r"\\div(?![A-Za-z])"), "/"),
    (re.compile(r"\\(?:dots|cdots|dotsc|dotsb|hdots)(?![A-Za-z])"), r"\\ldots "),
    (re.compile(r"\\(?:varnothing|oslash|O)(?![A-Za-z])|\\\{\s*\\\}"), r"\\emptyset "),
    (re.compile(r"\^\s*\{?\s*(?:\\circ|\\degree)\s*\}?|\\(?:textdegree|degree)(?![A-Za-z])"), r"\\degree "),
    (re.compile(r"\\(?:lbrace)(?![A-Za-z])"), r"\\{"),
    (re.compile(r"\\(?:rbrace)(?![A-Za-z])"), r"\\}"),
    (re.compile(r"\\lbrack(?![A-Za-z])"), "["),
    (re.compile(r"\\rbrack(?![A-Za-z])"), "]"),
    (re.compile(r"\\(?:lvert|rvert|vert|mid)(?![A-Za-z])"), "|"),
    (re.compile(r"\\colon(?![A-Za-z])"), ":"),
    (re.compile(r"\\(?:land|wedge)(?![A-Za-z])"), " and "),
    (re.compile(r"\\(?:lor|vee)(?![A-Za-z])"), " or "),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"\\[#&]"), " "),
    (re.compile(r"\\(?:pounds|textsterling)(?![A-Za-z])"), "\u00a3"),
    (re.compile(r"\\(?:euro|texteuro)(?![A-Za-z])"), "\u20ac"),
    (re.compile(r"\\(?:bar|dot)(?=\s*\{?[0-9])"), r"\\overline"),
]
GROUP = re.compile(r"(?<![0-9.])([0-9]{1,3})((?:(?:\{,\}|,\\!|\\,|\\[ ;:]|\\thinspace|~|\u00a0|_)[0-9]{3})+)(?![0-9])")
MATH = [
    re.compile(r"^\$\$(.*)\$\$$", re.S),
    re.compile(r"^\$(.*)\$$", re.S),
    re.compile(r"^\\\((.*)\\\)$", re.S),
    re.compile(r"^\\\[(.*)\\\]$", re.S),
]
ELLIPSIS = re.compile(r"(?<!\.)\.\.\.(?!\.)")
CLOSING = re.compile(r"(?:\s|\\\\|\\$|(?<!\.)\.(?!\.)|[,;:](?<!\\;)|\\(?:;|,|!|:)|\*\*)+$")


def to_ascii(text: str) -> str:
    """Return a text with digits of every script, powers, roots, fractions and operators in ASCII or LaTeX."""
    if text.isascii():
        return text
    text = RAISED_RUN.sub(lambda run: "^{" + "".join(RAISED[c] for c in run.group()) + "}", text)
    text = LOWERED_RUN.sub(lambda run: "_{" + "".join(LOWERED[c] for c in run.group()) + "}", text)
    return "".join(_ascii(char) for char in text)


def _ascii(char: str) -> str:
    if char < "\x80":
        return char
    if char in SIGNS:
        return SIGNS[char]
    if "\uff01" <= char <= "\uff5e":
        return chr(ord(char) - 0xFEE0)
    if (digit := unicodedata.digit(char, None)) is not None:
        return str(digit)
    if unicodedata.decomposition(char).startswith("<fraction>"):
        top, _, bottom = unicodedata.normalize("NFKD", char).partition("\u2044")
        return rf"\frac{{{top}}}{{{bottom}}}" if bottom.isdigit() else char
    return char


def undressed(text: str) -> str:
    """Return an answer in plain notation: no delimiters of mathematics, wrappers, colours, sizes or closing punctuation."""
    text = ELLIPSIS.sub(r"\\ldots ", to_ascii(text).strip().strip("`").strip())
    for _ in range(4):
        bare = text
        for delimiters in MATH:
            inside = delimiters.match(bare)
            if inside and not re.search(r"(?<!\\)\$|\\\(|\\\[", inside[1]):
                bare = inside[1].strip()
        bare = CLOSING.sub("", bare).strip()
        if bare.startswith("**"):
            bare = bare.removeprefix("**").removesuffix("**").strip()
        if bare == text:
            break
        text = bare
    # A doubled backslash ends a row of a matrix; before a command elsewhere it is an escaped single one.
    text = (
        re.sub(r"\\\\(?:\[[^\]]*\])?", ROW, text)
        if "\\begin" in text
        else re.sub(r"\\\\(?![A-Za-z])", " ", text).replace(r"\\", "\\")
    )
    text = re.sub(r"\\\$", "$", text)
    text = re.sub(r"\$(?![0-9.\-\\ ]|$)|(?<=[0-9}])\$", " ", text) if text.count("$") > 1 else text
    text = GROUP.sub(lambda whole: whole[1] + re.sub(r"[^0-9]", "", whole[2]), text)
    text = COLOURED.sub(" ", text)
    for _ in range(8):
        found = WRAPPERS.sub(_unwrapped, text)
        if found == text:
            break
        text = found
    text = SPACES.sub(" ", SIZES.sub("", text))
    for pattern, name in RENAMED:
        text = pattern.sub(name, text)
    text = re.sub(r"\\!", "", text)
    text = re.sub(r"\\[,;:> ](?![A-Za-z])|\\[,;:> ]", " ", text)
    text = re.sub(r"\{,\}", ",", text).replace("\u00a0", " ")
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"\s+(?=[\^_])", "", text)
    return CLOSING.sub("", text).strip()


def _unwrapped(wrapper: re.Match[str]) -> str:
    kind, content = wrapper.groups()
    if kind not in UPRIGHTS:
        return f" {content} " if len(content.strip()) > 1 and content.strip().isalpha() else content
    if content.strip() in {"i", "e", "d", "x", "y", "\u03c0"} and kind.startswith("math"):
        return content
    marked = re.sub(r"(?<![A-Za-z])([A-Za-z])(?![A-Za-z.])", UPRIGHT + r"\1", content)
    return f" {marked} "
