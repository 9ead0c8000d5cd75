"""The process that compares answers, run by its path as a script: math-verify and `limited_process` are all it loads.

`[gold]` asks whether a reference answer can be read, `[gold, answer]` whether the answer equals it. Only LaTeX parsing is used:
math-verify's plain-expression parser ends in `eval`, and these texts are untrusted.
"""

import logging
import runpy
import sys
from pathlib import Path

from math_verify import LatexExtractionConfig, parse, verify

# Run by its path with -P, a script finds the modules beside it by their paths only.
_shared = runpy.run_path(str(Path(__file__).with_name("limited_process.py")))
limit_memory, serve = _shared["limit_memory"], _shared["serve"]

LATEX = (LatexExtractionConfig(boxed_match_priority=0),)


def read_answer(text: str) -> list[object]:
    """Parse an answer into math-verify's list: the SymPy expression, if there is one, and the normalised text."""
    # math-verify's own time-outs need signals; the parent's limit stands in for them.
    return list(parse(rf"\boxed{{{text}}}", LATEX, parsing_timeout=None))


def is_expression(parsed: list[object]) -> bool:
    """Whether the parsed answer holds more than its own text."""
    return any(not isinstance(item, str) for item in parsed)


def reply(gold: str, *answer: str) -> str:
    """Return "readable" or "unreadable" for a reference answer alone, else the verdict on the answer."""
    reference = read_answer(gold)
    if not answer:
        return "readable" if is_expression(reference) else "unreadable"
    given = read_answer(answer[0])
    try:
        equal = verify(reference, given, timeout_seconds=None, raise_on_error=True)
    except Exception:
        return "unverifiable"
    if equal:
        return "correct"
    return "incorrect" if is_expression(given) else "unverifiable"


if __name__ == "__main__":
    logging.disable()
    # The parser builds its tables on first use; that must not count against an answer.
    serve(reply, ("1", r"\frac{1}{2}"), float(sys.argv[1]), int(sys.argv[2]))
