"""The process that compares answers, run by its path as a script: it imports math-verify and nothing else of ours.

One JSON list a line comes in on standard input, one JSON string a line goes out on standard output. `[gold]` asks
whether a reference answer can be read, `[gold, answer]` whether the answer equals it. Only LaTeX parsing is used:
math-verify's plain-expression parser ends in `eval`, and these texts are untrusted.
"""

import contextlib
import faulthandler
import json
import logging
import os
import sys

from math_verify import LatexExtractionConfig, parse, verify

LATEX = (LatexExtractionConfig(boxed_match_priority=0),)


def limit_memory(limit_bytes: int) -> None:
    """Bound this process's address space, where the operating system has such a bound."""
    # Windows has no `resource` module and macOS refuses this limit; the time limit holds there all the same.
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        soft = limit_bytes if hard == resource.RLIM_INFINITY else min(limit_bytes, hard)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


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


def serve(seconds: float, limit_bytes: int) -> None:
    """Answer requests until standard input ends."""
    logging.disable()
    # Replies keep a descriptor of their own, so that whatever a library prints cannot be taken for one.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    reply("1", r"\frac{1}{2}")  # the parser builds its tables on first use; that must not count against an answer
    limit_memory(limit_bytes)
    print(json.dumps("ready"), file=replies, flush=True)
    with open(os.devnull, "w") as nowhere:
        for line in sys.stdin:
            # The parent kills a late worker; should the parent be gone, the worker ends itself.
            faulthandler.dump_traceback_later(2 * seconds + 10, exit=True, file=nowhere)
            print(json.dumps(reply(*json.loads(line))), file=replies, flush=True)
            faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    serve(float(sys.argv[1]), int(sys.argv[2]))
