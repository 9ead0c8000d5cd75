"""The loss, the step and the sampler at the size of Qwen3-1.7B on a CUDA device: beside their peers, the loss beside its floor too.

The loss's floor is the time of the three products that no exact loss can do without, both sides' logits and the gradient by the
student's states, alone and in the model's precision. The model of step and sampler has random weights, so it writes to the limit.
"""

import functools
import json

import torch
import tyro
from transformers import Qwen3Config, Qwen3ForCausalLM

from opsd_lab.policies.policy import Policy
from tests.benchmarks import loss, samplers, step
from tests.benchmarks.measure import alternate, extra_memory, machine, medians, ratio
from tests.conftest import byte_tokenizer

HIDDEN, VOCABULARY = 2048, 151_936
QWEN3 = {"hidden_size": HIDDEN, "vocab_size": VOCABULARY, "intermediate_size": 6144, "num_hidden_layers": 28}
HEADS = {"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128}


def random_qwen3(dtype: torch.dtype, **other: int) -> Policy:
    """Return a policy of Qwen3-1.7B's shape with random weights and a tokenizer of bytes."""
    tokenizer = byte_tokenizer()
    config = Qwen3Config(**QWEN3 | HEADS | other, tie_word_embeddings=True, eos_token_id=tokenizer.eos_token_id, bos_token_id=None)
    torch.manual_seed(0)
    with torch.device(loss.DEVICE):
        model = Qwen3ForCausalLM._from_config(config, dtype=dtype)
    return Policy("random Qwen3-1.7B", model.eval(), tokenizer)


def floor(case: loss.Case, rows: int = 1024) -> None:
    """Run the products alone, some rows at a time."""
    weight = case.head.weight
    student = case.student.detach()
    for start in range(0, len(student), rows):
        ours = student[start : start + rows] @ weight.T
        case.teacher[start : start + rows] @ weight.T
        ours @ weight


def beside_its_floor(tokens: int, rounds: int) -> dict[str, object]:
    """Return seconds of the loss and of its floor, the extra bytes and the gradient's relative error."""
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


def compare(rounds: int, tokens: int = 16_384) -> dict[str, object]:
    """Return the loss beside its floor and, with fewer tokens, beside its peers; a step and the sampler beside theirs."""
    work = step.Workload(random_qwen3, torch.bfloat16, 32, 128)
    return {
        **beside_its_floor(tokens, rounds),
        "loss": loss.compare(4096, HIDDEN, VOCABULARY, rounds),
        "step": step.compare(work, rounds),
        "samplers": samplers.compare(work, rounds),
    }


def main(tokens: int = 16_384, rounds: int = 5) -> None:
    """Print the comparison; without a CUDA device only the loss, a small one, on the processor, to show that it works."""
    if torch.cuda.is_available():
        found = compare(rounds, tokens)
    else:
        print("no CUDA device: 64 tokens on the processor instead")
        found = beside_its_floor(64, rounds)
    print(json.dumps({"machine": machine()} | found, indent=1))


if __name__ == "__main__":
    tyro.cli(main)
