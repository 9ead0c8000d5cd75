"""What an objective is, and how its losses and their derivatives are had from it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from opsd_lab.basics.options import overrides_both
from opsd_lab.divergences import Side
from opsd_lab.objectives.tokens import Teachers, Tokens


class Losses(NamedTuple):
    """The losses of a few tokens [n] and, where it was wanted, their slope: the derivative [n, V] by the student's logits."""

    loss: Tensor
    slope: Tensor | None


class Objective(ABC):
    """What each token loses, from the student's side and the teachers'; the trainer alone weighs and sums it.

    Where `needs_teacher` is false, no teacher is run. Where `needs_rewards` is true, rollouts are judged, and `advantages` says
    what becomes of the rewards; where `needs_groups` is, a rollout's advantage comes from the others of its problem.
    `sees_outcomes` allows rewards that are not needed. `needs_sampled_logprobs` says that the losses hold the student's probability
    against the sampler's. A token counts if it has all views, or those that `needed_views` names, where it names some.
    """

    needs_teacher: bool = True
    needs_rewards: bool = False
    sees_outcomes: bool = False
    needs_groups: bool = False
    needs_sampled_logprobs: bool = False
    needed_views: tuple[str, ...] | None = None

    @abstractmethod
    def loss(self, student: Side, teachers: Teachers, tokens: Tokens) -> Tensor:
        """Return the losses of a few tokens [n], in torch, differentiable by the student's logits.

        A token's loss depends on its own row of the sides only. `tokens.record` keeps numbers of the tokens as columns; of these
        `divergence` and `clipped` (what a clip took off the loss) are 0 where none are recorded.
        """

    def losses_and_slopes(self, student: Side, teachers: Teachers, tokens: Tokens) -> Losses | None:
        """Return the losses with their slopes written out, where that is faster than autograd; None leaves it to autograd."""
        return None

    def advantages(self, rewards: Sequence[float], groups: Sequence[str]) -> list[float]:
        """Return a rollout's advantage; here its reward as it is. `groups` names the problem that each rollout belongs to."""
        return list(rewards)

    def counts(self, tokens: Tokens) -> Tensor:
        """Return which of the tokens [n] count: those that have the views that are needed, where a teacher is."""
        views = tokens.seen if self.needed_views is None else self.needed_views
        return tokens.have(views if self.needs_teacher else ())


def compute_losses(objective: Objective, student: Side, teachers: Teachers, tokens: Tokens, *, slope: bool) -> Losses:
    """Return an objective's losses of a few tokens [n] and, if wanted, their slopes; 0 where a token does not count.

    `student` is the student's side, and `teachers` are the others' by the names of their views, none where the objective needs no
    teacher. `tokens` are what was written. `slope` asks for the slopes, by autograd where the objective does not write them out.

    Raises:
        TypeError: when the objective returns anything but one float for each token, or what does not depend on the student.
    """
    # A subclass with another loss has not the slopes of its base.
    written = slope and overrides_both(type(objective), "loss", "losses_and_slopes")
    found = objective.losses_and_slopes(student, teachers, tokens) if written else None
    if found is None:
        found = (
            _by_autograd(objective, student, teachers, tokens) if slope else Losses(objective.loss(student, teachers, tokens), None)
        )
        _check(objective, found.loss, tokens)
    if bool((counts := objective.counts(tokens)).all()):
        return found
    return Losses(*(None if values is None else values.masked_fill(~_as_rows(counts, values), 0.0) for values in found))


def _by_autograd(objective: Objective, student: Side, teachers: Teachers, tokens: Tokens) -> Losses:
    with torch.enable_grad():
        leaf = student.logits.detach().requires_grad_()
        loss = objective.loss(Side(leaf), teachers.detached(), tokens)
        _check(objective, loss, tokens)
        if not loss.requires_grad:
            raise TypeError(
                f"{type(objective).__name__}.loss does not depend on the student's logits: nothing could be learnt from it"
            )
        return Losses(loss.detach(), torch.autograd.grad(loss.sum(), leaf)[0])


def _check(objective: Objective, loss: object, tokens: Tokens) -> None:
    if not isinstance(loss, Tensor) or loss.shape != tokens.ids.shape or not loss.is_floating_point():
        kind = f"a tensor {tuple(loss.shape)} of {loss.dtype}" if isinstance(loss, Tensor) else type(loss).__name__
        raise TypeError(f"{type(objective).__name__}.loss returned {kind}, not one float for each of {len(tokens.ids)} tokens")


def _as_rows(mask: Tensor, values: Tensor) -> Tensor:
    return mask.view(-1, *[1] * (values.dim() - 1))


def through_token(student: Side, ids: Tensor, by_logprob: Tensor) -> Tensor:
    """Turn derivatives by the chosen tokens' log-probabilities [n] into derivatives by the logits [n, V]."""
    gradient = student.probabilities * -by_logprob[:, None]
    return gradient.scatter_add_(-1, ids[:, None], by_logprob[:, None])
