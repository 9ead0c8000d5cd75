"""CHAMP (arXiv 2406.12725): 270 competition problems with hints and worked solutions, and 540 solutions that models wrote, in which
people marked the first wrong step. The data come with the package `champ-dataset` (MIT), the extra `champ`."""

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

from opsd_lab.problems.problem import Problem

VERSION = "v0"


@dataclass(frozen=True)
class AnnotatedSolution:
    """A solution that the model `author` wrote, and where a person saw its first wrong step.

    `wrong_step` is that step's span of characters in `text`, from the first up to, without, the last; None: no mistake.

    Raises:
        ValueError: when the span does not lie in the text.
    """

    problem_id: str
    author: str
    text: str
    wrong_step: tuple[int, int] | None

    def __post_init__(self) -> None:
        if self.wrong_step is not None and not 0 <= self.wrong_step[0] < self.wrong_step[1] <= len(self.text):
            raise ValueError(
                f"problem {self.problem_id!r}: the wrong step {self.wrong_step} does not lie in a text of {len(self.text)} characters"
            )


def champ_problems() -> list[Problem]:
    """Return the 270 problems; `solution` joins the reference's steps, one a line, and `meta` holds the category.

    Raises:
        ModuleNotFoundError: when the package is not installed.
    """
    data = _data()
    return [
        Problem(
            id=problem.identifier,
            question=problem.text,
            answer=problem.answer,
            solution="\n".join(step.text for step in problem.solution.steps),
            hints=tuple(dict.fromkeys(data.hints[name].text for name in problem.ch_list if name.startswith("H_"))),
            meta={"category": problem.category},
        )
        for problem in data.problems.values()
    ]


def champ_solutions() -> list[AnnotatedSolution]:
    """Return the 540 annotated solutions, two for each problem, in the order of the problems.

    Raises:
        ModuleNotFoundError: when the package is not installed.
    """
    return [
        AnnotatedSolution(
            problem.identifier, note.author, note.text, None if note.start_idx is None else (note.start_idx, note.end_idx)
        )
        for problem in _data().problems.values()
        for note in problem.fws_annotations.values()
    ]


def _data() -> "ModuleType":
    try:
        return import_module("champ_dataset").load(VERSION)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error}: CHAMP comes with the extra `champ`: pip install 'opsd-lab[champ]'") from None
