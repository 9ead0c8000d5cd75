"""One side of a comparison: a distribution over the vocabulary at each of a few tokens."""

import math
from functools import cached_property

import torch
from torch import Tensor


class Side:
    """One side's logits [..., V] of a few tokens, with what is computed from them at most once.

    Half precision is raised to float32; float64 stays float64.
    """

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits if logits.dtype in (torch.float32, torch.float64) else logits.float()

    @classmethod
    def of_logprobs(cls, logprobs: Tensor) -> "Side":
        """Return the side whose log-probabilities are known; as logits they give themselves."""
        side = cls(logprobs)
        side.logprobs = logprobs
        return side

    @cached_property
    def logprobs(self) -> Tensor:
        """Log-probabilities [..., V], nats."""
        return self.logits.log_softmax(-1)

    @cached_property
    def probabilities(self) -> Tensor:
        """Probabilities [..., V]."""
        return self.logprobs.exp()

    @cached_property
    def is_finite(self) -> bool:
        """Whether no log-probability is -inf, so that 0 * log 0 needs no care; False on a GPU, which whoever asks would wait for."""
        return self.logprobs.device.type == "cpu" and bool(self.logprobs.min() > -math.inf)

    @cached_property
    def entropy(self) -> Tensor:
        """Entropies [...], nats."""
        # 0 * -inf would be no number.
        least = torch.finfo(self.logits.dtype).min / 2
        return -torch.linalg.vecdot(self.probabilities, self.logprobs if self.is_finite else self.logprobs.clamp(min=least))

    def of(self, ids: Tensor) -> Tensor:
        """Return the log-probabilities [...] of the tokens `ids` [...], nats."""
        return self.logprobs.gather(-1, ids[..., None])[..., 0]

    def rank(self, ids: Tensor) -> Tensor:
        """Return how many tokens are more probable than each of `ids` [...]."""
        return (self.logits > self.logits.gather(-1, ids[..., None])).sum(-1, dtype=torch.int32).long()

    def top(self, k: int) -> tuple[Tensor, Tensor]:
        """Return the log-probabilities and the ids of the k most probable tokens, each [..., k], the most probable first."""
        return tuple(self.logprobs.topk(min(k, self.logits.shape[-1]), dim=-1))

    def at(self, temperature: float) -> "Side":
        """Return this side with its logits divided by the temperature."""
        return self if temperature == 1 else Side(self.logits / temperature)

    def rows(self, chosen: Tensor) -> "Side":
        """Return the side at some of its tokens: a Boolean mask or indices of the first dimension."""
        return Side(self.logits[chosen])

    def detached(self) -> "Side":
        """Return this side without a gradient."""
        return Side(self.logits.detach()) if self.logits.requires_grad else self
