"""One forward pass of one side: the hidden states from which the completion's tokens are predicted, and nothing else.

The trunk runs without logits. Sequences are padded on the right, where a causal model cannot see the padding, so neither an
attention mask nor position ids are needed and a row's numbers do not depend on its neighbours.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsd_lab.policies import Policy


@dataclass(frozen=True)
class LogitHead:
    """Turns hidden states into float32 logits.

    `module` is the model's output layer; its product is computed in float32, since bfloat16 logits would round every
    log-probability to about two digits. `scale` and `softcap` are what some architectures do to their logits afterwards.
    """

    module: nn.Module
    scale: float = 1.0
    softcap: float | None = None

    @classmethod
    def of(cls, policy: Policy) -> "LogitHead":
        """Return the policy's head, with the scale and soft cap that its config names."""
        config = policy.causal_lm.config.get_text_config()
        scale = getattr(config, "logit_scale", None) or 1.0  # Cohere multiplies
        scale /= getattr(config, "logits_scaling", None) or 1.0  # Granite divides
        softcap = getattr(config, "final_logit_softcapping", None)  # Gemma
        return cls(policy.causal_lm.get_output_embeddings(), scale, softcap)

    @property
    def is_frozen(self) -> bool:
        """Whether every side and every step has the same head: a plain layer that does not train."""
        return type(self.module) is nn.Linear and not self.module.weight.requires_grad

    @cached_property
    def _frozen_weight(self) -> Tensor:
        with torch.inference_mode(False):  # whoever asks first, training must be able to use it
            return self.module.weight.detach().float()

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return logits [..., V] of hidden states [..., H]."""
        if type(self.module) is nn.Linear:
            weight = self._frozen_weight if self.is_frozen else self.module.weight.float()
            logits = self._product(hidden, weight, None if self.module.bias is None else self.module.bias.float())
        else:  # a LoRA or a quantised layer knows itself how to multiply
            logits = self.module(hidden).float()
        logits = logits * self.scale if self.scale != 1 else logits
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)

    def _product(self, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(hidden.float(), weight, bias)


@dataclass(frozen=True)
class ScoringHead(LogitHead):
    """A LogitHead for scoring without gradients: it keeps the weights of when it was made, and is faster on some processors.

    Products of two bfloat16 numbers are exact in float32, so where states and weights both are bfloat16 the processor may
    multiply them as such and add up in float32; the logits differ from LogitHead's by the order of the additions alone.
    """

    @classmethod
    def of(cls, policy: Policy) -> "ScoringHead":
        """Return the policy's present head; a plain layer that trains, and so may change, is copied."""
        head = super().of(policy)
        if type(head.module) is nn.Linear and not head.is_frozen:
            return replace(head, module=copy.deepcopy(head.module).requires_grad_(False))
        return head

    def _product(self, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        exact = hidden.dtype == self.module.weight.dtype == torch.bfloat16 and hidden.device.type == "cpu"
        matmul = torch.backends.mkldnn.matmul
        before = matmul.fp32_precision
        try:
            matmul.fp32_precision = "bf16" if exact else before
            return super()._product(hidden, weight, bias)
        finally:
            matmul.fp32_precision = before


@dataclass(frozen=True)
class CompletionStates:
    """What one side computed at the completion's positions.

    `hidden` [N, H] holds, for each completion token of the batch, the state that predicts it: row by row, no padding,
    N = sum of the completion lengths. `head` turns states into logits; where it may be called later, under other weights than
    these states were computed with, `hidden` holds the logits already and `head` returns them.
    """

    hidden: Tensor
    head: Callable[[Tensor], Tensor]

    def logits(self) -> Tensor:
        """Return the float32 logits [N, V] that predict each completion token."""
        return self.head(self.hidden)


def score_completions(
    policy: Policy, ids: Tensor, prompt_lengths: Tensor, completion_mask: Tensor, head: LogitHead | None = None
) -> CompletionStates:
    """Run the policy over prompts with their completions and keep the states that predict the completions.

    `ids` [B, S]: each row a prompt followed by its completion, padded on the right. `prompt_lengths` [B]. `completion_mask`
    [B, T], true where row b has a t-th completion token to score. The token at position p is predicted by the state at p - 1.
    """
    trunk = policy.causal_lm.get_decoder()
    hidden = trunk(input_ids=ids, use_cache=False).last_hidden_state
    steps = torch.arange(completion_mask.shape[1], device=ids.device)
    positions = (prompt_lengths[:, None] - 1 + steps).clamp(max=ids.shape[1] - 1)
    rows = torch.arange(len(ids), device=ids.device)[:, None]
    head, states = head or LogitHead.of(policy), hidden[rows, positions][completion_mask]
    if head.is_frozen or torch.is_grad_enabled():
        return CompletionStates(states, head)
    return CompletionStates(head(states), nn.Identity())  # a teacher's own head, while the teacher's weights are in place


@torch.inference_mode()
def check_head(policy: Policy) -> None:
    """Compare trunk plus head with the model's own logits on a few tokens.

    Raises:
        NotImplementedError: when they differ, because the architecture does something to its logits that `LogitHead` does not.
    """
    ids = torch.tensor([[policy.eos_ids[0], 0, 1, 2]], device=policy.device)
    own = policy.causal_lm(input_ids=ids, use_cache=False).logits.float()
    ours = LogitHead.of(policy)(policy.causal_lm.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state)
    tolerance = 1e-4 if policy.causal_lm.dtype == torch.float32 else 0.03
    if (worst := (own - ours).abs().max() / own.abs().max().clamp(min=1e-6)) > tolerance:
        raise NotImplementedError(
            f"{policy.name} ({policy.causal_lm.config.model_type}) changes its logits after the output layer in a way that "
            f"opsd_lab does not know (relative difference {worst:.2g}); add the rule to LogitHead.of"
        )
