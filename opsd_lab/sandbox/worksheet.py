"""The sandbox's problems: worksheets of four independent calculations, chains of three that build on each other, and lists to tell.

Every text is made of the few words of `vocabulary.py`. A worksheet's reference solution names the results only; the model's own way
of writing has a line for each calculation. So the reference informs without showing how an answer is written.
"""

from dataclasses import dataclass

import numpy as np

from opsd_lab.problems.problem import Problem

NAMES = ("Ann", "Bob", "Cid", "Dee", "Eve", "Fay")
ITEMS = 4  # people on a worksheet or in a list
EVENTS = 3  # of a chain
TASKS = ("sheet", "chain", "easy", "recall")
SPLITS = {"train": 0, "validation": 1, "test": 2}


@dataclass(frozen=True)
class Line:
    """One calculation: `before` and then `amount` more (sign 1) or less (sign -1)."""

    before: int
    sign: int
    amount: int

    @property
    def result(self) -> int:
        """What it comes to."""
        return self.before + self.sign * self.amount

    def text(self) -> str:
        """Return the calculation as the model writes it."""
        return f"{self.before}{'+' if self.sign > 0 else '-'}{self.amount}={self.result}"


def own_solution(problem: Problem) -> str:
    """Return a problem's solution the way the model writes: a line for each calculation or fact, then the answer in a box."""
    return "\n".join([*problem.meta["lines"], f"\\boxed{{{problem.answer}}}"])


def draw_problem(task: str, rng: np.random.Generator, name: str = "drawn") -> Problem:
    """Return a random problem of a task.

    "sheet": four people each have a two-digit number of things and get or lose some; the answer is all four results. "chain": one
    person gets and loses three times; the answer is the last result. "easy": a worksheet with one-digit numbers. "recall": who has
    how many, told again without a calculation.

    Raises:
        ValueError: for an unknown task.
    """
    if task not in TASKS:
        raise ValueError(f"no sandbox task {task!r}; there are {', '.join(TASKS)}")
    people = rng.permutation(NAMES)[:ITEMS].tolist()
    if task == "recall":
        counts = [str(count) for count in rng.integers(10, 100, ITEMS)]
        question = " ".join(f"{who} has {count}." for who, count in zip(people, counts, strict=True))
        meta = {"task": task, "lines": [f"{who} has {count}" for who, count in zip(people, counts, strict=True)]}
        told = ", ".join(counts)
        return Problem(name, question, told, told, tuple(count[-1] for count in counts), meta)
    if task == "chain":
        lines = [_line(int(rng.integers(10, 100)), rng, 10)]
        while len(lines) < EVENTS:
            lines.append(_line(lines[-1].result, rng, 10))
        events = "".join(_event(line) for line in lines)
        question, answer = f"{people[0]} has {lines[0].before}{events}.", str(lines[-1].result)
    else:
        least, most = (10, 100) if task == "sheet" else (1, 10)
        lines = [_line(int(rng.integers(least, most)), rng, least) for _ in people]
        question = " ".join(f"{who} has {line.before}{_event(line)}." for who, line in zip(people, lines, strict=True))
        answer = ", ".join(str(line.result) for line in lines)
    results = [str(line.result) for line in lines]
    meta = {"task": task, "lines": [line.text() for line in lines]}
    return Problem(name, question, answer, ", ".join(results), tuple(result[-1] for result in results), meta)


def worksheets(task: str, split: str, size: int, *, seed: int = 0) -> list[Problem]:
    """Return `size` problems of a task with distinct questions; splits share none.

    A question belongs to the split that its text decides, so that no split needs to know the others. The same `seed` gives the same
    problems.

    Raises:
        ValueError: for an unknown task or split.
    """
    if split not in SPLITS:
        raise ValueError(f"no sandbox split {split!r}; there are {', '.join(SPLITS)}")
    rng = np.random.default_rng([seed, TASKS.index(task) if task in TASKS else 0, SPLITS[split]])
    found: dict[str, Problem] = {}
    while len(found) < size:
        problem = draw_problem(task, rng, f"{task}-{split}-{len(found)}")
        if split_of(problem) == split and problem.question not in found:
            found[problem.question] = problem
    return list(found.values())


def split_of(problem: Problem) -> str:
    """Return the split to which a question belongs: six in eight questions are for training, one each for the other two."""
    remainder = int.from_bytes(problem.question.encode(), "big") % 8009 % 8
    return {6: "validation", 7: "test"}.get(remainder, "train")


def _line(before: int, rng: np.random.Generator, least: int) -> Line:
    """Return a calculation with an amount of as many digits as `least`, and a result from 0 to 99."""
    most = min(10 * least - 1, 99 - before)
    if most >= least and (before < least or rng.random() < 0.5):
        return Line(before, 1, int(rng.integers(least, most + 1)))
    return Line(before, -1, int(rng.integers(least, min(before, 10 * least - 1) + 1)))


def _event(line: Line) -> str:
    return f", {'gets' if line.sign > 0 else 'loses'} {line.amount}"
