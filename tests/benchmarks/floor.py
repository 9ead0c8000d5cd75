"""The floor of a step: the time of its matrix products alone, each computed once for writing, scoring and learning.

They are those of the layers and of the output layer: each prompt and each new token once for writing, both sides' whole sequences
for scoring, and the student's backward with a LoRA on every layer. Attention, what is done to one number after the other, drawing
and statistics are left out. The values are random; the shapes are those of rollouts that the policy writes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from opsd_lab.contexts import ContextBuilder
from opsd_lab.experiments.walkthrough import CHAT, reference_view, train_problems
from opsd_lab.policies.head import LogitHead
from opsd_lab.policies.policy import Policy
from opsd_lab.policies.products import MOST, multiply
from opsd_lab.rollouts import HFSampler, SamplingParams, sample_rollouts

RANK = 16
BLOCK = 1024  # rows of logits at a time, which bounds the memory


@dataclass(frozen=True)
class Rows:
    """How many tokens each product is of: `written` counts the rollouts that still go on, new token by new token."""

    student_prompts: int
    teacher_prompts: int
    written: tuple[int, ...]

    @property
    def completions(self) -> int:
        """The tokens of all completions."""
        return sum(self.written)


def rows_of(policy: Policy, prompts: int, new_tokens: int) -> Rows:
    """Return the rows of a step in which the policy writes a rollout for each of so many problems."""
    contexts = ContextBuilder(policy.tokenizer, reference_view(), student=CHAT, teacher=CHAT)
    problems = train_problems()[:prompts]
    rollouts = sample_rollouts(HFSampler(policy, progress=False), contexts, problems, SamplingParams(max_new_tokens=new_tokens))
    lengths = [len(rollout.completion_ids) for rollout in rollouts]
    built = [contexts.build(problem) for problem in problems]
    return Rows(
        sum(len(pair.student_ids) for pair in built),
        sum(len(pair.teacher_ids) for pair in built),
        tuple(sum(length > place for length in lengths) for place in range(max(lengths))),
    )


def floor(policy: Policy, rows: Rows) -> Callable[[], None]:
    """Return what runs the products of a step once."""
    head = LogitHead.of(policy).module.weight.detach()
    plain = [module.weight.detach() for module in policy.causal_lm.modules() if type(module) is nn.Linear]
    layers = [weight for weight in plain if weight.data_ptr() != head.data_ptr()]
    widest = max(size for weight in layers for size in weight.shape)
    most = max(rows.student_prompts, rows.teacher_prompts) + rows.completions
    values, low = (torch.randn(count, widest, dtype=head.dtype, device=head.device) for count in (most, RANK))
    logits = torch.randn(BLOCK, len(head), dtype=head.dtype, device=head.device)

    def forward(count: int) -> None:
        for weight in layers:
            _product(values[:count, : weight.shape[1]], weight)

    @torch.inference_mode()
    def run() -> None:
        for count in (rows.student_prompts, *rows.written[1:]):
            forward(count)
        for count in rows.written:
            _product(values[:count, : head.shape[1]], head)
        for prompts in (rows.student_prompts, rows.teacher_prompts):
            forward(prompts + rows.completions)
        for count in _blocks(rows.completions):
            for _ in ("student", "teacher"):
                torch.mm(values[:count, : head.shape[1]], head.T)
            torch.mm(logits[:count], head)
        for weight in layers:
            _backward(values[: rows.student_prompts + rows.completions], weight, low)

    return run


def _product(rows: Tensor, weight: Tensor) -> None:
    if rows.dtype == torch.float32 and len(rows) <= MOST:
        multiply(rows.contiguous(), weight)
    else:
        torch.mm(rows, weight.T)


def _backward(values: Tensor, weight: Tensor, low: Tensor) -> None:
    """Run the products of a layer's gradient by its input, and those of its LoRA, forward and backward."""
    out, into = weight.shape
    grown, given, down, up = values[:, :out], values[:, :into], low[:, :into], low[:, :out]
    grown @ weight
    narrow = given @ down.T
    narrow @ up  # the forward
    grown.T @ narrow  # by the upper matrix
    inner = grown @ up.T
    inner.T @ given  # by the lower one
    inner @ down  # by the input


def _blocks(count: int) -> Iterator[int]:
    while count > 0:
        yield min(count, BLOCK)
        count -= BLOCK
