"""The states that predict each next token of several sequences: with a cache where that is the same function, else without.

An architecture's cache, its masks for padding and its positions are three more places in which sampler and trainer could part. So the
cache is used only if, on a few tokens, it gives the numbers that the model gives without it.
"""

import warnings
from typing import Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import cache_utils

from opsd_lab.policies.architecture import accepts, trunk_of
from opsd_lab.policies.head import LogitHead, check_head, relative_difference, tolerance
from opsd_lab.policies.policy import Policy
from opsd_lab.rollouts.decoding_layers import RoomyLayer, folding_attention, roomy_cache
from opsd_lab.rollouts.one_token import OneTokenPass, fits_one_token

CACHE_ARGUMENTS = ("past_key_values", "cache_params")
# The share of the cache's rows that still go on at which the others leave it. Leaving copies the cache: on a device that computes
# many rows in the time of a few, ended rows are cheaper.
WORTH = {"cuda": 0.75}
# Layers whose whole state `reorder_cache` selects; others, such as those that compress, may hold more.
SELECTABLE = {
    getattr(cache_utils, name)
    for name in (
        "DynamicLayer",
        "DynamicSlidingWindowLayer",
        "DynamicIndexedLayer",
        "LinearAttentionLayer",
        "LinearAttentionAndFullAttentionLayer",
        "LinearAttentionAndSlidingWindowAttentionLayer",
    )
    if hasattr(cache_utils, name)
} | {RoomyLayer}


class Steps(Protocol):
    """Several sequences that grow by a token at a time."""

    def states(self) -> Tensor:
        """Return the states [B, H] that predict the next token of each sequence."""
        ...

    def grow(self, tokens: Tensor, going: Tensor) -> None:
        """Append `tokens` [B], then keep the sequences for which `going` [B] is true."""
        ...


class CachedSteps:
    """Prompts padded on the left; each step computes the new tokens alone and finds what came before in a cache.

    A prompt that several sequences begin with is computed once.

    Raises:
        TypeError: for an architecture that takes no cache of transformers' kind.
    """

    def __init__(self, policy: Policy, prompts: list[list[int]]) -> None:
        self._model, self._trunk = policy.causal_lm, trunk_of(policy.causal_lm)
        names = [name for name in CACHE_ARGUMENTS if accepts(self._trunk, name)]
        if not names:
            raise TypeError(f"{type(self._trunk).__name__} takes no cache by the name of {' or '.join(CACHE_ARGUMENTS)}")
        self._name, self._placed = names[0], accepts(self._trunk, "position_ids")
        width, device = max(map(len, prompts)), policy.device
        self._cache = roomy_cache(policy.causal_lm.config)
        # Where the cache's rows cannot be selected afterwards, each sequence has a row of its own from the beginning.
        keys = [tuple(prompt) if self._selectable else i for i, prompt in enumerate(prompts)]
        once = dict(zip(keys, prompts, strict=True))
        numbers = {key: number for number, key in enumerate(once)}
        self._ids = torch.tensor([[policy.pad_id] * (width - len(p)) + p for p in once.values()], device=device)
        self._mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in once.values()], device=device)
        self._positions = (self._mask.cumsum(-1) - 1).clamp(min=0)
        self._padded = bool((self._mask == 0).any())
        self._worth = WORTH.get(device.type, 1)
        # Each sequence's row of the cache, in the order of the sequences that go on.
        self._rows = torch.tensor([numbers[key] for key in keys], device=device)

    @property
    def _selectable(self) -> bool:
        return bool(self._cache.layers) and all(type(layer) in SELECTABLE for layer in self._cache.layers)

    def states(self) -> Tensor:
        """Return the states [B, H] that predict the next token of each sequence."""
        # A recurrent state has left the padding behind after the prompt: then its layers would take the mask for the new tokens'.
        masked = self._padded and (self._name == "past_key_values" or self._ids.shape[1] == self._mask.shape[1])
        with folding_attention(self._model):
            hidden = self._trunk(
                input_ids=self._ids,
                attention_mask=self._mask if masked else None,
                use_cache=True,
                **{self._name: self._cache} | ({"position_ids": self._positions} if self._placed else {}),
            ).last_hidden_state
        return hidden[self._rows, -1]

    def grow(self, tokens: Tensor, going: Tensor) -> None:
        """Append `tokens` [B], then keep the sequences for which `going` [B] is true."""
        if len(self._rows) > len(self._mask):  # sequences leave the prompts that they shared
            self._cache.reorder_cache(self._rows)
            self._mask, self._positions = self._mask[self._rows], self._positions[self._rows]
            self._rows = torch.arange(len(self._rows), device=self._rows.device)
        kept = self._rows[going]
        ids = self._ids.new_zeros(len(self._mask)).index_copy(0, self._rows, tokens)
        self._positions = self._positions[:, -1:] + 1
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self._mask), 1)], 1)
        most = min(self._worth * len(self._mask), len(self._mask) - 1)
        if 0 < len(kept) <= most and self._selectable:
            self._cache.reorder_cache(kept)
            ids, self._mask, self._positions = ids[kept], self._mask[kept], self._positions[kept]
            kept = torch.arange(len(kept), device=kept.device)
        self._rows, self._ids = kept, ids[:, None]


class OneTokenSteps(CachedSteps):
    """The same with `OneTokenPass` after the prompt, for trunks that it knows."""

    def __init__(self, policy: Policy, prompts: list[list[int]]) -> None:
        super().__init__(policy, prompts)
        self._pass = OneTokenPass(self._trunk)

    def states(self) -> Tensor:
        """Return the states [B, H] that predict the next token of each sequence."""
        if not self._cache.get_seq_length():
            return super().states()
        return self._pass(self._ids, self._mask if self._padded else None, self._positions, self._cache)[self._rows]


class WholeSequences:
    """Every step computes the whole sequences, padded on the right as for the loss: the same function, for any architecture."""

    def __init__(self, policy: Policy, prompts: list[list[int]]) -> None:
        self._trunk, self._pad, self._device = trunk_of(policy.causal_lm), policy.pad_id, policy.device
        self._sequences = [list(prompt) for prompt in prompts]

    def states(self) -> Tensor:
        """Return the states [B, H] that predict the next token of each sequence."""
        width = max(map(len, self._sequences))
        ids = torch.tensor([s + [self._pad] * (width - len(s)) for s in self._sequences], device=self._device)
        last = torch.tensor([len(s) - 1 for s in self._sequences], device=self._device)
        hidden = self._trunk(input_ids=ids, use_cache=False).last_hidden_state
        return hidden[torch.arange(len(last), device=self._device), last]

    def grow(self, tokens: Tensor, going: Tensor) -> None:
        """Append `tokens` [B], then keep the sequences for which `going` [B] is true."""
        grown = [[*s, token] for s, token in zip(self._sequences, tokens.tolist(), strict=True)]
        self._sequences = [s for s, goes in zip(grown, going.tolist(), strict=True) if goes]


_chosen: WeakKeyDictionary[nn.Module, dict[object, type[Steps]]] = WeakKeyDictionary()


def steps_for(policy: Policy) -> type[Steps]:
    """Return how this policy's sequences grow: with a cache where that proves to be the same function, else whole, with a warning.

    Raises:
        NotImplementedError: for an architecture whose numbers the trainer could not compute, see `check_head`.
    """
    model = policy.causal_lm
    candidates = [OneTokenSteps, CachedSteps] if fits_one_token(trunk_of(model)) else [CachedSteps]
    known, kind = _chosen.setdefault(model, {}), (model.dtype, model.device.type, model.config._attn_implementation, *candidates)
    if kind not in known:
        check_head(policy)
        known[kind], fault = _first_right(policy, candidates)
        if fault:
            warnings.warn(
                f"{policy.name} ({model.config.model_type}) is sampled without a cache, every token from the whole sequence: {fault}",
                RuntimeWarning,
                stacklevel=3,
            )
    return known[kind]


def _first_right(policy: Policy, candidates: list[type[CachedSteps]]) -> tuple[type[Steps], str | None]:
    """Return the first kind of steps that computes the model's own function; whole sequences, and what the last one did wrong."""
    fault = None
    for kind in candidates:
        if (fault := _fault_of(kind, policy)) is None:
            return kind, None
    return WholeSequences, fault


@torch.inference_mode()
def _fault_of(kind: type[CachedSteps], policy: Policy) -> str | None:
    """Return why steps of a kind are not to be used, or None: four short sequences, two of one prompt; another one ends first."""
    new, head, size = 4, LogitHead.of(policy), len(policy.tokenizer)
    sequences = [[(7 * row + 3 * i + 5) % size for i in range(length)] for row, length in enumerate((6, 9, 13))]
    sequences.append(sequences[2][:-new] + [(token + 1) % size for token in sequences[2][-new:]])
    own = [policy.causal_lm(input_ids=torch.tensor([s], device=policy.device), use_cache=False).logits[0].float() for s in sequences]
    try:
        steps, alive, pairs = kind(policy, [s[:-new] for s in sequences]), [0, 1, 2, 3], []
        for step in range(new):
            expected = torch.stack([own[row][len(sequences[row]) - new + step - 1] for row in alive])
            pairs.append((expected, head(steps.states())))
            going = torch.tensor([row != 1 or step < 1 for row in alive], device=policy.device)
            steps.grow(torch.tensor([sequences[row][step - new] for row in alive], device=policy.device), going)
            alive = [row for row, goes in zip(alive, going.tolist(), strict=True) if goes]
    except Exception as error:  # whatever this architecture has against such a cache
        return f"with transformers' cache it raises {type(error).__name__}: {error}"
    worst = relative_difference(*map(torch.cat, zip(*pairs, strict=True)))
    if not worst > tolerance(policy):  # weights that have diverged are another's to report
        return None
    return f"with transformers' cache and padding its logits are others than without (relative difference {worst:.2g})"
