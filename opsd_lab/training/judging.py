"""What people's own rewards and gates return, checked where they return it."""

from collections.abc import Sequence
from numbers import Real

import numpy as np
from torch import Tensor

from opsd_lab.basics.options import name_of
from opsd_lab.problems.problem import Problem
from opsd_lab.rollouts.base import Rollout
from opsd_lab.rollouts.gates import Gate, Rewards, takes_rollouts


def judged(rewards: Rewards, rollouts: Sequence[Rollout], problems: Sequence[Problem]) -> list[float]:
    """Return a reward for each rollout; arrays and tensors [R] are taken as lists of numbers are.

    Raises:
        TypeError: for something else than a list, or an entry that is no number; it names the function, the entry and the problem.
        ValueError: for too few or too many rewards, NaN or infinity, likewise.
    """
    name, found = f"the rewards function {name_of(rewards)}", rewards(rollouts, problems)
    if not isinstance(found, (list, tuple, np.ndarray, Tensor)) or (isinstance(found, (np.ndarray, Tensor)) and found.ndim != 1):
        raise TypeError(f"{name} returned {_kind(found)}; return a list of numbers, one for each of the {len(rollouts)} rollouts")
    values = found.tolist() if isinstance(found, (np.ndarray, Tensor)) else list(found)
    if len(values) != len(rollouts):
        raise ValueError(f"{name} returned {len(values)} rewards for {len(rollouts)} rollouts; return one for each, in their order")
    checked = []
    for i, (value, problem) in enumerate(zip(values, problems, strict=True)):
        value = (
            value.item() if isinstance(value, np.generic) or (isinstance(value, (np.ndarray, Tensor)) and not value.ndim) else value
        )
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(
                f"{name} returned {value!r} ({type(value).__name__}) for rollout {i}, of problem {problem.id!r}; return a number, "
                "such as 1.0 for a right answer and 0.0 for any other"
            )
        if not np.isfinite(value):
            raise ValueError(
                f"{name} returned {value} for rollout {i}, of problem {problem.id!r}; return a finite number, such as 0.0 where a "
                "rollout cannot be judged"
            )
        checked.append(float(value))
    return checked


def let_through(
    gate: Gate | None, rewards: Sequence[float] | None, owners: Sequence[str], rollouts: Sequence[Rollout] = ()
) -> list[float]:
    """Return what each rollout weighs: 1 without a gate.

    `gate` is asked about the `rewards`, the ids of the rollouts' problems (`owners`), and the `rollouts` if it takes them.

    Raises:
        TypeError: for anything but an array of Booleans or numbers; it names the gate and the remedy.
        ValueError: for one of another length, or a weight that is negative or no number.
    """
    if gate is None:
        return [1.0] * len(owners)
    seen = (tuple(rollouts),) if takes_rollouts(gate) else ()
    name, found = f"the gate {name_of(gate)}", gate(np.array(rewards), np.array(owners), *seen)
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "bf":  # whole numbers would be indices, mostly
        kind = f"an array of {found.dtype}" if isinstance(found, np.ndarray) else _kind(found)
        raise TypeError(
            f"{name} returned {kind}; return an array of Booleans, or of floats to weigh by, one for each rollout, such as "
            "`rewards > 0`"
        )
    if found.shape != (len(owners),):
        raise ValueError(
            f"{name} returned an array {found.shape} for {len(owners)} rollouts; return one entry for each, in their order"
        )
    weights = found.astype(float)
    if not (np.isfinite(weights) & (weights >= 0)).all():
        i = int(np.argmin(np.isfinite(weights) & (weights >= 0)))
        raise ValueError(
            f"{name} returned {weights[i]} for rollout {i}, of problem {owners[i]!r}; a weight is a number of at least 0"
        )
    return weights.tolist()


def _kind(value: object) -> str:
    return f"an array of shape {tuple(value.shape)}" if isinstance(value, (np.ndarray, Tensor)) else f"a {type(value).__name__}"
