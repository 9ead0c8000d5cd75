"""The full-vocabulary forward KL from hidden states, forward and backward: ours, plain PyTorch, the paper's formula, liger-kernel."""

import functools
import json
import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor, nn

from opsd_lab.divergences import forward_kl
from opsd_lab.objectives import OPSD, Tokens
from opsd_lab.policies.head import LogitHead
from opsd_lab.policies.policy import multiplies_bfloat16
from opsd_lab.scoring.forward import CompletionStates
from opsd_lab.scoring.pipeline import token_losses
from tests.benchmarks.measure import alternate, busy_neighbour, extra_memory, machine, medians, ratio

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPE = torch.bfloat16 if DEVICE == "cuda" or multiplies_bfloat16() else torch.float32


@dataclass(frozen=True)
class Case:
    """Both sides' states [N, H] and one frozen head [V, H]."""

    student: Tensor
    teacher: Tensor
    head: nn.Linear
    token_ids: Tensor

    @classmethod
    def make(cls, tokens: int, hidden: int, vocabulary: int, dtype: torch.dtype = DTYPE) -> "Case":
        """Return a seeded case; the logits have a standard deviation of about 2."""
        generator = torch.Generator(DEVICE).manual_seed(0)
        draw = functools.partial(torch.randn, generator=generator, device=DEVICE)
        head = nn.Linear(hidden, vocabulary, bias=False, device=DEVICE, dtype=dtype).requires_grad_(False)
        head.weight.copy_(draw(vocabulary, hidden, dtype=dtype) * (2 / hidden**0.5))
        student, teacher = (draw(tokens, hidden, dtype=dtype) for _ in range(2))
        return cls(student.requires_grad_(), teacher, head, torch.randint(vocabulary, (tokens,), device=DEVICE))


def ours(case: Case) -> Tensor:
    """Return the gradient; log-probabilities, entropies and ranks of both sides are computed as well, as in training."""
    head = LogitHead(case.head)
    student, teacher = CompletionStates(case.student, head), CompletionStates(case.teacher, head)
    token_losses(OPSD(), student, {"teacher": teacher}, Tokens(case.token_ids)).loss.mean().backward()
    return _taken(case)


def plain(case: Case) -> Tensor:
    """The usual PyTorch: two products, two log-softmaxes, `kl_div`, autograd."""
    weight = case.head.weight.float()
    student = F.linear(case.student.float(), weight).log_softmax(-1)
    with torch.no_grad():
        teacher = F.linear(case.teacher.float(), weight).log_softmax(-1)
    F.kl_div(student, teacher, reduction="none", log_target=True).sum(-1).mean().backward()
    return _taken(case)


def paper(case: Case) -> Tensor:
    """The paper's formula, term by term, as `opsd_lab.divergences.forward_kl` has it."""
    weight = case.head.weight.float()
    forward_kl(F.linear(case.student.float(), weight), F.linear(case.teacher.float(), weight).detach()).mean().backward()
    return _taken(case)


def liger(case: Case) -> Tensor:
    """liger-kernel's chunked loss, soft part only; it works in the states' own precision."""
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    loss = LigerFusedLinearJSDLoss(weight_hard_loss=0.0, weight_soft_loss=1.0, beta=0.0, compiled=False)
    loss(case.student, case.head.weight, case.teacher, case.head.weight, case.token_ids).backward()
    return _taken(case)


WAYS: dict[str, Callable[[Case], Tensor]] = {"ours": ours, "torch": plain, "paper": paper, "liger": liger}


def _taken(case: Case) -> Tensor:
    gradient, case.student.grad = case.student.grad, None
    return gradient


def prepared(name: str, *sizes: int) -> Callable[[], object]:
    """Return a run of one way, its case made; the threads of the product are started."""
    case = Case.make(*sizes)
    WAYS[name](Case.make(2, *sizes[1:]))  # libraries and workspaces that stay
    return functools.partial(WAYS[name], case)


def exact_gradient(case: Case, rows: int = 64) -> Tensor:
    """Return the gradient by the first states in float64; the loss is the mean over all."""
    weight = case.head.weight.double()
    states = case.student[:rows].detach().double().requires_grad_()
    values = forward_kl(states @ weight.T, case.teacher[:rows].double() @ weight.T)
    return torch.autograd.grad(values.sum() / len(case.student), states)[0]


def compare(tokens: int, hidden: int, vocabulary: int, rounds: int) -> dict[str, object]:
    """Return seconds, extra bytes and relative gradient errors of every way, and the ratios."""
    case = Case.make(tokens, hidden, vocabulary)
    seconds = alternate({name: functools.partial(way, case) for name, way in WAYS.items()}, rounds, f"loss {tokens} x {vocabulary}")
    exact = exact_gradient(case)
    errors = {name: float((way(case)[: len(exact)].double() - exact).norm() / exact.norm()) for name, way in WAYS.items()}
    memory = {name: extra_memory(functools.partial(prepared, name, tokens, hidden, vocabulary)) for name in WAYS}
    return {
        "tokens": tokens,
        "hidden": hidden,
        "vocabulary": vocabulary,
        "dtype": str(DTYPE),
        "seconds": medians(seconds),
        "rounds": seconds,
        "extra_bytes": memory,
        "gradient_error": errors,
        "time_vs": {name: ratio(seconds, "ours", name) for name in WAYS if name != "ours"},
        "memory_vs": {name: memory["ours"] / memory[name] for name in WAYS if name != "ours"},
    }


def beside_a_neighbour(tokens: int, hidden: int, vocabulary: int, rounds: int) -> dict[str, object]:
    """Return seconds and ratios of ours and plain PyTorch while another process keeps a core busy; and how threads wait."""
    case = Case.make(tokens, hidden, vocabulary)
    runs = {name: functools.partial(WAYS[name], case) for name in ("ours", "torch")}
    with busy_neighbour():
        seconds = alternate(runs, rounds, "loss beside a busy neighbour")
    return {
        "tokens": tokens,
        "vocabulary": vocabulary,
        "waiting": os.environ.get("OMP_WAIT_POLICY", ""),
        "seconds": medians(seconds),
        "rounds": seconds,
        "time_vs": {"torch": ratio(seconds, "ours", "torch")},
    }


def main(tokens: int = 2048, hidden: int = 576, vocabulary: int = 49_152, rounds: int = 5) -> None:
    """Print one comparison."""
    print(json.dumps(machine()))
    found = compare(tokens, hidden, vocabulary, rounds)
    for name in WAYS:
        print(
            f"{name:6} {found['seconds'][name]:7.3f} s {found['extra_bytes'][name] / 2**20:8.0f} MiB extra"
            f", gradient error {found['gradient_error'][name]:.1e}"
        )
    for name, value in found["time_vs"].items():
        print(f"time against {name}: {value['median']:.2f} ({value['low']:.2f} to {value['high']:.2f})")


if __name__ == "__main__":
    tyro.cli(main)
