"""What the processes of one run tell each other: a process that is alone hears itself only."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from torch import Tensor, distributed

Found = TypeVar("Found")
SUMS = ("dropped",)
LARGEST = ("mismatch_max",)


class Part(NamedTuple):
    """One process's part in a number of the whole step: its value, and of how many rollouts, tokens or positions it is."""

    value: float
    count: float


def from_all(found: Found) -> list[Found]:
    """Return what every process has found, in the processes' order; all of them must ask. Tensors are to be on the processor."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [found]
    everything: list[Found | None] = [None] * distributed.get_world_size()
    distributed.all_gather_object(everything, found)
    return everything


def summed(value: float, device: torch.device) -> float:
    """Return the sum of the processes' values, over `device`; all of them must ask."""
    if PartialState().num_processes == 1:
        return value
    return float(reduce(torch.tensor(value, dtype=torch.float64, device=device), "sum"))


def one_after_another(parts: Sequence[Mapping[str, Tensor]]) -> tuple[dict[str, Tensor], slice]:
    """Return the token columns of all processes as columns of the whole step, and where in them this process's own stand.

    Rollouts are numbered on from process to process. A column that a process does not have is 0 there.
    """
    sizes = [len(part["rollout"]) if part else 0 for part in parts]
    names, rollouts, shifted = dict.fromkeys(name for part in parts for name in part), 0, []
    for part in filter(None, parts):
        shifted.append(dict(part) | {"rollout": part["rollout"] + rollouts})
        rollouts += int(part["rollout"].max()) + 1
    filled = {name: torch.cat([p.get(name, torch.zeros(len(p["rollout"]))) for p in shifted]) for name in names}
    rank = distributed.get_rank() if len(parts) > 1 else 0
    return filled, slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))


def whole_step(parts: Sequence[Mapping[str, Part]]) -> dict[str, float]:
    """Return a step's numbers from those of its processes: means are weighed by what they were taken over.

    `SUMS` are added up, of `LARGEST` the largest is taken. A number that no process has is NaN.
    """
    return {name: _joined(name, [part[name] for part in parts]) for name in parts[0]}


def _joined(name: str, parts: list[Part]) -> float:
    known = [part for part in parts if part.count and not math.isnan(part.value)]
    if len(known) < 2:
        return known[0].value if known else math.nan
    if name in SUMS:
        return sum(part.value for part in known)
    if name in LARGEST:
        return max(part.value for part in known)
    return sum(part.value * part.count for part in known) / sum(part.count for part in known)
