"""What makes a step of decoding cheap: room in the cache for the tokens to come, and attention that repeats no keys and values."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache, PretrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ROOM = 64  # tokens
FOLDED = "opsd_lab_folded"


class RoomyLayer(DynamicLayer):
    """Keys and values with room behind them, so that a new token is written and the others are not copied."""

    def __init__(self) -> None:
        super().__init__()
        self._roomy: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        """Append the states [B, heads, new, size] and return all keys and values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        have = self.get_seq_length()
        whole = have + key_states.shape[-2]
        if self._roomy is None or whole > self._roomy[0].shape[-2]:
            old, self._roomy = (self.keys, self.values), tuple(_with_room(states, whole) for states in (key_states, value_states))
            for roomy, kept in zip(self._roomy, old, strict=True):
                if have:
                    roomy[..., :have, :] = kept
        for roomy, states in zip(self._roomy, (key_states, value_states), strict=True):
            roomy[..., have:whole, :] = states
        self.keys, self.values = (roomy[..., :whole, :] for roomy in self._roomy)
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep these rows [K], in this order."""
        super().reorder_cache(beam_idx)
        self._roomy = None


def _with_room(states: Tensor, length: int) -> Tensor:
    batch, heads, _, size = states.shape
    return states.new_empty(batch, heads, length + ROOM, size)


def roomy_cache(config: PretrainedConfig) -> DynamicCache:
    """Return an empty cache for a model's config, with room wherever it keeps plain keys and values."""
    cache = DynamicCache(config=config)
    cache.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def folded_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: object
) -> tuple[Tensor, None]:
    """Attend from one position [B, heads, 1, size], the heads that share a key beside each other as if they were positions.

    That is the same function, and no key or value is repeated. Whatever it does not fit goes to transformers' own.

    Args:
        module: the attention layer.
        query: [B, heads, T, size].
        key: [B, fewer heads, S, size].
        value: as `key`.
        attention_mask: [B, 1 or heads, T, S], true where a position is seen, or numbers to add; None where all are.
        options: transformers' further ones, such as `scaling`.
    """
    batch, heads, length, size = query.shape
    shared, plain = key.shape[1], attention_mask is None or attention_mask.shape[1] == 1
    if length > 1 or shared == heads or not plain or options.get("position_bias") is not None or options.get("cache") is not None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    folded = query.reshape(batch, shared, heads // shared, size)
    found = F.scaled_dot_product_attention(folded, key, value, attn_mask=attention_mask, scale=options.get("scaling"))
    return found.reshape(batch, 1, heads, value.shape[-1]), None


AttentionInterface.register(FOLDED, folded_attention)
AttentionMaskInterface.register(FOLDED, sdpa_mask)


@contextmanager
def folding_attention(model: PreTrainedModel) -> Iterator[None]:
    """Let a model that uses PyTorch's attention use `folded_attention` inside the block.

    A model that does not ask transformers which function to attend with, such as Falcon, stays as it is.
    """
    config = model.config.get_text_config()
    if config._attn_implementation != "sdpa" or not model._supports_attention_backend:
        yield
        return
    try:
        config._attn_implementation = FOLDED
        yield
    finally:
        config._attn_implementation = "sdpa"
