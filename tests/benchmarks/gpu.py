"""The loss at the size of Qwen3-1.7B (H 2048, V 151,936) on a CUDA device: time beside its matrix products, memory, exactness.

The floor is the time of the three products that no exact loss can do without, both sides' logits and the gradient by the student's
states, alone and in the model's precision.
"""

import functools
import json

import torch
import tyro

from tests.benchmarks import loss
from tests.benchmarks.measure import alternate, extra_memory, machine, medians, ratio

HIDDEN, VOCABULARY = 2048, 151_936


def floor(case: loss.Case, rows: int = 1024) -> None:
    """Run the products alone, some rows at a time."""
    weight = case.head.weight
    student = case.student.detach()
    for start in range(0, len(student), rows):
        ours = student[start : start + rows] @ weight.T
        case.teacher[start : start + rows] @ weight.T
        ours @ weight


def compare(tokens: int, rounds: int) -> dict[str, object]:
    """Return seconds of the loss and of the floor, the extra bytes and the gradient's relative error."""
    case = loss.Case.make(tokens, HIDDEN, VOCABULARY)
    seconds = alternate({"ours": functools.partial(loss.ours, case), "floor": functools.partial(floor, case)}, rounds, "loss")
    exact = loss.exact_gradient(case)
    error = float((loss.ours(case)[: len(exact)].double() - exact).norm() / exact.norm())
    del case
    memory = extra_memory(functools.partial(loss.prepared, "ours", tokens, HIDDEN, VOCABULARY))
    return {
        "tokens": tokens,
        "hidden": HIDDEN,
        "vocabulary": VOCABULARY,
        "dtype": str(loss.DTYPE),
        "seconds": medians(seconds),
        "time_vs_floor": ratio(seconds, "ours", "floor"),
        "extra_bytes": memory,
        "gradient_error": error,
    }


def main(tokens: int = 16_384, rounds: int = 5) -> None:
    """Print the comparison; without a CUDA device it runs a small size on the processor, to show that it works."""
    if not torch.cuda.is_available():
        print("no CUDA device: 64 tokens on the processor instead")
        tokens = 64
    print(json.dumps({"machine": machine()} | compare(tokens, rounds), indent=1))


if __name__ == "__main__":
    tyro.cli(main)
