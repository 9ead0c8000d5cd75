"""Towards what the student is moved: a side made of the sides that there are."""

from collections.abc import Callable, Mapping
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


@dataclass(frozen=True)
class TheView:
    """Move towards the teacher of one of several views."""

    view: str

    def __call__(self, student: Side, teachers: Teachers) -> Side:
        """Return that teacher."""
        return teachers[self.view]


@dataclass(frozen=True)
class GeometricMixture:
    """Move towards what is proportional to the product of some views' probabilities, each to the power of its weight.

    `weights` are by the views' names and may be negative: {"right": 1.5, "wrong": -0.5} leads away from a view (guidance).

    Raises:
        TypeError, ValueError: for no weights, or one that is no number.
    """

    weights: Mapping[str, float]

    def __post_init__(self) -> None:
        if not self.weights:
            raise ValueError("GeometricMixture: there are no weights")
        for view, weight in self.weights.items():
            real(f"GeometricMixture: the weight of {view}", weight)

    def __call__(self, student: Side, teachers: Teachers) -> Side:
        """Return the mixture, as logits."""
        return Side(sum(weight * teachers[view].logprobs for view, weight in self.weights.items()))


@dataclass(frozen=True)
class PMIResidual:
    """Move towards softmax(log p(. | base) + bound * tanh(r / bound) / beta), r = log p(. | informed) / p(. | information).

    The names are those of three views; r is what the information says of the question's answer beyond what it says by itself
    (arXiv 2607.02234). `r` is centred over the vocabulary.

    Raises:
        TypeError, ValueError: for a bound or beta that is not positive.
    """

    base: str
    informed: str
    information: str
    bound: float = 10.0
    beta: float = 1.0

    def __post_init__(self) -> None:
        real("PMIResidual: bound", self.bound, above=0)
        real("PMIResidual: beta", self.beta, above=0)

    def __call__(self, student: Side, teachers: Teachers) -> Side:
        """Return the target, as logits."""
        residual = teachers[self.informed].logprobs - teachers[self.information].logprobs
        centred = residual - residual.mean(-1, keepdim=True)
        return Side(teachers[self.base].logprobs + self.bound * (centred / self.bound).tanh() / self.beta)
