"""Several completions of one prompt, with the prompt computed once: the same states and gradients, to rounding, for less work.

The prompts go through the model with a cache, padded on the left; the cache is spread to the completions, and those follow. Gradients
reach the prompt's part through the cache. An architecture's cache, masks and positions are places in which numbers could part from
those of whole sequences, so this is done only by models that give the same numbers on a few tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from opsd_lab.policies.architecture import accepts, trunk_of
from opsd_lab.policies.head import LogitHead, relative_difference, tolerance
from opsd_lab.policies.policy import Policy

PLAIN = {DynamicLayer, DynamicSlidingWindowLayer}  # keys and values alone, through which gradients pass
WORTH = 0.85  # the share of positions, padding included, up to which sharing pays


@dataclass(frozen=True)
class SharedPrompts:
    """Prompts that rows share.

    `ids`, `mask` [U, L]: each prompt once, padded on the left. `owners` [R]: whose prompt is which. `completion_ids` [R, T]: what
    follows, padded on the right.
    """

    ids: Tensor
    mask: Tensor
    owners: Tensor
    completion_ids: Tensor

    @classmethod
    def of(cls, prompts: Sequence[tuple[int, ...]], completion_ids: Tensor, pad_id: int, width: int) -> "SharedPrompts | None":
        """Return the `prompts` of rows with these `completion_ids` [R, T]; None where sharing saves little.

        `pad_id` pads them. `width` is how wide the rows are otherwise, each prompt with its own completion.
        """
        numbers = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
        longest, (rows, new) = max(map(len, prompts)), completion_ids.shape
        if len(numbers) * longest + rows * (new - 1) > WORTH * rows * width:
            return None
        lengths = torch.tensor([len(prompt) for prompt in numbers])
        ids = torch.tensor([[*[pad_id] * (longest - len(prompt)), *prompt] for prompt in numbers])
        mask = torch.arange(longest) >= longest - lengths[:, None]
        return cls(ids, mask, torch.tensor([numbers[prompt] for prompt in prompts]), completion_ids)

    @property
    def width(self) -> int:
        """The longest sequence that is computed, padding included."""
        return self.ids.shape[1] + self.completion_ids.shape[1] - 1

    def to(self, device: torch.device | str) -> "SharedPrompts":
        """Return the same on a device."""
        return SharedPrompts(*(value.to(device) for value in vars(self).values()))


def shared_states(policy: Policy, shared: SharedPrompts) -> Tensor:
    """Return the states [R, T, H] that predict the completions' tokens; those of padding are arbitrary."""
    trunk, cache = trunk_of(policy.causal_lm), DynamicCache(config=policy.causal_lm.config)
    mask, owners = shared.mask.long(), shared.owners
    padded = not bool(shared.mask.all())
    placed = accepts(trunk, "position_ids")

    def states(ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        places = {"position_ids": positions} if placed else {}
        attended = mask if padded else None
        return trunk(input_ids=ids, attention_mask=attended, use_cache=True, past_key_values=cache, **places).last_hidden_state

    first = states(shared.ids, mask, (mask.cumsum(-1) - 1).clamp(min=0))[owners, -1:]
    if shared.completion_ids.shape[1] == 1:
        return first
    cache.reorder_cache(owners)
    behind = shared.completion_ids[:, :-1]
    positions = mask.sum(-1)[owners, None] + torch.arange(behind.shape[1], device=behind.device)
    rest = states(behind, torch.cat([mask[owners], torch.ones_like(behind)], 1), positions)
    return torch.cat([first, rest], 1)


_known: WeakKeyDictionary[nn.Module, dict[object, bool]] = WeakKeyDictionary()


def shares_prompts(policy: Policy) -> bool:
    """Return whether a policy's numbers are the same, to rounding, where completions share a prompt; tried once for each model."""
    model = policy.causal_lm
    if model.is_gradient_checkpointing:  # a layer that is computed twice would fill the cache twice
        return False
    known, kind = _known.setdefault(model, {}), (model.dtype, model.device.type, model.config._attn_implementation)
    if kind not in known:
        known[kind] = _same_numbers(policy)
    return known[kind]


@torch.inference_mode()
def _same_numbers(policy: Policy) -> bool:
    model, head, trunk = policy.causal_lm, LogitHead.of(policy), trunk_of(policy.causal_lm)
    try:
        if not accepts(trunk, "past_key_values") or not {type(layer) for layer in DynamicCache(config=model.config).layers} <= PLAIN:
            return False
        size = len(policy.tokenizer)
        completions = torch.tensor([[(3 * i + 11 * row + 2) % size for i in range(6)] for row in range(3)], device=policy.device)
        for lengths in ((9, 5, 9), (9, 9, 9)):  # with padding and without
            prompts = [tuple((7 * i + length) % size for i in range(length)) for length in lengths]
            shared = SharedPrompts.of(prompts, completions.cpu(), policy.pad_id, width=3 * size)
            found, own = shared_states(policy, shared.to(policy.device)), []
            for prompt, completion in zip(prompts, completions.tolist(), strict=True):
                ids = torch.tensor([[*prompt, *completion]], device=policy.device)
                own.append(trunk(input_ids=ids, use_cache=False).last_hidden_state[0, len(prompt) - 1 : -1])
            if not relative_difference(head(torch.cat(own)), head(found.flatten(0, 1))) <= tolerance(policy):
                return False
        return True
    except torch.OutOfMemoryError:
        raise  # that says nothing about the model
    except Exception:  # whatever this architecture has against such a cache: its sequences are computed whole
        return False
