"""One forward pass of one side: the hidden states from which the completion's tokens are predicted, and nothing else.

The trunk runs without logits. Sequences are padded on the right, where a causal model cannot see the padding, so neither an
attention mask nor position ids are needed and a row's numbers do not depend on its neighbours.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsd_lab.interrupts import deferred_interrupts
from opsd_lab.policies import Policy
from opsd_lab.recomputation import recomputed_layers


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
    def size(self) -> int:
        """How many tokens the vocabulary has."""
        return self.module.out_features

    @property
    def is_frozen(self) -> bool:
        """Whether every side and every step has the same head: a plain layer that does not train."""
        return type(self.module) is nn.Linear and not self.module.weight.requires_grad

    def kept(self) -> "LogitHead":
        """Return the head with its present weights, frozen, for use when other weights may be in place.

        A plain layer's weights are shared, not copied: they must not change in place meanwhile.
        """
        if self.is_frozen:
            return self
        if type(self.module) is not nn.Linear:
            return replace(self, module=copy.deepcopy(self.module).requires_grad_(False))
        module = nn.Linear(self.module.in_features, self.module.out_features, bias=False, device="meta")
        for name, parameter in self.module.named_parameters():
            setattr(module, name, nn.Parameter(parameter.detach(), requires_grad=False))
        return replace(self, module=module)

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return logits [..., V] of hidden states [..., H]."""
        if self.is_frozen and not torch.is_grad_enabled():
            flat = hidden.flatten(0, -2)
            return self.write(flat, flat.new_empty(len(flat), self.size, dtype=torch.float32)).unflatten(0, hidden.shape[:-1])
        if type(self.module) is nn.Linear:
            weight, bias = self.module.weight, self.module.bias
            wide = self._frozen_weight if self.is_frozen else weight.float()
            logits = F.linear(hidden.float(), wide, None if bias is None else bias.float())
        else:  # a LoRA or a quantised layer knows itself how to multiply
            logits = self.module(hidden).float()
        logits = logits * self.scale if self.scale != 1 else logits
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)

    @torch.no_grad()
    def write(self, hidden: Tensor, out: Tensor) -> Tensor:
        """Write the logits of hidden states [n, H] into float32 `out` [n, V] and return it; no gradient is kept."""
        if not self.is_frozen:
            return out.copy_(self(hidden))
        weight, bias = self.module.weight, self.module.bias
        if hidden.dtype == weight.dtype and _multiplies_half(weight):
            torch.mm(hidden, weight.T, out_dtype=torch.float32, out=out)
        else:
            # Products of two bfloat16 numbers are exact in float32: where states and weights both are bfloat16, the processor
            # may multiply them as such and add up in float32.
            with _bfloat16_products(hidden.dtype == weight.dtype == torch.bfloat16):
                torch.mm(hidden.float(), self._frozen_weight.T, out=out)
        if bias is not None:
            out.add_(bias.float())
        if self.scale != 1:
            out.mul_(self.scale)
        return out if self.softcap is None else out.div_(self.softcap).tanh_().mul_(self.softcap)

    def before_cap(self, slopes: Tensor, logits: Tensor) -> Tensor:
        """Turn derivatives by the logits into derivatives by the output layer's product [n, V]; `slopes` is overwritten."""
        if self.softcap is not None:
            slopes.mul_(1 - (logits / self.softcap).square_())
        return slopes.mul_(self.scale) if self.scale != 1 else slopes

    def pull_back(self, slopes: Tensor) -> Tensor:
        """Turn derivatives by the product [n, V] into float32 derivatives by the states [n, H].

        On a CUDA device it is computed in the weight's own precision, as the model's other backward products are.

        Raises:
            TypeError: unless the head is frozen.
        """
        if not self.is_frozen:
            raise TypeError("LogitHead.pull_back: the head trains, or is no plain layer; differentiate its call instead")
        if _multiplies_half(self.module.weight):
            return torch.mm(slopes.to(self.module.weight.dtype), self.module.weight, out_dtype=torch.float32)
        return slopes @ self._frozen_weight

    @cached_property
    def _frozen_weight(self) -> Tensor:
        with torch.inference_mode(False):  # whoever asks first, training must be able to use it
            return self.module.weight.detach().float()


def _multiplies_half(weight: Tensor) -> bool:
    """Whether the device multiplies half-precision matrices into float32 ones."""
    return weight.is_cuda and weight.dtype in (torch.bfloat16, torch.float16)


@contextmanager
def _bfloat16_products(allowed: bool) -> Iterator[None]:
    """Let the processor round the factors of float32 products to bfloat16 inside the block, if that is allowed."""
    matmul = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    try:
        matmul.fp32_precision = "bf16" if allowed else before
        yield
    finally:
        matmul.fp32_precision = before


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
    policy: Policy, ids: Tensor, prompt_lengths: Tensor, completion_mask: Tensor, head: LogitHead | None = None
) -> CompletionStates:
    """Run the policy over prompts with their completions and keep the states that predict the completions.

    `ids` [B, S]: each row a prompt followed by its completion, padded on the right. `prompt_lengths` [B]. `completion_mask`
    [B, T], true where row b has a t-th completion token to score. The token at position p is predicted by the state at p - 1.
    """
    policy.ensure_evaluation_mode()
    trunk = policy.causal_lm.get_decoder()
    with recomputed_layers(policy.causal_lm):
        hidden = trunk(input_ids=ids, use_cache=False).last_hidden_state
    steps = torch.arange(completion_mask.shape[1], device=ids.device)
    positions = (prompt_lengths[:, None] - 1 + steps).clamp(max=ids.shape[1] - 1)
    rows = torch.arange(len(ids), device=ids.device)[:, None]
    head = head or LogitHead.of(policy)
    return CompletionStates(hidden[rows, positions][completion_mask], head if torch.is_grad_enabled() else head.kept())


@deferred_interrupts()
@torch.inference_mode()
def check_head(policy: Policy) -> None:
    """Compare trunk plus head with the model's own logits on a few tokens.

    Raises:
        NotImplementedError: when they differ, because the architecture does something to its logits that `LogitHead` does not.
    """
    policy.ensure_evaluation_mode()
    ids = torch.tensor([[policy.eos_ids[0], 0, 1, 2]], device=policy.device)
    own = policy.model(input_ids=ids, use_cache=False).logits.float()
    ours = LogitHead.of(policy)(policy.causal_lm.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state)
    tolerance = 1e-4 if policy.causal_lm.dtype == torch.float32 else 0.03
    if (worst := (own - ours).abs().max() / own.abs().max().clamp(min=1e-6)) > tolerance:
        raise NotImplementedError(
            f"{policy.name} ({policy.causal_lm.config.model_type}) changes its logits after the output layer in a way that "
            f"opsd_lab does not know (relative difference {worst:.2g}); add the rule to LogitHead.of"
        )
