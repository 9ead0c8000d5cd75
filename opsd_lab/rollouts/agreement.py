"""Whether an engine samples from the policy: its log-probabilities against the trainer's, on the same tokens."""

from dataclasses import dataclass

import torch

from opsd_lab.basics.interrupts import deferred_interrupts
from opsd_lab.policies.architecture import trunk_of
from opsd_lab.policies.head import LogitHead
from opsd_lab.policies.policy import Policy
from opsd_lab.rollouts.base import Rollout


@dataclass(frozen=True)
class Agreement:
    """Sampler's minus trainer's log-probability over a rollout's tokens (nats): mean and largest size, and the mean itself.

    The mean is the one-sample estimate of KL(sampler || trainer).
    """

    mean: float
    largest: float
    kl: float


@deferred_interrupts()
@torch.inference_mode()
def own_logprobs(policy: Policy, rollout: Rollout) -> torch.Tensor:
    """Return the policy's own log-probability of each of the rollout's completion tokens [T]."""
    policy.ensure_evaluation_mode()
    ids = torch.tensor([rollout.prompt_ids + rollout.completion_ids], device=policy.device)
    hidden = trunk_of(policy.causal_lm)(input_ids=ids, use_cache=False).last_hidden_state
    logits = LogitHead.of(policy)(hidden[0, len(rollout.prompt_ids) - 1 : -1])
    return logits.log_softmax(-1).gather(-1, ids[0, len(rollout.prompt_ids) :, None])[:, 0].cpu()


def agreement(policy: Policy, rollout: Rollout) -> Agreement:
    """Return how far a rollout's log-probabilities lie from the policy's own."""
    difference = torch.tensor(rollout.logprobs) - own_logprobs(policy, rollout)
    return Agreement(float(difference.abs().mean()), float(difference.abs().max()), float(difference.mean()))


def check_agreement(policy: Policy, rollout: Rollout, tolerance: float, engine: str) -> None:
    """Make sure that a rollout's log-probabilities are the policy's, up to rounding.

    `policy` is what `engine`, a name for the message, should have sampled `rollout` from. `tolerance` bounds the mean difference
    (nats a token).

    Raises:
        RuntimeError: when the mean difference exceeds the tolerance, or is no number; it names the engine.
    """
    found = agreement(policy, rollout)
    if not found.mean <= tolerance:
        raise RuntimeError(
            f"{engine} does not sample from {policy.name}: its log-probabilities differ from the policy's by {found.mean:.3g} nats "
            f"a token on average (tolerance {tolerance:g}). It serves another model, other weights or another precision"
        )
