"""Several objectives at once: their weighted sum, or one for some tokens and another for the rest."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from opsd_lab.basics.options import instance, name_of, overrides_both, real
from opsd_lab.divergences import Side
from opsd_lab.objectives.objective import Losses, Objective, compute_losses
from opsd_lab.objectives.tokens import Teachers, Tokens

Choice = Callable[[Tokens], Tensor]
"""From tokens to which of them [n] are chosen."""


def rewarded(tokens: Tokens) -> Tensor:
    """Return which tokens [n] are of rollouts with a positive reward.

    Raises:
        ValueError: when no rollout was judged.
    """
    tokens.need("rewarded", ("outcome",))
    return tokens.outcome > 0


class _Several(Objective):
    """What sums and routes of objectives share."""

    objectives: tuple[Objective, ...]

    @property
    def needs_teacher(self) -> bool:
        """Whether any of them does."""
        return any(objective.needs_teacher for objective in self.objectives)

    @property
    def needs_rewards(self) -> bool:
        """Whether any of them does."""
        return any(objective.needs_rewards for objective in self.objectives)

    @property
    def sees_outcomes(self) -> bool:
        """Whether any of them does."""
        return any(objective.sees_outcomes for objective in self.objectives)

    @property
    def needs_groups(self) -> bool:
        """Whether any of them does."""
        return any(objective.needs_groups for objective in self.objectives)

    @property
    def needs_sampled_logprobs(self) -> bool:
        """Whether any of them does."""
        return any(objective.needs_sampled_logprobs for objective in self.objectives)

    def advantages(self, rewards: Sequence[float], groups: Sequence[str]) -> list[float]:
        """Return the advantages of the first that makes some of rewards."""
        judging = [objective for objective in self.objectives if objective.needs_rewards] or [super()]
        return judging[0].advantages(rewards, groups)

    def counts(self, tokens: Tokens) -> Tensor:
        """Return which of the tokens [n] count: those that count for any of the objectives."""
        return torch.stack([objective.counts(tokens) for objective in self.objectives]).any(0)


@dataclass(frozen=True)
class Sum(_Several):
    """The weighted sum of objectives, such as Sum((GRPO(), OPSD()), (1.0, 0.1)).

    A token that does not count for one of them loses nothing by it. Columns of one name are the first's.

    Raises:
        TypeError, ValueError: for no objectives, or another number of weights.
    """

    objectives: tuple[Objective, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.objectives or len(self.objectives) != len(self.weights):
            raise ValueError(f"Sum: {len(self.objectives)} objectives and {len(self.weights)} weights; give one weight for each")
        for weight, objective in zip(self.weights, self.objectives, strict=True):
            real("Sum: a weight", weight)
            instance("Sum: an objective", objective, Objective, "write Sum((GRPO(), OPSD()), (1.0, 0.1))")

    def loss(self, student: Side, teachers: Teachers, tokens: Tokens) -> Tensor:
        """Return the sums of a few tokens [n]."""
        parts = [compute_losses(objective, student, teachers, tokens, slope=False).loss for objective in self.objectives]
        return sum(weight * part for weight, part in zip(self.weights, parts, strict=True))

    def losses_and_slopes(self, student: Side, teachers: Teachers, tokens: Tokens) -> Losses:
        """Return the sums and their slopes."""
        parts = [compute_losses(objective, student, teachers, tokens, slope=True) for objective in self.objectives]
        pairs = list(zip(self.weights, parts, strict=True))
        return Losses(sum(weight * part.loss for weight, part in pairs), sum(weight * part.slope for weight, part in pairs))


@dataclass(frozen=True)
class Scaled(_Several):
    """Another objective's loss times a mark or a signal of each token, named `by`.

    Raises:
        TypeError: for what is no objective.
    """

    objective: Objective
    by: str

    def __post_init__(self) -> None:
        instance("Scaled: objective", self.objective, Objective, 'write Scaled(OPSD(), "certainty")')

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """The one objective."""
        return (self.objective,)

    def loss(self, student: Side, teachers: Teachers, tokens: Tokens) -> Tensor:
        """Return the scaled losses of a few tokens [n]."""
        return tokens[self.by].to(student.logits) * compute_losses(self.objective, student, teachers, tokens, slope=False).loss

    def losses_and_slopes(self, student: Side, teachers: Teachers, tokens: Tokens) -> Losses:
        """Return the scaled losses and their slopes."""
        found, scale = compute_losses(self.objective, student, teachers, tokens, slope=True), tokens[self.by].to(student.logits)
        return Losses(scale * found.loss, scale[:, None] * found.slope)


@dataclass(frozen=True)
class Pushed(_Several):
    """Another objective that also records each token's push: minus the derivative of its loss by the logit of that token.

    Where it is positive, a step makes the token likelier than its alternatives. `column` is what the table calls it.

    Raises:
        TypeError: for what is no objective.
    """

    objective: Objective
    column: str = "push"

    def __post_init__(self) -> None:
        instance("Pushed: objective", self.objective, Objective, "write Pushed(OPSD())")

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """The one objective."""
        return (self.objective,)

    def loss(self, student: Side, teachers: Teachers, tokens: Tokens) -> Tensor:
        """Return the objective's losses of a few tokens [n]."""
        if overrides_both(type(self.objective), "loss", "losses_and_slopes"):
            return self.losses_and_slopes(student, teachers, tokens).loss  # a push is a slope, also where no gradient is led back
        return compute_losses(self.objective, student, teachers, tokens, slope=False).loss  # autograd may be off here

    def losses_and_slopes(self, student: Side, teachers: Teachers, tokens: Tokens) -> Losses:
        """Return the objective's losses and their slopes."""
        found = compute_losses(self.objective, student, teachers, tokens, slope=True)
        tokens.record(**{self.column: -found.slope.gather(-1, tokens.ids[:, None])[:, 0]})
        return found


@dataclass(frozen=True)
class Route(_Several):
    """One objective for the tokens that are chosen, another for the rest.

    `choose` says from the tokens which are chosen [n]; `rewarded` chooses those of rollouts with a positive reward. Columns that
    only one of the objectives records are 0 elsewhere.

    Raises:
        TypeError: for what is no objective, or no function.
    """

    choose: Choice
    chosen: Objective
    rest: Objective

    def __post_init__(self) -> None:
        for name in ("chosen", "rest"):
            instance(f"Route: {name}", getattr(self, name), Objective, "write Route(choose, GRPO(), OPSD())")
        if not callable(self.choose):
            raise TypeError(f"Route: choose is {self.choose!r}; give a function of the tokens")

    sees_outcomes = True

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """Both objectives."""
        return self.chosen, self.rest

    def counts(self, tokens: Tokens) -> Tensor:
        """Return which of the tokens [n] count for the objective that they go to."""
        return torch.where(self._mask(tokens), self.chosen.counts(tokens), self.rest.counts(tokens))

    def loss(self, student: Side, teachers: Teachers, tokens: Tokens) -> Tensor:
        """Return each token's loss [n] by its objective."""
        return self._routed(student, teachers, tokens, slope=False).loss

    def losses_and_slopes(self, student: Side, teachers: Teachers, tokens: Tokens) -> Losses:
        """Return each token's loss by its objective, and its slope."""
        return self._routed(student, teachers, tokens, slope=True)

    def _routed(self, student: Side, teachers: Teachers, tokens: Tokens, *, slope: bool) -> Losses:
        loss, slopes = student.logits.new_zeros(len(tokens.ids)), torch.zeros_like(student.logits) if slope else None
        chosen, recorded = self._mask(tokens), {}
        for mask, objective in ((chosen, self.chosen), (~chosen, self.rest)):
            rows = mask.nonzero()[:, 0]
            if not len(rows):
                continue
            part = tokens.rows(rows)
            found = compute_losses(objective, student.rows(rows), teachers.rows(rows), part, slope=slope)
            loss = loss.index_put((rows,), found.loss)
            if slope:
                slopes[rows] = found.slope
            for name, values in part.recorded.items():
                recorded.setdefault(name, values.new_zeros(len(tokens.ids)))[rows] = values
        tokens.record(**recorded)  # beside others in a sum the first of a name stays
        return Losses(loss, slopes)

    def _mask(self, tokens: Tokens) -> Tensor:
        chosen = self.choose(tokens)
        if not isinstance(chosen, Tensor) or chosen.shape != tokens.ids.shape or chosen.dtype != torch.bool:
            raise TypeError(f"Route: {name_of(self.choose)} returned {chosen!r}, not a Boolean for each of {len(tokens.ids)} tokens")
        return chosen
