"""What stands in the answer column of a data set: numbers, lists, whole solutions, and how the final answer is taken out of those."""

import math
import re
from decimal import Decimal

CALCULATOR_MARK = re.compile(r"<<[^<>]*>>")
BOX = re.compile(r"\\(?:f?boxed|fbox)\s*(?=\{)")
WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")
BREAK = re.compile(r"[.!?](?=\s+[A-Z])|\n(?=\s*\S)")
FEW_WORDS = 3  # beside a box: "\boxed{5} apples" is an answer
MANY_WORDS, MANY_BREAKS = 25, 2  # from here on a text without any mark is no final answer
EXACT = 2**53  # whole numbers up to here have a float of their own


def kind_of(value: object) -> str:
    """Return in JSON's words what kind of value something is."""
    kinds = {
        bool: "a boolean",
        type(None): "null",
        int: "a number",
        float: "a number",
        str: "text",
        list: "an array",
        dict: "an object",
    }
    return kinds.get(type(value)) or type(value).__name__


def number_text(value: float | Decimal) -> str | None:
    """Return a number as people write it (27.0 is "27", 0.50 is "0.5"), or None if it is not finite."""
    if isinstance(value, float) and math.isfinite(value) and value.is_integer() and abs(value) <= EXACT:
        return str(int(value))
    number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    if not number.is_finite():
        return None
    text = f"{number:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def answer_text(value: object) -> tuple[object, str | None]:
    """Return an answer as text, where it is a number or the only one of a list, and the reason where it cannot be."""
    if isinstance(value, list):
        if len(value) != 1:
            remedy = "name one with a path such as 'answer.0' in a ColumnMap, or leave such rows out"
            return value, f"is a list of {len(value)} answers, not one; {remedy}"
        (value,) = value
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        text = number_text(value)
        return (value, f"is {value}, which is no finite number") if text is None else (text, None)
    return value, None


def solution_sign(answer: str) -> str | None:
    """Return why a text is a whole solution and not a final answer, with the remedy; None for an answer.

    A solution has a "####" or calculator marks (GSM8K), words around a \\boxed{...} (MATH, NuminaMath), or at least three sentences
    or lines with more than 25 words.
    """
    if "####" in answer or re.search(r"<<[^<>]*=[^<>]*>>", answer):
        mark = '"####"' if "####" in answer else "calculator marks"
        return f'holds {mark}, so it is a whole solution, as in GSM8K; use load_hub("gsm8k"), or load it with COLUMN_MAPS["gsm8k"]'
    remedy = 'split it with a ColumnMap that has extract_answer=split_boxed_answer, such as COLUMN_MAPS["math"]'
    if (spans := boxes(answer)) and len(WORD.findall(outside(answer, spans))) > FEW_WORDS:
        return f"holds words around a \\boxed{{...}}, so it is a whole solution; {remedy}"
    if (words := len(WORD.findall(answer))) > MANY_WORDS and len(BREAK.findall(answer.strip())) >= MANY_BREAKS:
        return f"has {words} words in several sentences, so it is a whole solution; keep the final answer only, or {remedy}"
    return None


def boxes(text: str) -> list[tuple[int, int]]:
    """Return the span of each \\boxed{...} with balanced braces, the outer one where one stands in another."""
    spans: list[tuple[int, int]] = []
    for found in BOX.finditer(text):
        if spans and found.start() < spans[-1][1]:
            continue
        depth = 0
        for place in range(found.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[place], 0) if text[place - 1] != "\\" else 0
            if not depth:
                spans.append((found.start(), place + 1))
                break
        else:
            break  # no brace after this one is closed
    return spans


def outside(text: str, spans: list[tuple[int, int]]) -> str:
    """Return a text without some spans."""
    starts, ends = [0, *(end for _, end in spans)], [*(start for start, _ in spans), len(text)]
    return " ".join(text[start:end] for start, end in zip(starts, ends, strict=True))


def split_gsm8k_answer(text: str) -> tuple[str, str]:
    """Take a GSM8K answer apart into its worked solution, calculator marks removed, and its final answer.

    Raises:
        ValueError: when the text has no "####" line (the format of Cobbe et al. 2021, arXiv:2110.14168).
    """
    solution, mark, answer = text.rpartition("####")
    if not mark:
        raise ValueError('has no "####" before a final answer')
    return CALCULATOR_MARK.sub("", solution).strip(), answer.strip()


def split_boxed_answer(text: str) -> tuple[str, str]:
    """Return a worked solution as it is, and the final answer that stands in its last \\boxed{...}.

    Raises:
        ValueError: when nothing is boxed, or the line of the last box has another box with another content.
    """
    spans = boxes(text)
    if not spans:
        raise ValueError("has no \\boxed{...} with a final answer")
    line = text.rfind("\n", 0, spans[-1][0])
    contents = {text[start:end].partition("{")[2][:-1].strip() for start, end in spans if start > line}
    if len(contents) > 1:
        raise ValueError(f"has several boxed answers in one line: {', '.join(sorted(contents))}")
    return text.strip(), contents.pop()
