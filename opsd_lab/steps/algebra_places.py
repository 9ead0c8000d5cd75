r"""What stands around an equation with letters: whether it was read whole, and how it follows from the one before."""

import re

from opsd_lab.steps.algebra_reader import Side

NEIGHBOURHOOD = 200  # characters looked at on either side
NEAR = 40  # characters in which the symbol beside an equation must lie

ARROWS = r"=>|[⇒→⟹∴⇔]|\\(?:Long)?(?:[rR]ightarrow|leftrightarrow|Leftrightarrow)(?![a-z])|\\(?:implies|iff|to|therefore)(?![a-z])"
OPERATOR_WORDS = (
    r"(?:of|times|plus|minus|by|over|modulo|mod|gcd|lcm|a?(?:sin|cos|tan|sec|csc|cot)h?|arc\w+|log|ln|exp|sqrt|root|lim|max|min|det"
    r"|squared|cubed|percent|half|twice|double|triple|square|cube|negative|inverse|reciprocal|floor|ceil(?:ing)?|abs)"
)
# What may stand before and after an equation that was read whole; anything else is a part of it that was not read.
WORD = rf"(?!{OPERATOR_WORDS}\b)[^\W\d_]{{2,}}"
BEFORE = re.compile(
    r"(?:\n|(?m:^)[ \t]*(?:[-*+•]|\(?[0-9]{1,3}[.)]|\(?[a-z][.)])|(?:[,;.?]|(?<=\S):|(?<=[^\W\d_]{2})!)(?=[ \t])|(?<![\w)\]}])[(\[]"
    rf"|(?<![\w.])[\"“‘]|\*\*|=|&|\\\\|\\[\[(]|\\q?quad|\\[,;]|\\(?:boxed|fbox)\{{|{ARROWS}|(?<![\w\\]){WORD}(?=[ \t]))[ \t]*\Z",
    re.IGNORECASE,
)
AFTER = re.compile(
    rf"[ \t]*(?:\Z|[\r\n=&;?\"”]|\\\\|\\[\])]|\\q?quad|\\[,;]|{ARROWS}|,(?![0-9])|\.(?![\w.])|[)\]}}](?![\w(^'])|\*\*(?![\w(]))"
    rf"|\$|:(?=\s)|[ \t]+(?:\((?=[^\W\d_]{{2}})|[-–—][ \t]+(?=[^\W\d_]{{2}})|{WORD})",
    re.IGNORECASE,
)
MODULO = re.compile(r"mod\b|modul|≡|\\equiv|congruen", re.IGNORECASE)
# Where letters stand for other things than numbers, products may not commute.
NO_NUMBERS = re.compile(
    r"matri(?:x|ces)|commut|boolean|\bxor\b|quaternion|permutation|\boperators?\b|\bgroup|\bring\b", re.IGNORECASE
)
# In such company an equation that never holds may be just what the text says of it.
DOUBT = re.compile(
    r"\b(?:solv|suppos|assum|if\b|when|unless|let\b|contradict|impossib|no\b|not\b|never|cannot|can't|false|wrong|incorrect|mistake"
    r"|error|inconsist|undefined|absurd|wait\b|would|claim|hypothe|except|otherwise|either|whether|does|round|approx|about|nearest)"
    r"|n['’]t\b|≠|≈|\\(?:neq?|approx)\b|\?",
    re.IGNORECASE,
)
# Between an equation and one that follows from it stands this and nothing else, and a strong word where it is said to follow.
STRONG = re.compile(rf"{ARROWS}|\b(?:so|thus|hence|therefore|consequently|gives?|giving|get|obtain|implies|yields)\b", re.IGNORECASE)
BETWEEN = re.compile(
    rf"(?:\s|[.,;:$]|\\[\[\]()\\]|&|{ARROWS}|\b(?:so|thus|hence|therefore|consequently|this|that|it|which|means|we|you|us|have|gives?"
    r"|giving|get|obtain|implies|yields|now|then|and|simplif(?:y|ying)|combin(?:e|ing) like terms"
    r"|(?:(?:divid|multiply|subtract|add)(?:e|ing)?|by)(?: [0-9]+)?|(?:from|to|on) (?:both sides|each side)|both sides)\b)*",
    re.IGNORECASE,
)
OR = re.compile(r"\bor\b|∨|\\(?:lor|vee)\b|\beither\b", re.IGNORECASE)
ALTERNATIVE_BEHIND = re.compile(
    r"[\s$,;.)\]&\\]*(?:\\(?:q?quad|text\s*\{|mbox\s*\{)\s*)*(?:or\b|∨|\\(?:lor|vee)\b|\\pm)", re.IGNORECASE
)
TWO_THINGS = re.compile(r"\bso that\b|\band\b[\s,$\\(\[]*\Z", re.IGNORECASE)


def is_whole(text: str, left: Side, right: Side) -> bool:
    """Whether the characters beside an equation show that all of it was read, and nothing near it speaks of remainders."""
    around = text[max(0, left.start - NEIGHBOURHOOD) : right.end + NEIGHBOURHOOD]
    return not MODULO.search(around) and _begins(text, left) and AFTER.match(text, right.end) is not None


def _begins(text: str, side: Side) -> bool:
    before = text[max(0, side.start - NEAR) : side.start]
    if side.start <= NEAR and not before.strip():
        before = "\n"
    if before.rstrip(" \t").endswith("$"):  # a dollar sign before plain text is money, or ends what stands before
        return side.latex_text
    # "(2) + x": what adds to something unread is no sign of the first term.
    adds = text[side.start] in "+-\u2212" and text[side.start + 1].isspace() and not before.rstrip().endswith("=")
    return not adds and BEFORE.search(before) is not None


def speaks_of_numbers(text: str) -> bool:
    """Whether nothing in a text tells that its letters stand for matrices or the like."""
    return NO_NUMBERS.search(text) is None


def is_doubted(text: str, left: Side, right: Side) -> bool:
    """Whether the sentence or two around an equation may say that it is a condition, or that it does not hold."""
    return DOUBT.search(text[max(0, left.start - NEIGHBOURHOOD) : right.end + NEIGHBOURHOOD]) is not None


def link(between: str) -> str:
    """Return how the text between two equations joins them: "follows" (it says so), "beside" (it says nothing else), or ""."""
    if len(between) > NEIGHBOURHOOD or not BETWEEN.fullmatch(between) or TWO_THINGS.search(between):
        return ""
    return "follows" if STRONG.search(between) else "beside"


def is_alternative(text: str, left: Side, right: Side) -> bool:
    """Whether an equation is one of several of which only one need hold: "x = 2 or x = 3"."""
    sentence = re.split(r"[.!?](?=\s)|\n", text[max(0, left.start - NEIGHBOURHOOD) : left.start])[-1]
    return OR.search(sentence) is not None or ALTERNATIVE_BEHIND.match(text, right.end) is not None
