"""What a run has cost so far: tokens, seconds, memory."""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

PHASES = ("generate", "score", "train")


@dataclass(frozen=True)
class Ledger:
    """Running totals since training began.

    Tokens are completion tokens: `tokens_generated` by the sampler, `tokens_scored` by the teacher, `tokens_trained` in the
    loss. `flops_*` are the floating-point operations of each phase's matrix products (`opsd_lab.training.costs`), NaN where
    they cannot be counted, `seconds_*` its wall-clock seconds.
    """

    tokens_generated: int = 0
    tokens_scored: int = 0
    tokens_trained: int = 0
    seconds_generate: float = 0.0
    seconds_score: float = 0.0
    seconds_train: float = 0.0
    flops_generate: float = 0.0
    flops_score: float = 0.0
    flops_train: float = 0.0

    @property
    def flops(self) -> float:
        """All floating-point operations counted."""
        return self.flops_generate + self.flops_score + self.flops_train

    @property
    def seconds(self) -> float:
        """All wall-clock seconds counted."""
        return self.seconds_generate + self.seconds_score + self.seconds_train

    def plus(self, other: "Ledger") -> "Ledger":
        """Return the sum of both, entry by entry."""
        return replace(self, **{name: value + getattr(other, name) for name, value in asdict(self).items()})


class Stopwatch:
    """Adds up the wall-clock seconds spent in named phases."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time inside the block towards a phase."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start


def peak_memory_gib() -> float:
    """Return the most memory that this process has held so far (GiB)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
