"""What it saves to compute a prompt once for all rollouts of its problem: scoring under every view, and the student's backward.

Two problems with eight rollouts each, with one view and with three. "Alone" computes every rollout with its own prompt. The numbers
of both are compared too: losses by their largest difference, gradients by the norm of theirs.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
import tyro
from torch import Tensor

from opsd_lab.experiments.walkthrough import train_problems
from opsd_lab.policies.head import LogitHead
from opsd_lab.policies.policy import Policy, add_lora
from opsd_lab.policies.teachers import fixed_teacher
from opsd_lab.rollouts import HFSampler, SamplingParams, sample_rollouts
from opsd_lab.scoring import forward
from opsd_lab.scoring.batching import Batch, build_batch
from opsd_lab.scoring.pipeline import Pipeline
from opsd_lab.supervision import build_examples
from tests.benchmarks.measure import alternate, medians, ratio, show
from tests.benchmarks.samplers import disturb
from tests.benchmarks.step import Workload, embedded, objective_of, prompts_of


@contextmanager
def computed_alone() -> Iterator[None]:
    """Let every rollout be computed with its own prompt inside the block."""
    shares = forward.shares_prompts
    forward.shares_prompts = lambda policy: False
    try:
        yield
    finally:
        forward.shares_prompts = shares


def learn(policy: Policy, pipeline: Pipeline, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the losses [N] of a batch and the gradient of their mean, as one vector."""
    policy.model.zero_grad()
    loss = pipeline.score(batch, LogitHead.of(policy)).loss
    loss.mean().backward()
    return loss.detach(), torch.cat([parameter.grad.flatten() for parameter in policy.trainable().values()])


def alone(policy: Policy, pipeline: Pipeline, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the same, every rollout computed with its own prompt."""
    with computed_alone():
        return learn(policy, pipeline, batch)


def compare(work: Workload, rounds: int) -> dict[str, object]:
    """Return seconds, the ratio shared / alone, and the differences of losses and gradients, for one view and for three."""
    policy = add_lora(work.load(work.dtype))
    disturb(policy)
    problems, found = train_problems()[: work.prompts], {}
    for views in (1, 3):
        contexts = prompts_of(policy, replace(work, views=views))
        rollouts = sample_rollouts(
            HFSampler(policy, progress=False), contexts, problems, SamplingParams(work.new_tokens, n=work.each)
        )
        examples = build_examples(contexts, problems, rollouts)
        batch = build_batch(examples, policy.pad_id, policy.device)
        given = policy, Pipeline(policy, fixed_teacher(policy), objective_of(replace(work, views=views))), batch
        runs = {"shared": functools.partial(learn, *given), "alone": functools.partial(alone, *given)}
        seconds = alternate(runs, rounds, f"shared prompts, {views} views")
        (loss, gradient), (own_loss, own_gradient) = (run() for run in runs.values())
        found[f"{views} view" + "s" * (views > 1)] = {
            "seconds": medians(seconds),
            "rounds": seconds,
            "time_vs_alone": ratio(seconds, "shared", "alone"),
            "loss_difference": float((loss - own_loss).abs().max()),
            "gradient_difference": float((gradient - own_gradient).norm() / own_gradient.norm()),
        }
    return {"dtype": str(work.dtype), "prompts": work.prompts, "each": work.each, "new_tokens": work.new_tokens, "by": found}


def main(dtype: str = "float32", rounds: int = 5) -> None:
    """Print one comparison."""
    show(compare(Workload(embedded, getattr(torch, dtype), prompts=2, each=8), rounds))


if __name__ == "__main__":
    tyro.cli(main)
