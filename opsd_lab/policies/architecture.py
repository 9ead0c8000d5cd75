"""What differs between architectures and matters outside the model: where its trunk is, and how long its sequences may be."""

import inspect
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

UNLIMITED = sys.maxsize  # tokens: for models without a longest position, such as those with ALiBi or a recurrent state
LENGTH_NAMES = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx")


def trunk_of(model: PreTrainedModel) -> nn.Module:
    """Return the part of a causal language model that turns token ids into hidden states, without the output layer.

    Raises:
        NotImplementedError: when transformers does not tell the two apart.
    """
    # transformers takes some for a decoder as they are, such as Llama 4, and what others call `decoder` is their output layer.
    for trunk in (model.get_decoder(), model.base_model, getattr(model, "model", None)):
        if isinstance(trunk, PreTrainedModel) and trunk.get_output_embeddings() is None:
            return trunk
    raise NotImplementedError(
        f"{type(model).__name__}: opsd_lab does not find the layers before the output layer, from which it computes its losses; "
        "get_decoder() should return them"
    )


def accepts(trunk: nn.Module, argument: str) -> bool:
    """Tell whether a trunk's forward pass names an argument; one that it does not name it may swallow unread."""
    return argument in inspect.signature(trunk.forward).parameters


def note_auxiliary_loss(model: PreTrainedModel) -> None:
    """Warn when a mixture of experts is configured to add its load-balancing loss, which the losses here leave out."""
    config = model.config.get_text_config()
    if getattr(config, "output_router_logits", False) and getattr(config, "router_aux_loss_coef", 0):
        warnings.warn(
            f"{config.model_type}: its load-balancing loss (router_aux_loss_coef = {config.router_aux_loss_coef}) is not added, the "
            "loss is the objective alone; set output_router_logits = False in the model's config to say that this is meant",
            RuntimeWarning,
            stacklevel=3,
        )


@dataclass(frozen=True)
class ContextLimit:
    """How many tokens a sequence may have, prompt and completion together, and why no more."""

    tokens: int
    reason: str

    def check(self, length: int, whose: str) -> None:
        """Make sure that a sequence of that many tokens may be computed.

        Raises:
            ValueError: when it is too long; the message begins with `whose` sequence it is.
        """
        if length > self.tokens:
            raise ValueError(f"{whose} has {length:,} tokens, more than {self}; shorten the prompt or lower max_new_tokens")

    def __str__(self) -> str:
        """Return the limit with its reason."""
        return f"the {self.tokens:,} tokens {self.reason}"


def context_limit(config: PreTrainedConfig) -> ContextLimit:
    """Return the longest sequence whose numbers depend on nothing but the sequence itself.

    It is the model's context, unless some part of the forward pass looks at lengths. Some rotary scalings change every position's
    frequencies once the longest sequence of a batch passes a length: beyond it a rollout would be sampled with one set of frequencies
    and scored with another. Sparse attention keeps the best so many tokens: beyond them rounding and ties choose.
    """
    text = config.get_text_config()
    named = (getattr(text, name, None) for name in LENGTH_NAMES)
    longest = next((length for length in named if isinstance(length, int) and length > 0), UNLIMITED)
    limit = ContextLimit(longest, "that this model was built for")
    for kind, switch in _switching_scalings(text):
        if switch <= limit.tokens:
            limit = ContextLimit(
                switch,
                f"up to which its rotary scaling ({kind!r}) leaves the frequencies alone: beyond them all positions of a batch "
                "change with its longest sequence, so that sampler and trainer would disagree",
            )
    kept = getattr(text, "index_topk", None)
    if kept and kept < limit.tokens:
        limit = ContextLimit(
            kept, "that its sparse attention (index_topk) keeps: beyond them rounding decides what a token attends to"
        )
    return limit


def _switching_scalings(config: PreTrainedConfig) -> Iterator[tuple[str, int]]:
    """Yield name and switching length of each rotary scaling that looks at the length of what it is given."""
    scaling = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
    if not isinstance(scaling, Mapping):
        return
    by_layer = [value for value in scaling.values() if isinstance(value, Mapping)]
    for one in by_layer or [scaling]:
        kind = str(one.get("rope_type", one.get("type", "default")))
        if kind == "longrope" or "dynamic" in kind:
            lengths = one.get("original_max_position_embeddings"), getattr(config, "original_max_position_embeddings", None)
            first = next((length for length in lengths if length), None) if kind == "longrope" else None
            yield kind, first or config.max_position_embeddings


def is_bare(module: nn.Module) -> bool:
    """Tell whether a module computes what its class says, and no hook listens."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return "forward" not in vars(module) and not any(hooks)
