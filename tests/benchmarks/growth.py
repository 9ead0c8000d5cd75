"""How the cost grows: a whole step by rollouts, by their length, by the prompts' length and by views; the loss by vocabulary.

The exponent is the slope of log seconds over log size, by least squares: 1 is proportional. Prompts are lengthened by a
repeated word, for both sides. The loss's memory by its number of tokens is measured in a fresh process each.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
import tyro

from opsd_lab.rollouts import HFSampler
from tests.benchmarks import loss, step
from tests.benchmarks.measure import alternate, extra_memory, medians, show

ROLLOUTS = (4, 8, 16, 32)
LENGTHS = (16, 32, 64, 128)
WORDS = (32, 64, 128, 256)
VIEWS = (1, 2, 3)
VOCABULARIES = (16_384, 49_152, 151_936)
TOKENS = (512, 1024, 2048, 4096)


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Return the slope of log seconds over log sizes."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def _curve(runs: dict[int, Callable[[], object]], rounds: int, what: str) -> dict[str, object]:
    found = medians(alternate(runs, rounds, what))
    return {"sizes": list(found), "seconds": list(found.values()), "exponent": exponent(list(found), list(found.values()))}


def grow(dtype: torch.dtype, rounds: int) -> dict[str, object]:
    """Return sizes, median seconds and the exponent of each curve; then the bytes that the loss takes, by its tokens."""
    sampler, work = functools.partial(HFSampler, progress=False), step.Workload(step.embedded, dtype)
    curves = {
        "step by rollouts": {n: replace(work, prompts=n) for n in ROLLOUTS},
        "step by new tokens": {n: replace(work, new_tokens=n) for n in LENGTHS},
        "step by words in front": {n: replace(work, words=n) for n in WORDS},
        "step by views": {n: replace(work, views=n) for n in VIEWS},
    }
    found: dict[str, object] = {}
    for name, works in curves.items():
        found[name] = _curve({size: step.ours(sampler, each) for size, each in works.items()}, rounds, name)
    cases = {v: loss.Case.make(256, 576, v, dtype) for v in VOCABULARIES}
    found["loss by vocabulary"] = _curve({v: functools.partial(loss.ours, case) for v, case in cases.items()}, rounds, "vocabulary")
    memory = {n: extra_memory(functools.partial(loss.prepared, "ours", n, 576, 49_152, dtype)) for n in TOKENS}
    return found | {"loss memory by tokens": {"sizes": list(memory), "bytes": list(memory.values())}}


def main(dtype: str = "float32", rounds: int = 3) -> None:
    """Print the curves."""
    show(grow(getattr(torch, dtype), rounds))


if __name__ == "__main__":
    tyro.cli(main)
