"""The grader beside math-verify on the labelled answers: how often each is right, and the time that an answer takes."""

import collections
import json
import time
from collections.abc import Callable, Sequence

import tyro
from tqdm.auto import tqdm

from opsd_lab.grading import Grader
from tests.benchmarks.measure import show
from tests.labelled_answers import PATH

Row = dict[str, str]
SECONDS = 5  # the time limit of an answer, for both


def ours(rows: Sequence[Row]) -> list[str]:
    """Return the grader's verdicts on the completions, and put each one's final answer into its row."""
    with Grader(seconds=SECONDS) as grader:
        grades = grader.grade([row["completion"] for row in rows], [row["reference"] for row in rows])
    for row, grade in zip(rows, grades, strict=True):
        row["answer"] = grade.final_answer or ""
    return [grade.final for grade in grades]


def math_verify(rows: Sequence[Row]) -> list[str]:
    """Return math-verify's verdicts on the answers that the grader found, so that extraction makes no difference."""
    from math_verify import parse, verify

    verdicts = []
    for row in tqdm(rows, desc="math-verify", leave=False):
        gold, answer = (parse(rf"\boxed{{{text}}}", parsing_timeout=SECONDS) for text in (row["reference"], row["answer"]))
        verdicts.append("correct" if verify(gold, answer, timeout_seconds=SECONDS) else "incorrect")
    return verdicts


def compare() -> dict[str, object]:
    """Return for each grader how many answers of each label got each verdict, and the milliseconds per answer."""
    rows = [json.loads(line) for line in PATH.read_text(encoding="utf-8").splitlines()]
    ways: dict[str, Callable[[Sequence[Row]], list[str]]] = {"ours": ours, "math-verify": math_verify}
    found: dict[str, object] = {"answers": len(rows)}
    for name, way in ways.items():
        started = time.perf_counter()
        verdicts = way(rows)
        seconds = time.perf_counter() - started
        counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        for row, verdict in zip(rows, verdicts, strict=True):
            counts[row["verdict"]][verdict] += 1
        found[name] = {"verdicts": counts, "milliseconds": 1000 * seconds / len(rows)}
    return found


def main() -> None:
    """Print the comparison."""
    show(compare())


if __name__ == "__main__":
    tyro.cli(main)
