"""What is said of tokens beyond their scores: marks, known before any model runs, and signals, made of a first pass over the step."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from opsd_lab.problems.problem import Problem
from opsd_lab.rollouts.base import Rollout

Mark = Callable[[Problem, Rollout], Sequence[float]]
"""From a problem and a rollout of it to one number for each of the rollout's tokens, such as the number of its sentence."""
Signal = Callable[[Mapping[str, Tensor]], Tensor]
"""From the columns of all tokens of a step, as for weights `of_the_step`, to one number of any sign for each [N]. An objective reads
marks and signals as `tokens["name"]`; signals are made in a pass without gradient, in which they are 0 themselves."""


@dataclass(frozen=True)
class StoredNumbers:
    """The mark of numbers that exist, by the problem's id and the rollout's token ids."""

    numbers: Mapping[tuple[str, tuple[int, ...]], Sequence[float]] = field(repr=False)

    def __call__(self, problem: Problem, rollout: Rollout) -> Sequence[float]:
        """Return the numbers of a rollout's tokens.

        Raises:
            ValueError: when there are none.
        """
        if (found := self.numbers.get((problem.id, rollout.completion_ids))) is None:
            raise ValueError(f"there are no stored numbers of a rollout of problem {problem.id!r}")
        return found


def signal_of(signal: Signal, name: str, columns: Mapping[str, Tensor]) -> Tensor:
    """Return the signal of the tokens [N], float32; `name` is what a message calls it.

    Raises:
        TypeError, ValueError: for anything but one finite number for each token.
    """
    found, count = signal(columns), len(columns["loss"])
    if not isinstance(found, Tensor) or found.shape != (count,):
        kind = f"a tensor {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise TypeError(f"the signal {name!r} returned {kind}, not one number for each of {count} tokens")
    if not bool(found.isfinite().all()):
        raise ValueError(f"the signal {name!r} returned {float(found[~found.isfinite()][0])}; a signal is a finite number")
    return found.detach().to(torch.float32)


def marks_of(marks: Mapping[str, Mark], problem: Problem, rollout: Rollout) -> dict[str, tuple[float, ...]]:
    """Return what marks say of the tokens of a rollout, by name.

    `marks` are asked about the `rollout` of the `problem`.

    Raises:
        ValueError: for another number of entries than tokens, or an entry that is no finite number; it names mark and problem.
    """
    found = {}
    for name, mark in marks.items():
        values = tuple(float(value) for value in mark(problem, rollout))
        if len(values) != len(rollout.completion_ids) or not all(map(math.isfinite, values)):
            raise ValueError(
                f"the mark {name!r} returned {len(values)} numbers for the {len(rollout.completion_ids)} tokens of a rollout of "
                f"problem {problem.id!r}; return one finite number for each"
            )
        found[name] = values
    return found
