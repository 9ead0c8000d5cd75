r"""What touches written arithmetic: whether all of it was read.

What may stand beside a side of an equation is listed here; all else counts as a part of it that was not read.
"""

import re
from typing import Literal

from opsd_lab.steps.arithmetic_doubt import MODULO
from opsd_lab.steps.arithmetic_lexer import OPERATOR_WORDS, TOUCHING_UNITS
from opsd_lab.steps.arithmetic_reader import Side

# "whole": nothing more belongs to the side. "cut": something does. "open": perhaps something does, so that only agreement counts.
Edge = Literal["whole", "open", "cut"]

NEAR = 80  # characters in which the symbols beside a side must lie

FOREIGN = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0e00-\u0e7f"  # scripts without blanks between words
ARROW = r"(?:=>|->|[⇒→⟹∴⇔]|\\(?:Long)?(?:[rR]ightarrow|leftrightarrow|Leftrightarrow)|\\(?:implies|iff|to|therefore))"
RELATION = rf"(?:[<>≤≥≈=]|\\(?:leq?|geq?|approx|lt|gt)(?![a-z])|{ARROW})"
SPACING = re.compile(r"(?:\\[,;:! ]|\\q?quad|\\left|\\[bB]igg?l?|~|&|\\\\|[ \t])+\Z")
TEXT = re.compile(r"\\(?:text|textrm|textbf|textit|mathrm|mbox)\{([^{}]*)\}")
LIST_MARK = re.compile(r"(?m:^)[ \t]*(?:[-*+•>]|\#{1,6}|\(?[0-9]{1,3}[.)]|\(?[a-z][.)])[ \t]+\Z")
HARD_WORD = re.compile(rf"(?:{OPERATOR_WORDS})\Z", re.IGNORECASE)
SHARE = re.compile(rf"(?:[0-9%½¼¾⅓⅔}}]|{OPERATOR_WORDS})[ \t]+of\Z", re.IGNORECASE)
# Words before an expression that leave it as it is; after any other, such as "pages 3-5", its numbers may be names.
CLEAR_WORD = re.compile(
    r"(?:so|then|thus|hence|therefore|now|and|or|that|which|this|it|he|she|they|we|you|there|is|are|was|were|be|been|will|"
    r"would|has|have|had|get|gets|got|gotten|make|makes|made|need|needs|needed|use|uses|used|cost|costs|pay|pays|paid|spend|"
    r"spends|spent|earn|earns|sell|sells|sold|buy|buys|bought|give|gives|gave|given|take|takes|took|taken|eat|eats|ate|"
    r"eaten|total|totals|totaling|totalling|sum|difference|product|compute|computes|calculate|calculates|calculation|find|"
    r"finds|found|add|adds|adding|simplify|evaluate|answer|solution|result|results|only|also|left|remaining|remain|remains|"
    r"altogether|together|another|about|because|since|but|while|where|means|mean|know|see|sees|saw|like|as|drink|drinks|"
    r"drank|drive|drives|drove|driven|run|runs|ran|read|reads|write|writes|wrote|written|work|works|walk|walks|save|saves|"
    r"receive|receives|collect|collects|produce|produces|contain|contains|hold|holds|held|weigh|weighs|charge|charges|lose|"
    r"loses|lost|win|wins|won|score|scores|keep|keeps|kept|last|lasts|grow|grows|grew|plant|plants|bake|bakes|put|puts|"
    r"leave|leaves|leaving|giving|making|getting|having|become|becomes|became|equal|equals|yield|yields|obtain|obtains|us|"
    r"them|him|her|did|done|an|the|start|starts|pick|picks|end|ends|do|does|for|in|all|up|out|worth|additional|extra|"
    r"require|requires|bring|brings|brought|send|sends|sent|carry|carries|build|builds|built|travel|travels|go|goes|went|"
    r"with|sleep|sleeps|slept|cover|covers|raise|raises|ride|rides|rode|dig|digs|dug|want|wants|consume|consumes|catch|"
    r"catches|caught|throw|throws|threw|create|creates|perform|performs|burn|burns|learn|learns|cook|cooks|cut|cuts|sit|"
    r"sits|teach|teaches|taught|watch|watches|answers|finish|finishes|play|plays|serve|serves|wear|wears|feed|feeds|fed|"
    r"fill|fills|let's|into|equally|i've"
    r"|(?:that|it|he|she|there|what|here)['’]s|(?:they|we|you)['’](?:re|ve|ll)|(?:he|she|it|i)['’](?:ll|d)|(?!hundr|seed|b?leed|speed|feed|weed|breed|shred)[a-z]{3,}ed)\Z",
    re.IGNORECASE,
)
CLEAR_OF = re.compile(
    r"(?:total|sum|amount|cost|profit|price|value|result|answer|difference|average|number|combined|remaining|rest|savings?|loss|area"
    r"|perimeter|volume|distance|weight|balance|bill|revenue|income|expense|tip|change|score|length|height|speed|rate|minutes|hours)"
    r"(?: [a-z]+)?[ \t]+of\Z",
    re.IGNORECASE,
)
# Behind a result: it may be counted in hundreds or dozens, go on, be a time of day, or leave a remainder.
OPENING_WORD = re.compile(
    r"(?:remainder|remaining|remain|rem|with|and|or|plus|r|a|of|m|g|l|h|s|i|am|pm|a\.m|p\.m|o|cents?|pence|to|more|less|fewer|greater"
    r"|half|halves|quarters?|thirds?|tenths?|hundredths?|thousandths?|hundreds?|thousands?|millions?|billions?|trillions?|dozens?|score"
    r"|percent|per|points?|k|mod|in|on|if|when|unless|without|full|whole|complete|round\w*|approx\w*)\Z",
    re.IGNORECASE,
)
GOES_ON = re.compile(r"[ \t]*(?:[*/×÷^](?![ \t*])|[×÷/^]|\\(?:times|cdot|div)(?![A-Za-z]))")


def begins(text: str, side: Side) -> Edge:
    """Return what stands before the left side says of it; `text` is `plain`."""
    before = text[max(0, side.start - NEAR) : side.start]
    before = before if side.start > NEAR else "\n" + before
    first = text[side.start]
    # "y - 3 + 5": what adds to or subtracts from something unread is not the sign of the first number.
    if first in "-+" and (text[side.start + 1].isspace() or re.search(r"[\w)\]}.…%$]\Z", before)):
        return "cut"
    # "(1) + (2)" may be names of equations, "1 and 1/4" is one number.
    if re.match(r"\([0-9]{1,2}\)[ \t]*[-+]", text[side.start : side.start + 12]):
        return "open"
    if re.search(r"[0-9][ \t]+and[ \t]+\Z", before) and re.match(
        r"[0-9]+/[0-9]+(?![ \t]*[-+*x×÷])", text[side.start : side.start + 24]
    ):
        return "cut"
    if mark := LIST_MARK.search(before):
        above = before[: mark.start()].rstrip().rpartition("\n")[2]
        written_below = re.search(r"[0-9)}]\Z", above) and not re.match(r"[ \t]*[-+*][ \t]", above)
        return "open" if written_below and mark.group().strip() in "+-*" else "whole"
    bare = SPACING.sub("", before)
    return _before(bare, touching=bare == before, digits=_leading_digits(text, side.start))


def _leading_digits(text: str, start: int) -> int:
    found = re.match(r"[0-9]+(?![0-9,])", text[start : start + 8])
    return len(found.group()) if found else 0


def _before(bare: str, touching: bool, digits: int) -> Edge:
    if bare.endswith("\n") or not bare:
        above = bare.rstrip()
        return "cut" if re.search(r"(?:[-+*/×÷·^(_]|\\(?:times|cdot|div))\Z", above) else "whole"
    if re.search(rf"{RELATION}\Z|\\[\[(]\Z|\\begin\{{[a-z]+\*?\}}\Z", bare):
        return "whole"
    if dollars := re.search(r"\\?\$+\Z", bare):
        rest = bare[: dollars.start()]
        if re.search(r"[\w)\]}^]\Z", rest):
            return "cut"
        blank = SPACING.sub("", rest)
        return _before(blank, touching=False, digits=digits) if dollars.group() != "$$" else "whole"
    if opened := re.search(r"(?P<behind>\S?)(?P<blank>[ \t]*)(?:[(\[]|\\(?:boxed|fbox)\{)\Z", bare):
        return _bracket(opened["behind"], opened["blank"], bare[: opened.start("blank")])
    if re.search(r"(?<![\w)\]}*])(?:[\"“‘'`«„]|\*\*)\Z", bare):
        return "whole"
    if re.search(r"(?<=[^\W\d_])[\"”'’`»]\Z|(?<=[\w.:!?,)])\*\*\Z", bare):
        return "whole" if not touching else "cut"
    if re.search(r"[、。，：；「『（！？]\Z", bare):
        return "whole"
    if re.search(r"(?<![<>!=])=[ \t]*[$]?[0-9][0-9,]*(?:\.[0-9]+)?\.\Z", bare) and not touching and digits != 3:
        return "whole"  # "1 + 1 = 2. 3 + 4 = 7"
    if mark := re.search(r"(\S?)[.,;:?!]\Z", bare):
        return _mark(mark.group(1), bare[-1], touching, digits)
    if re.search(rf"[{FOREIGN}]\Z", bare):
        return "open"
    if inside := re.search(TEXT.pattern + r"\Z", bare):
        bare = inside.group(1).rstrip()
        return _word(bare) if bare else "open"
    if re.search(r"[^\W\d_]\Z", bare):
        return "cut" if touching else _word(bare)
    if re.search(r"(?<![<>!=])=[ \t]*[$]?[0-9]+(?:\.[0-9]+)?\Z", bare) and not touching and digits != 3:
        return "whole"  # "1 + 1 = 2 3 + 4 = 7"
    if re.search(r"[^\W\d_]{2}\)\Z|[ \t]\|\Z|\n\|\Z", bare) and not touching:
        return "open"
    return "cut"


def _bracket(behind: str, blank: str, rest: str) -> Edge:
    if not behind or behind == "\n":
        return "whole"
    if rest.endswith("**"):
        return "whole"
    if not blank:
        return "cut" if re.match(r"[\w)\]}^_'’!%|√}]", behind) else "whole" if behind in "$=" else "open"
    if re.match(r"[-+*/×÷^_|√]", behind):
        return "cut"
    word = re.search(r"[^\W\d_]+\Z", rest)
    if word and (HARD_WORD.match(word.group()) or len(word.group()) == 1):
        return "cut"
    return "open" if re.match(r"[0-9)\]}%]", behind) else "whole"


def _mark(behind: str, mark: str, touching: bool, digits: int) -> Edge:
    if not behind or behind in ".…":
        return "whole" if not behind and mark in ";:?" else "cut"  # a spaced point, dots
    if behind.isdigit():
        if touching:
            return "cut"
        return "open" if mark in ".!" or (mark == "," and digits == 3) else "whole"
    if touching:
        return "whole" if mark in ",:;" and behind.isalpha() else "cut"
    return "whole"


def _word(bare: str) -> Edge:
    found = re.search(r"(\\?)((?:[^\W\d_]|['’](?=[^\W\d_]))+)\Z", bare)
    if found is None or found.group(1):
        return "cut"
    word = found.group(2)
    behind = bare[: found.start()]
    if word.lower() == "by" and not re.search(r"(?:divi|multipl|times|mod)\w*[ \t]+\Z", behind, re.IGNORECASE):
        return "open"
    if HARD_WORD.match(word) or (behind and re.search(r"[\w_^]\Z", behind)):
        return "cut"
    if word.lower() == "of":
        return "cut" if SHARE.search(bare) else "whole" if CLEAR_OF.search(bare) else "open"
    if len(word) == 1 and word not in "aAIàyеиו":
        return "cut"
    named = word.lower() in ("or", "to", "and") and re.search(r"[0-9%][ \t]*\Z", behind)
    return "whole" if (CLEAR_WORD.match(word) or word.lower() == "to") and (not named or word.lower() == "and") else "open"


def ends(text: str, side: Side) -> tuple[Edge, str]:
    """Return what stands behind the right side says of it, and the word or sign that its result is counted in, or ""."""
    after = TEXT.sub(lambda match: " " + match.group(1), text[side.end : side.end + NEAR])
    if touched := re.match(r"[^\W\d_]+", after):
        if re.match(rf"[{FOREIGN}]", after):
            return "open", ""
        if not TOUCHING_UNITS.match(after):
            return "cut", ""
        if re.match(r"(?:st|nd|rd|th)\b", after):
            return "open", ""
        return _behind_word(touched.group(), after[touched.end() :])
    bare = re.sub(r"\A(?:\\[,;:! ]|\\q?quad(?![a-z])|~|&|[ \t])+", "", after)
    blank = len(bare) < len(after)
    if not bare or bare[0] in "\r\n" or bare.startswith("\\\\"):
        return _next_line(bare, text, side), ""
    if re.match(RELATION, bare) and not bare.startswith("=="):
        return "whole", ""
    if word := re.match(r"[^\W\d_]+", bare):
        return _behind_word(word.group(), bare[word.end() :])
    if per := re.match(r"/[ ]?[^\W\d_]{2,}", bare):
        return ("cut" if re.match(r"[ \t]*[(*/^×÷+=_]", bare[per.end() :]) else "open"), ""
    return _behind_sign(bare, blank, text, side)


def _behind_sign(bare: str, blank: bool, text: str, side: Side) -> tuple[Edge, str]:
    if closed := re.match(r"[)\]}]+", bare):
        following = bare[closed.end() : closed.end() + 1]
        goes_on = re.match(r"[\w(^'{!%]", following) or re.match(
            r"[ \t]*(?:[*/×÷^+]|\\(?:times|cdot|div))(?!\*)", bare[closed.end() :]
        )
        return ("cut" if goes_on else "whole"), ""
    if re.match(r"\\?\$+(?!\d)|\\[\])]|\*\*(?![\w(])|[\"”’»`'](?!\w)|\\end\{", bare):
        return ("cut" if re.match(r"['’]", bare) and not blank else "whole"), ""
    if re.match(r"\*(?![ \t*(\w])", bare) or re.match(r"[、。，；」）]", bare) or bare[0] in "|":
        return ("open" if bare[0] in "*|" else "whole"), ""
    if re.match(r"\.\.|…|\\[lc]?dots", bare):
        return "open", ""
    if re.match(r"[.,:;?](?![\d]|\\!)", bare):
        if re.match(r"[.,][ \t]+(?:[0-9\\]|$)", bare) and blank:
            return "cut", ""
        if re.match(r"\.[ \t]*\\(?:overline|bar|dot)|\.\w", bare):
            return "cut", ""
        last = re.search(r"[0-9]+\Z", text[max(0, side.end - 8) : side.end])
        grouped = re.match(r",[ \t]+[0-9]{3}(?![0-9])", bare) and last is not None and len(last.group()) <= 3
        left_over = re.match(r",?[ \t]*(?:with )?(?:a )?(?:remainder|rem\b|[rR] ?[0-9])", bare)
        return ("open" if grouped or left_over else "whole"), ""
    if bare[0] == "!":
        return ("open" if not blank else "cut"), ""
    if re.match(r"\([ \t]*[^\W\d_]{2}", bare) and blank:
        return ("cut" if MODULO.match(bare[1:6].strip()) else "open" if re.match(r"\([ \t]*rem", bare) else "whole"), ""
    if re.match(r"[-–][ \t]+[^\W\d_]{2}", bare) and blank:
        return "whole", ""
    if re.match(r"–", bare) and re.match(r"–[ \t]*[^\W\d_]{2}", bare):
        return "whole", ""
    if re.match(r"-[^\W\d_]{2}", bare):
        return "open", ""
    if blank and re.match(r"[0-9]+(?:\.[0-9]+)?[ \t]*[-+*/×÷][^=\n]{1,20}=", bare):
        return "open", ""
    if re.match(r"\\?%|[¢°€]|\^\{?\\circ", bare):
        return "open", "%"
    return "cut", ""


def _behind_word(word: str, rest: str) -> tuple[Edge, str]:
    if re.match(r"times\Z|square\Z|cubic\Z", word) and not re.match(r"[ \t]*[$\d(]|[ \t]+(?:root|of)\b", rest):
        return ("whole" if word != "times" else "open"), word
    if (HARD_WORD.match(word) and not OPENING_WORD.match(word)) or re.match(
        r"[(_^]|[ \t]*(?:[+*/^×÷](?!\*)|\\(?:times|cdot|div))", rest
    ):
        return ("open" if re.match(r"[ \t]?/[ \t]?[^\W\d_]{2}", rest) else "cut"), word
    if OPENING_WORD.match(word) and not re.match(r"(?:and|or|to|in|on|if|when)\Z", word):
        return "open", word
    if re.match(r"(?:and|or|to)\Z", word, re.IGNORECASE):
        # "and 5 + 6 = 11" is another equation, "and 2/3", "and 30 minutes" and "and a half" belong to the result.
        another = re.match(r"[ \t]+\$?[0-9][0-9.,]*(?:[ \t]*[-+*×÷·]|[ \t]+[/x])|[ \t]+(?!a\b|an\b|one\b|half\b)[^\W\d_]{2,}", rest)
        return ("whole" if another else "open"), word
    if len(word) == 1:
        return "cut", word
    return ("open" if re.match(r"[ \t,]*(?:and[ \t]+)?[0-9]", rest) else "whole"), word


def _next_line(bare: str, text: str, side: Side) -> Edge:
    following = bare.lstrip("\\\r\n \t&")[:12] if bare else ""
    if GOES_ON.match(following):
        return "cut"
    line = text[text.rfind("\n", max(0, side.start - 4 * NEAR), side.start) + 1 : side.start + 1].lstrip()
    return "open" if re.match(r"[-+*]", following) and not re.match(r"[-+*•]", line) and not bare.startswith("\n\n") else "whole"
