"""How the cost grows: a whole step with the number of rollouts and with their length, the loss with the vocabulary.

The exponent is the slope of log seconds over log size, by least squares: 1 is proportional.
"""

import functools
from dataclasses import replace

import numpy as np
import torch
import tyro

from opsd_lab.rollouts import HFSampler
from tests.benchmarks import loss, step
from tests.benchmarks.measure import alternate, medians, show

ROLLOUTS = (4, 8, 16, 32)
LENGTHS = (16, 32, 64, 128)
VOCABULARIES = (16_384, 49_152, 151_936)


def exponent(sizes: tuple[int, ...], seconds: list[float]) -> float:
    """Return the slope of log seconds over log sizes."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def _curve(runs: dict[int, object], rounds: int, what: str) -> dict[str, object]:
    found = medians(alternate(runs, rounds, what))
    return {"sizes": list(found), "seconds": list(found.values()), "exponent": exponent(tuple(found), list(found.values()))}


def grow(dtype: torch.dtype, rounds: int) -> dict[str, object]:
    """Return sizes, median seconds and the exponent of each curve."""
    sampler, work = functools.partial(HFSampler, progress=False), step.Workload(step.embedded, dtype)
    by_count = {n: step.ours(sampler, replace(work, prompts=n)) for n in ROLLOUTS}
    rollouts = _curve(by_count, rounds, "rollouts")
    del by_count
    by_length = {n: step.ours(sampler, replace(work, new_tokens=n)) for n in LENGTHS}
    lengths = _curve(by_length, rounds, "completion length")
    del by_length
    cases = {v: loss.Case.make(256, 576, v, dtype) for v in VOCABULARIES}
    vocabulary = _curve({v: functools.partial(loss.ours, case) for v, case in cases.items()}, rounds, "vocabulary")
    return {"step by rollouts": rollouts, "step by new tokens": lengths, "loss by vocabulary": vocabulary}


def main(dtype: str = "float32", rounds: int = 3) -> None:
    """Print the curves."""
    show(grow(getattr(torch, dtype), rounds))


if __name__ == "__main__":
    tyro.cli(main)
