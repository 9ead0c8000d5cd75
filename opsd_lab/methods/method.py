"""What the family knows of each method, and the list of all of them."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from opsd_lab.training.recipes import Recipe

Grade = Literal["code", "paper", "note", "abstract"]
"""How a formula is confirmed: in public code, in the paper's text, in a public note of the paper, or by its abstract alone."""
GRADES: tuple[Grade, ...] = get_args(Grade)
GROUPS = ("contexts", "targets", "gaps", "token_weights", "spans", "advantages", "gates")


@dataclass(frozen=True)
class Method:
    """A published method: its name, arXiv number, how it is confirmed, the module of its recipe, and the function that makes it."""

    name: str
    arxiv: str
    grade: Grade
    group: str
    make: Callable[..., Recipe]

    @property
    def key(self) -> str:
        """The name of its function."""
        return self.make.__name__

    @property
    def formula(self) -> str:
        """The first line of its docstring."""
        return inspect.getdoc(self.make).splitlines()[0]

    @property
    def notes(self) -> list[str]:
        """The paragraphs of its docstring below the first, each as one line."""
        _, *rest = inspect.getdoc(self.make).split("\n\n")
        return [" ".join(paragraph.split()) for paragraph in rest]


METHODS: dict[str, Method] = {}
"""All methods by the names of their functions, in the order of their files."""


def method(name: str, arxiv: str, grade: Grade) -> Callable[[Callable[..., Recipe]], Callable[..., Recipe]]:
    """Return what enters a function that makes a recipe into `METHODS`.

    Raises:
        ValueError: for an unknown grade, or a function name that is taken.
    """
    if grade not in GRADES:
        raise ValueError(f"the grade of {name} is {grade!r}; it is one of {', '.join(GRADES)}")

    def enter(make: Callable[..., Recipe]) -> Callable[..., Recipe]:
        if make.__name__ in METHODS:
            raise ValueError(f"there are two methods {make.__name__}")
        METHODS[make.__name__] = Method(name, arxiv, grade, make.__module__.rpartition(".")[2], make)
        return make

    return enter
