"""Towards what the student is moved: a side made of the sides that there are."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from opsd_lab.basics.options import real
from opsd_lab.divergences import Side
from opsd_lab.objectives.tokens import Teachers

Target = Callable[[Side, Teachers], Side]
"""From the student's side, without gradient, and the teachers' sides, by view, to the one that the student is compared with."""


@dataclass(frozen=True)
class TheTeacher:
    """Move towards the one teacher that there is."""

    def __call__(self, student: Side, teachers: Teachers) -> Side:
        """Return the teacher.

        Raises:
            ViewError: when there are several; a target says how they are joined.
        """
        return teachers.only


the_teacher = TheTeacher()


@dataclass(frozen=True)
class TargetMixture:
    """Move towards weight * teacher + (1 - weight) * student, probabilities mixed at each position; `view` names the teacher.

    Raises:
        TypeError, ValueError: for a weight that is not in (0, 1].
    """

    weight: float
    view: str | None = None

    def __post_init__(self) -> None:
        real("TargetMixture: weight", self.weight, above=0, most=1)

    def __call__(self, student: Side, teachers: Teachers) -> Side:
        """Return the mixture."""
        teacher = teachers.only if self.view is None else teachers[self.view]
        mixed = self.weight * teacher.probabilities + (1 - self.weight) * student.probabilities
        return Side.of_logprobs(mixed.clamp(min=torch.finfo(mixed.dtype).tiny).log())
