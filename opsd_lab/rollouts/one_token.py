"""The forward pass of one new token per sequence, for architectures of Llama's form: the layers' own products, little around them.

transformers builds masks, checks arguments and wraps each layer's call anew for every token. For few rows and small layers that takes
longer than the products. What is computed here is the same function; `decoding.steps_for` compares the two before it is used.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaModel
from transformers.models.qwen2.modeling_qwen2 import Qwen2Model
from transformers.models.qwen3.modeling_qwen3 import Qwen3Model

from opsd_lab.policies.architecture import is_bare
from opsd_lab.policies.products import LEAST
from opsd_lab.rollouts.decoding_layers import folded_attention

TRUNKS = (LlamaModel, Qwen2Model, Qwen3Model)


def fits_one_token(trunk: nn.Module) -> bool:
    """Tell whether `OneTokenPass` knows a trunk: its class, attention to everything, and no foreign code around its layers."""
    if type(trunk) not in TRUNKS or trunk.config._attn_implementation != "sdpa":
        return False
    parts = [trunk, trunk.norm, *(part for layer in trunk.layers for part in (layer, *_own_parts(layer)))]
    kinds = set(getattr(trunk.config, "layer_types", None) or ["full_attention"])
    return kinds == {"full_attention"} and all(map(is_bare, parts))


def _own_parts(layer: nn.Module) -> list[nn.Module]:
    """Return the modules of a layer whose forward pass is written anew here."""
    norms = [getattr(layer.self_attn, name) for name in ("q_norm", "k_norm") if hasattr(layer.self_attn, name)]
    return [layer.self_attn, layer.mlp, layer.input_layernorm, layer.post_attention_layernorm, *norms]


class OneTokenPass:
    """Computes the states of one new token per sequence with the weights that a trunk has now; make another when they change."""

    def __init__(self, trunk: PreTrainedModel) -> None:
        self._trunk, self._layers = trunk, [_Layer(layer) for layer in trunk.layers]
        self._norm = _norm(trunk.norm)

    def __call__(self, ids: Tensor, seen: Tensor | None, positions: Tensor, cache: Cache) -> Tensor:
        """Return the states [B, H] of the new tokens, whose keys and values join the cache.

        Args:
            ids: the new tokens [B, 1].
            seen: [B, S], 1 for each token of the cache that is no padding, the new one among them; None where there is no padding.
            positions: the new tokens' positions [B, 1].
            cache: what came before.
        """
        hidden = self._trunk.embed_tokens(ids[:, 0])
        turn = _rotation(*self._trunk.rotary_emb(hidden, position_ids=positions))
        mask = None if seen is None else seen[:, None, None, :].bool()
        for index, layer in enumerate(self._layers):
            hidden = layer(hidden, turn, mask, partial(cache.update, layer_idx=index))
        return self._norm(hidden)


class _Layer:
    def __init__(self, layer: nn.Module) -> None:
        self._attention, self._mlp = layer.self_attn, layer.mlp
        self._before, self._between = _norm(layer.input_layernorm), _norm(layer.post_attention_layernorm)
        self._projections = _joined([self._attention.q_proj, self._attention.k_proj, self._attention.v_proj])
        self._gate_and_up = _joined([self._mlp.gate_proj, self._mlp.up_proj])
        config = self._attention.config
        self._queries, self._keys = config.num_attention_heads, config.num_key_value_heads
        self._head_norm = _head_norm(self._attention, self._queries, self._keys)

    def __call__(self, hidden: Tensor, turn: Callable[[Tensor], Tensor], mask: Tensor | None, kept: Callable) -> Tensor:
        heads = self._projections(self._before(hidden)).unflatten(-1, (-1, self._attention.head_dim))
        turned, values = turn(self._head_norm(heads[:, : -self._keys])), heads[:, -self._keys :]
        keys, values = kept(turned[:, self._queries :, None], values[:, :, None])
        queries, scaling = turned[:, : self._queries, None], self._attention.scaling
        found, _ = folded_attention(self._attention, queries, keys, values, mask, scaling=scaling)
        hidden = hidden + self._attention.o_proj(found.reshape(len(hidden), -1))
        gate, up = self._gate_and_up(self._between(hidden)).chunk(2, -1)
        return hidden + self._mlp.down_proj(self._mlp.act_fn(gate) * up)


def _rotation(cos: Tensor, sin: Tensor) -> Callable[[Tensor], Tensor]:
    """Return what turns heads [B, heads, size] by the angles whose cosines and sines [B, 1, size] are given."""
    cos, sin = (part.unflatten(-1, (2, -1)) for part in (cos, sin))
    sin = torch.stack([-sin[..., 0, :], sin[..., 1, :]], -2)

    def turn(heads: Tensor) -> Tensor:
        halves = heads.unflatten(-1, (2, -1))
        return torch.addcmul(halves * cos, halves.flip(-2), sin).flatten(-2)

    return turn


def _norm(norm: nn.Module) -> Callable[[Tensor], Tensor]:
    return partial(_normed, weight=norm.weight, least=norm.variance_epsilon)


def _head_norm(attention: nn.Module, queries: int, keys: int) -> Callable[[Tensor], Tensor]:
    """Return what normalises the heads of queries and keys [B, heads, size]; nothing, where the architecture does not."""
    if not hasattr(attention, "q_norm"):
        return _unchanged
    weight = torch.cat([attention.q_norm.weight.expand(queries, -1), attention.k_norm.weight.expand(keys, -1)])
    return partial(_normed, weight=weight, least=attention.q_norm.variance_epsilon)


def _unchanged(heads: Tensor) -> Tensor:
    return heads


def _normed(hidden: Tensor, weight: Tensor, least: float) -> Tensor:
    wide = hidden.float()
    scale = torch.linalg.vecdot(wide, wide).div_(wide.shape[-1]).add_(least).rsqrt_()
    return (wide * scale[..., None]).to(hidden.dtype) * weight


def _joined(layers: Sequence[nn.Module]) -> Callable[[Tensor], Tensor]:
    """Return what computes the layers' outputs beside each other: in one product where they are small, whose call costs most."""
    small = all(type(layer) is nn.Linear and is_bare(layer) and layer.weight.numel() < LEAST for layer in layers)
    biases = [layer.bias for layer in layers if getattr(layer, "bias", None) is not None]
    if not small or len(biases) not in (0, len(layers)):
        return partial(_side_by_side, layers)
    return partial(F.linear, weight=torch.cat([layer.weight for layer in layers]), bias=torch.cat(biases) if biases else None)


def _side_by_side(layers: Sequence[nn.Module], hidden: Tensor) -> Tensor:
    return torch.cat([layer(hidden) for layer in layers], -1)
