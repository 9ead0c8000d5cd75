"""Whose weights teach.

Student and teacher are mostly one model. A teacher is asked inside a `with`: its block gives the policy that computes the
teacher's numbers, and leaving it gives the student's weights back, whatever happened inside.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from opsd_lab.basics.schedules import Controller, Schedule, at_step
from opsd_lab.policies.adapters import adapters_off
from opsd_lab.policies.policy import Policy, has_fresh_lora
from opsd_lab.policies.teacher_checks import check_teacher, shares_weights
from opsd_lab.policies.weight_swaps import swapped

STEPS = "teacher/steps"  # no parameter has such a name


class Teacher(Protocol):
    """Whose weights teach."""

    def beside(self, student: Policy) -> AbstractContextManager[Policy]:
        """Return a context manager that gives the policy whose model computes as the teacher inside the block.

        It may be the student's own policy, with other weights in place meanwhile.
        """
        ...

    def update(self) -> None:
        """Follow the student after an optimiser step."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Return the tensors that a checkpoint must hold."""
        ...

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take the tensors of a checkpoint back."""
        ...


class LiveTeacher:
    """The student's present weights teach (called unstable without a LoRA by the paper)."""

    @contextmanager
    def beside(self, student: Policy) -> Iterator[Policy]:
        """Give the student as it is."""
        yield student

    def update(self) -> None:
        """Do nothing: the teacher is the student."""

    def state(self) -> dict[str, Tensor]:
        """Return nothing: the teacher has no tensors of its own."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take nothing back."""


class AdapterOffTeacher(LiveTeacher):
    """The model without its LoRA teaches: the initial policy of a fresh LoRA, at no cost in memory.

    Raises:
        ValueError: when the policy has no LoRA, or one that has been trained already.
    """

    def __init__(self, policy: Policy) -> None:
        if not has_fresh_lora(policy):
            raise ValueError(f"{policy.name} has no fresh LoRA to switch off; use fixed_teacher, which then keeps a copy")
        self._model = policy.model

    @contextmanager
    def beside(self, student: Policy) -> Iterator[Policy]:
        """Give the student with its LoRA switched off.

        Raises:
            ValueError: for another student than the one that the teacher was made of.
        """
        if student.model is not self._model:
            raise _made_of_another(student)
        with adapters_off(self._model):
            yield student


class OtherTeacher(LiveTeacher):
    """Another policy teaches, with weights of its own that do not change: distillation from, say, a larger model.

    Raises:
        ValueError: when the two do not go together; see `check_teacher`.
    """

    def __init__(self, policy: Policy, student: Policy) -> None:
        if policy.model is student.model:
            raise shares_weights(student, policy)
        check_teacher(student, policy)
        self._policy = policy

    @contextmanager
    def beside(self, student: Policy) -> Iterator[Policy]:
        """Give the other policy."""
        yield self._policy


class AveragedTeacher(LiveTeacher):
    """An exponential moving average of the student's trainable parameters teaches.

    It starts as a copy of the initial policy. After each optimiser step, average = decay * average + (1 - decay) * student, in
    the parameters' own space: with a LoRA, A and B are averaged each on its own, which is not the average of their product.
    `decay` 1 is a frozen copy. It may be a schedule of the optimiser steps, which the teacher counts.

    Raises:
        TypeError: when decay is a controller: teachers see no records.
        ValueError: when decay is not in [0, 1]; where it is a schedule, at the step at which that is so.
    """

    def __init__(self, policy: Policy, decay: float | Schedule) -> None:
        if isinstance(decay, Controller):
            raise TypeError(f"decay is the controller {decay!r}, but a teacher sees no records; give it a schedule")
        self.decay = decay
        self._student, self._steps = policy.trainable(), torch.zeros(1, dtype=torch.int64)
        self._decay_at(1)
        # A bfloat16 average would lose updates smaller than its rounding: (1 - decay) * difference vanishes.
        self._average = {name: p.detach().float().clone() for name, p in self._student.items()}

    @contextmanager
    def beside(self, student: Policy) -> Iterator[Policy]:
        """Give the student with the average in place of its parameters.

        Raises:
            ValueError: for another student than the one that the teacher was made of.
        """
        present = dict(student.model.named_parameters())
        if any(present.get(name) is not p for name, p in self._student.items()):
            raise _made_of_another(student)
        with swapped(self._student, {n: self._average[n].to(p.dtype) for n, p in self._student.items()}):
            yield student

    @torch.no_grad()
    def update(self) -> None:
        """Count the step, and move the average towards the student by 1 - decay."""
        decay = self._decay_at(int(self._steps) + 1)
        self._steps += 1
        for name, average in self._average.items() if decay < 1 else ():
            average.lerp_(self._student[name].detach().float(), 1 - decay)

    def _decay_at(self, step: int) -> float:
        decay = at_step(self.decay, step)
        if not 0 <= decay <= 1:
            raise ValueError(f"decay is {decay} at step {step}; it lies between 0 (the student itself) and 1 (a frozen copy)")
        return decay

    def state(self) -> dict[str, Tensor]:
        """Return the average, float32, by parameter name, and how many steps have been counted."""
        return {**self._average, STEPS: self._steps}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take the average and the count back.

        Raises:
            ValueError: when names or shapes differ from those of the student's parameters; nothing is taken then.
        """
        state = dict(state)
        steps = state.pop(STEPS, self._steps)
        if state.keys() != self._average.keys():
            raise ValueError(f"the teacher's checkpoint has other parameters: {sorted(state.keys() ^ self._average.keys())[:5]}")
        if other := [name for name, average in self._average.items() if state[name].shape != average.shape]:
            raise ValueError(f"the teacher's checkpoint has other shapes, such as that of {other[0]}")
        for name, average in self._average.items():
            average.copy_(state[name])
        self._steps = steps


@dataclass(frozen=True)
class CopyEvery(Schedule):
    """The decay of a copy that is taken anew after every `every` optimiser steps.

    Raises:
        ValueError: when `every` is below 1.
    """

    every: int

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"every is {self.every}; a teacher is refreshed after 1 step or more")

    def at(self, step: int) -> float:
        """Return 0 at the steps after which the copy is taken, else 1."""
        return float(step % self.every != 0)


def fixed_teacher(policy: Policy) -> Teacher:
    """Return the paper's teacher: the initial policy (arXiv 2601.18734, Algorithm 1).

    With a fresh LoRA it is the model with the LoRA off; else a frozen copy of what trains.
    """
    return AdapterOffTeacher(policy) if has_fresh_lora(policy) else AveragedTeacher(policy, decay=1.0)


def ema_teacher(policy: Policy, decay: float | Schedule = 0.999) -> Teacher:
    """Return a teacher that follows the student slowly; see `AveragedTeacher`."""
    return AveragedTeacher(policy, decay)


def live_teacher(policy: Policy | None = None) -> Teacher:
    """Return a teacher that is the student at every step; it needs no `policy`, and takes one as the other teachers do."""
    return LiveTeacher()


def refreshed_teacher(policy: Policy, every: int = 10) -> Teacher:
    """Return a teacher that is the student of some steps ago: a frozen copy, taken anew after every `every` optimiser steps."""
    return AveragedTeacher(policy, CopyEvery(every))


def _made_of_another(student: Policy) -> ValueError:
    return ValueError(f"the teacher was made of another policy than this {student.name}; make it of the student that it teaches")
