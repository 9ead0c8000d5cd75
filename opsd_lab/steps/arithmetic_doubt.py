"""Words around an equation that suppose it, deny it, or tell of other rules than those of arithmetic."""

import re

from opsd_lab.steps.arithmetic_reader import Side

NEAR = 80  # characters looked at on either side for remainders
NEIGHBOURHOOD = 200  # characters looked at on either side for doubt

MODULO = re.compile(r"\bmod\b|modul|≡|\\equiv|\\[pb]?mod|congruen", re.IGNORECASE)
# In such company an equation that is false may be just what the text says of it, or hold by other rules.
DOUBT = re.compile(
    r"\b(?:suppos|assum|contradict|not (?:true|possible|equal)|no (?:such|solution)|does not hold|impossib"
    r"|false|wrong|incorrect|mistake|error|absurd|inconsist|hypothe|undefined|wait\b|pretend"
    r"|imagine|claim|bases?\b|binary|octal|hexadecimal|ternary|clock|defin|operation|boolean|matri|vector|tropical|puzzle|riddle|cipher"
    r"|dots\b|instead|actual|should\b|oops|correction|typo|nonsense|joke)",
    re.IGNORECASE,
)
DOUBTED_SENTENCE = re.compile(
    r"\b(?:never|cannot|neither|nor\b|either|would (?:mean|imply|have to)|might\b|except|rather than|guess|thinks?\b|thought|believ"
    r"|says?\b|said\b|approx|about\b|around\b|roughly|nearly|almost|estimat|round|nearest|let\b|true or)"
    r"|n['’]t\b|≠|≈|~|\\(?:neq?|approx|sim)\b|\?",
    re.IGNORECASE,
)
DOUBTED_BEFORE = re.compile(
    r"\b(?:no|not)\b|\b(?:if|unless|when|whether)\b(?!.*(?:,|\bthen\b))|\bif\b.*\bwere\b", re.IGNORECASE | re.DOTALL
)
DOUBTED_BEHIND = re.compile(r"\b(?:if|unless)\b|\bnot (?:true|right|possible|correct|valid|what|the|equal|a)\b", re.IGNORECASE)
SENTENCE_EDGE = re.compile(r"[.!;?](?=\s)|\n")
THINKING_MARK = re.compile(r"</?think(?:ing)?>|\[/?THINK\]|◁/?think▷")  # "think" in it is no doubt


def speaks_of_remainders(text: str, left: Side, right: Side) -> bool:
    """Whether a word near an equation tells that it is one of remainders modulo a number."""
    return MODULO.search(text[max(0, left.start - NEAR) : right.end + NEAR]) is not None


def is_doubted(text: str, left: Side, right: Side) -> bool:
    """Whether the text around an equation may suppose or deny it, or tell of other rules."""
    start, end = max(0, left.start - NEIGHBOURHOOD), min(len(text), right.end + NEIGHBOURHOOD)
    edges = [match.end() for match in SENTENCE_EDGE.finditer(text, start, left.start)]
    closing = SENTENCE_EDGE.search(text, right.end, end)
    head = text[edges[-1] if edges else start : left.start]
    tail = text[right.end : closing.end() if closing else end]
    head, tail = THINKING_MARK.split(head)[-1], THINKING_MARK.split(tail)[0]
    if DOUBT.search(text[start:end]) or DOUBTED_SENTENCE.search(head) or DOUBTED_SENTENCE.search(tail):
        return True
    return DOUBTED_BEFORE.search(head) is not None or DOUBTED_BEHIND.search(tail) is not None
