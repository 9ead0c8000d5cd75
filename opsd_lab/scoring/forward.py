"""One forward pass of one side: the hidden states from which the completion's tokens are predicted, and nothing else.

The trunk runs without logits. Sequences are padded on the right, where a causal model cannot see the padding, so neither an
attention mask nor position ids are needed and a row's numbers do not depend on its neighbours: `check_head` tries that on a few
tokens, and up to `Policy.context_limit` the length changes nothing.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from opsd_lab.policies.architecture import trunk_of
from opsd_lab.policies.head import LogitHead
from opsd_lab.policies.lora_products import joined_lora
from opsd_lab.policies.policy import Policy
from opsd_lab.policies.recomputation import recomputed_layers
from opsd_lab.scoring.shared_prompts import SharedPrompts, shared_states, shares_prompts


@dataclass(frozen=True)
class CompletionStates:
    """What one side computed at the completion's positions.

    `hidden` [N, H] holds, for each completion token of the batch, the state that predicts it: row by row, no padding,
    N = sum of the completion lengths. `head` turns states into logits.
    """

    hidden: Tensor
    head: LogitHead

    def logits(self) -> Tensor:
        """Return the float32 logits [N, V] that predict each completion token."""
        return self.head(self.hidden)


def score_completions(
    policy: Policy,
    ids: Tensor,
    prompt_lengths: Tensor,
    completion_mask: Tensor,
    head: LogitHead | None = None,
    shared: SharedPrompts | None = None,
) -> CompletionStates:
    """Run the policy over prompts with their completions and keep the states that predict the completions.

    `ids` [B, S]: each row a prompt followed by its completion, padded on the right. `prompt_lengths` [B]. `completion_mask`
    [B, T], true where row b has a t-th completion token to score. The token at position p is predicted by the state at p - 1. `head`
    is what turns the states into logits, the policy's own where left out; one that several calls share is prepared once. `shared` are
    the prompts of these rows, each once, where they are few: then they are computed once, if the model gives the same numbers so.

    Raises:
        ValueError: when a sequence is longer than `Policy.context_limit` allows.
    """
    policy.ensure_evaluation_mode()
    policy.context_limit.check(ids.shape[1], f"{policy.name}: a sequence to score")
    head = head or LogitHead.of(policy)
    kept = head if torch.is_grad_enabled() else head.kept()
    # Prompts and completions of different rows side by side are wider than any row alone.
    if shared is not None and shared.width <= policy.context_limit.tokens and shares_prompts(policy):
        with joined_lora(policy.causal_lm):
            return CompletionStates(shared_states(policy, shared)[completion_mask], kept)
    trunk = trunk_of(policy.causal_lm)
    with recomputed_layers(policy.causal_lm), joined_lora(policy.causal_lm):
        hidden = trunk(input_ids=ids, use_cache=False).last_hidden_state
    steps = torch.arange(completion_mask.shape[1], device=ids.device)
    positions = (prompt_lengths[:, None] - 1 + steps).clamp(max=ids.shape[1] - 1)
    rows = torch.arange(len(ids), device=ids.device)[:, None]
    return CompletionStates(hidden[rows, positions][completion_mask], kept)
