"""A LoRA's layer with its gradient in few passes over memory: for training, where peft's scaling and adding cost time and room."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from transformers import PreTrainedModel
from transformers.activations import SiLUActivation
from transformers.models.llama.modeling_llama import LlamaMLP
from transformers.models.qwen2.modeling_qwen2 import Qwen2MLP
from transformers.models.qwen3.modeling_qwen3 import Qwen3MLP

from opsd_lab.policies.adapters import active_adapters, is_plain_lora, tuner_layers
from opsd_lab.policies.architecture import is_bare

GATED = (LlamaMLP, Qwen2MLP, Qwen3MLP)  # down(act(gate(x)) up(x))


@contextmanager
def joined_lora(model: PreTrainedModel) -> Iterator[None]:
    """Compute each LoRA together with its layer inside the block, where gradients are kept: the same numbers, to rounding.

    The scaled product of the two factors is added to the layer's by the matrix product itself, forward and backward. The activations
    of a gated layer are not kept: the backward pass computes them again from the gate's and the other's outputs, which are.

    Layers of which more is asked compute as ever: half precision, several adapters at once, a variant of LoRA, dropout, a layer that
    trains itself, or one with hooks. So does a model that computes its layers a second time during the backward pass, outside of the
    block.
    """
    joined: list[nn.Module] = []
    gated: list[nn.Module] = []
    if torch.is_grad_enabled() and not model.is_gradient_checkpointing:
        joined = [layer for layer in tuner_layers(model).values() if _is_joinable(layer)]
        gated = [m for m in model.modules() if type(m) in GATED and m.down_proj in joined and _is_silu(m.act_fn) and is_bare(m)]
    try:
        for layer in joined:
            layer.forward = partial(_forward, layer)
        for layer in gated:
            layer.forward = partial(_gated_forward, layer)
        yield
    finally:
        for layer in (*joined, *gated):
            vars(layer).pop("forward", None)


def _is_joinable(layer: nn.Module) -> bool:
    if type(layer) is not LoraLinear or layer.merged or layer.fan_in_fan_out or not is_plain_lora(layer):
        return False
    base, adapters = layer.get_base_layer(), active_adapters(layer)
    if len(adapters) != 1 or type(base) is not nn.Linear or any(p.requires_grad for p in base.parameters()):
        return False
    (adapter,) = adapters
    dropout, parts = layer.lora_dropout[adapter], (layer, base, layer.lora_A[adapter], layer.lora_B[adapter])
    drops = not isinstance(dropout, nn.Identity) and (dropout.training or type(dropout) is not nn.Dropout)
    single = all(p.dtype == torch.float32 for part in parts for p in part.parameters(recurse=False))
    return single and not drops and all(map(is_bare, parts))


def _is_silu(module: nn.Module) -> bool:
    return type(module) in (nn.SiLU, SiLUActivation) and is_bare(module)


def _plain(hidden: Tensor) -> bool:
    return hidden.dtype == torch.float32 and not torch.is_autocast_enabled(hidden.device.type)


def _numbers(layer: LoraLinear) -> tuple[object, ...]:
    """Return weight, bias, both factors and the scale."""
    (adapter,), base = active_adapters(layer), layer.get_base_layer()
    return base.weight, base.bias, layer.lora_A[adapter].weight, layer.lora_B[adapter].weight, layer.scaling[adapter]


def _forward(layer: LoraLinear, hidden: Tensor, *args: object, **options: object) -> Tensor:
    if args or options or not _plain(hidden):
        return type(layer).forward(layer, hidden, *args, **options)
    return _Joined.apply(hidden, *_numbers(layer))


def _gated_forward(layer: nn.Module, hidden: Tensor) -> Tensor:
    if not _plain(hidden):
        return type(layer).forward(layer, hidden)
    return _Gated.apply(layer.gate_proj(hidden), layer.up_proj(hidden), *_numbers(layer.down_proj))


class _Joined(torch.autograd.Function):
    """x W' + b + s x A' B', of which x [..., in], A [r, in] and B [out, r] get gradients."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
        rows = x.flatten(0, -2)
        found, narrow = _product(rows, weight, bias, a, b, scale)
        ctx.save_for_backward(rows, narrow, weight, a, b)
        ctx.scale = scale
        return found.unflatten(0, x.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, slopes: Tensor) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad
        of_rows, of_a, of_b = _slopes(slopes.flatten(0, -2), *ctx.saved_tensors, ctx.scale, (wanted[0], *wanted[3:5]))
        return None if of_rows is None else of_rows.unflatten(0, slopes.shape[:-1]), None, None, of_a, of_b, None


class _Gated(torch.autograd.Function):
    """The same of x = silu(g) u, which is not kept; g, u, A and B get gradients."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, g: Tensor, u: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float
    ) -> Tensor:
        found, narrow = _product(F.silu(g).mul_(u).flatten(0, -2), weight, bias, a, b, scale)
        ctx.save_for_backward(g, u, narrow, weight, a, b)
        ctx.scale = scale
        return found.unflatten(0, g.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, slopes: Tensor) -> tuple[Tensor | None, ...]:
        g, u, *numbers = ctx.saved_tensors
        wanted, active = ctx.needs_input_grad, F.silu(g)
        rows, inside = (active * u).flatten(0, -2), wanted[0] or wanted[1]
        of_rows, of_a, of_b = _slopes(slopes.flatten(0, -2), rows, *numbers, ctx.scale, (inside, *wanted[4:6]))
        if not inside:
            return None, None, None, None, of_a, of_b, None
        of_x = of_rows.view_as(g)
        of_u = active.mul_(of_x)
        return torch.ops.aten.silu_backward(of_x.mul_(u), g), of_u, None, None, of_a, of_b, None


def _product(rows: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Return the layer's output for rows [n, in], and what is between the two factors [n, r]."""
    narrow = rows @ a.T
    return F.linear(rows, weight, bias).addmm_(narrow, b.T, alpha=scale), narrow


def _slopes(
    slopes: Tensor, rows: Tensor, narrow: Tensor, weight: Tensor, a: Tensor, b: Tensor, scale: float, wanted: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the gradients of rows, A and B that are wanted, from that of the output [n, out]."""
    of_narrow = (slopes @ b).mul_(scale)
    return (
        (slopes @ weight).addmm_(of_narrow, a) if wanted[0] else None,
        of_narrow.T @ rows if wanted[1] else None,
        (slopes.T @ narrow).mul_(scale) if wanted[2] else None,
    )
