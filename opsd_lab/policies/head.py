"""The output layer: hidden states in, float32 logits out, the same for sampler, student and teacher."""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsd_lab.basics.interrupts import deferred_interrupts
from opsd_lab.policies.architecture import trunk_of
from opsd_lab.policies.policy import Policy
from opsd_lab.policies.products import multiply

# What configs call the factor of their logits, and its power: Cohere and Falcon-H1 multiply, Granite divides.
LOGIT_SCALES = {"logit_scale": 1, "lm_head_multiplier": 1, "logits_scaling": -1, "logits_mup_width_multiplier": -1}
INVERSE = {"hyperclovax"}  # which multiplies by the name that divides elsewhere
LOGIT_CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")  # Gemma; RecurrentGemma; xLSTM


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
        scale = 1.0
        for name, power in LOGIT_SCALES.items():
            scale *= (getattr(config, name, None) or 1.0) ** (-power if config.model_type in INVERSE else power)
        softcap = next((cap for name in LOGIT_CAPS if (cap := getattr(config, name, None))), None)
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
        elif hidden.dtype == weight.dtype == torch.bfloat16:
            # Products of two bfloat16 numbers are exact in float32: the processor may multiply them as such and add up in float32.
            with _bfloat16_products():
                torch.mm(hidden.float(), self._frozen_weight.T, out=out)
        else:
            multiply(hidden.float(), self._frozen_weight, out)
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
def _bfloat16_products() -> Iterator[None]:
    """Let the processor round the factors of float32 products to bfloat16 inside the block."""
    matmul = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    try:
        matmul.fp32_precision = "bf16"
        yield
    finally:
        matmul.fp32_precision = before


@deferred_interrupts()
@torch.inference_mode()
def check_head(policy: Policy) -> None:
    """Make sure that scores are the model's own: two short sequences of different length, side by side and each on its own.

    Raises:
        NotImplementedError: when they differ; the message says whether the logits are changed after the output layer in a way that
            `LogitHead` does not know, or the numbers of a sequence depend on what stands beside or behind it, or nothing comes out.
    """
    policy.ensure_evaluation_mode()
    model, trunk, head = policy.causal_lm, trunk_of(policy.causal_lm), LogitHead.of(policy)
    try:
        trunk(input_ids=torch.tensor([[0, 1]], device=policy.device), use_cache=False)
    except Exception as error:  # whatever this architecture, or an adapter on a layer of its own kind, objects to
        raise NotImplementedError(
            f"{policy.name} ({model.config.model_type}) cannot compute a short sequence: {type(error).__name__}: {error}. Where it "
            "has an adapter, name target modules for it that are plain layers: routers, for instance, return more than one tensor"
        ) from error
    rows = [[(5 * i + size) % len(policy.tokenizer) for i in range(size)] for size in (5, 12)]
    own, alone = [], []
    for row in rows:
        ids = torch.tensor([row], device=policy.device)
        own.append(policy.model(input_ids=ids, use_cache=False).logits[0].float())  # with whatever a wrapper does
        alone.append(head(trunk(input_ids=ids, use_cache=False).last_hidden_state[0]))
    ids = torch.tensor([row + [policy.pad_id] * (12 - len(row)) for row in rows], device=policy.device)
    beside = head(trunk(input_ids=ids, use_cache=False).last_hidden_state)
    for found, fault in (
        (alone, "changes its logits after the output layer in a way that opsd_lab does not know (add the rule to LogitHead.of)"),
        (beside, "computes a sequence's numbers from what stands behind or beside it as well, so it has no probability of its own"),
    ):
        worst = max(relative_difference(mine, theirs[: len(mine)]) for mine, theirs in zip(own, found, strict=True))
        if worst > tolerance(policy):
            raise NotImplementedError(
                f"{policy.name} ({model.config.model_type}) {fault}: relative difference {worst:.2g} between its logits and those of "
                "its layers with the output layer"
            )


def relative_difference(own: Tensor, ours: Tensor) -> float:
    """Return the root mean square difference of two sets of logits [n, V], relative to the spread of the first.

    Each row is centred, since a softmax leaves out what is added to all its logits. Other shapes are infinitely far apart.
    """
    if own.shape != ours.shape:
        return math.inf
    own, ours = own - own.mean(-1, keepdim=True), ours - ours.mean(-1, keepdim=True)
    return float((own - ours).square().mean().sqrt() / own.square().mean().sqrt().clamp(min=1e-6))


def tolerance(policy: Policy) -> float:
    """Return the relative difference of logits that rounding explains, in the policy's precision: SmolLM2's is .03 in bfloat16."""
    exact = policy.causal_lm.dtype == torch.float32 and torch.get_float32_matmul_precision() == "highest"
    return 1e-4 if exact else 0.1
