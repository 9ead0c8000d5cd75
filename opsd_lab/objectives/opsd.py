"""On-policy self-distillation: over the whole vocabulary, and at the token that was written."""

from dataclasses import dataclass

import torch
from torch import Tensor

from opsd_lab.basics.options import instance, real
from opsd_lab.basics.schedules import Varying
from opsd_lab.divergences import Divergence, Side, Support, Tail, compare, forward_kl
from opsd_lab.divergences.divergence import PLAIN, check_options
from opsd_lab.objectives.objective import Losses, Objective, through_token
from opsd_lab.objectives.targets import Target, the_teacher
from opsd_lab.objectives.tokens import Teachers, Tokens


@dataclass(frozen=True)
class OPSD(Objective):
    """Full-vocabulary on-policy self-distillation (arXiv 2601.18734, Algorithm 1): the loss of a token is its divergence.

    The options are those of `opsd_lab.divergences.divergence`. `token_clip` bounds each token's divergence from above, after the sum
    over the vocabulary (arXiv 2605.06597). `target` says towards what the student is moved: the teacher itself, or a side made of
    several; `needed_views` are the views that a token must have to count, all of them where it is None. Log-probabilities, entropies
    and ranks are recorded at temperature 1.

    A small `pointwise_clip` turns the gradient of `forward_kl` against the teacher: entries above the clip, which the teacher
    prefers, lose their slope, and those that it avoids keep theirs. `TrainingParams.measure_clip` records the cosine of clipped and
    unclipped gradient; docs/results.md has it for two models.

    Raises:
        TypeError: for what is no Divergence, a clip around one that is no sum over entries, or an option of another kind.
        ValueError: for an option out of its range, or one that does nothing; it names the option and the remedy.
    """

    divergence: Divergence = forward_kl
    temperature: float = 1.0
    pointwise_clip: float | None = None
    vocab_top_k: int | None = None
    tail: Tail = "bucket"
    support: Support = "teacher"
    target: Target = the_teacher
    token_clip: float | None = None
    needed_views: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.token_clip is not None:
            real("OPSD: token_clip", self.token_clip, above=0)
        remedy = "take forward_kl, reverse_kl or jsd(0.5), or write a Divergence with a method `terms`"
        if not isinstance(self.divergence, Varying):  # one after another, checked when its step comes
            instance("OPSD: divergence", self.divergence, Divergence, remedy)
        check_options(**self.options)
        if self.vocab_top_k is None and (unused := [name for name in ("tail", "support") if getattr(self, name) != PLAIN[name]]):
            raise ValueError(f"OPSD: {' and '.join(unused)} say what becomes of a shortened vocabulary; give vocab_top_k as well")
        if not callable(self.target):
            raise TypeError(f"OPSD: target is {self.target!r}; give a function of the student's side and the teachers'")
        if self.pointwise_clip is not None and not isinstance(self.divergence, Varying):
            _check_terms(self.divergence)

    def loss(self, student: Side, teachers: Teachers, tokens: Tokens) -> Tensor:
        """Return the divergences of a few tokens [n]."""
        return self._compared(student, teachers, tokens, slope=False).loss

    def losses_and_slopes(self, student: Side, teachers: Teachers, tokens: Tokens) -> Losses | None:
        """Return the divergences and their slopes, where the divergence knows its own."""
        return self._compared(student, teachers, tokens, slope=True) if self.divergence.knows_slopes else None

    def _compared(self, student: Side, teachers: Teachers, tokens: Tokens, *, slope: bool) -> Losses:
        target = self.target(student.detached(), teachers)
        found = compare(self.divergence, student, target, **self.options, slope=slope)
        loss, clipped, slopes = found.kept, found.clipped, found.slope
        if self.token_clip is not None:
            over = loss > self.token_clip
            loss, clipped = loss.clamp(max=self.token_clip), clipped + (loss - self.token_clip).clamp(min=0).detach()
            slopes = None if slopes is None else slopes.masked_fill_(over[:, None], 0.0)
        tokens.record(divergence=loss, clipped=clipped)
        return Losses(loss, slopes)

    @property
    def options(self) -> dict[str, object]:
        """The options of the divergence, by name."""
        return {name: getattr(self, name) for name in PLAIN}


@dataclass(frozen=True)
class SampledTokenOPSD(Objective):
    """The policy-gradient form (arXiv 2601.18734): loss = -stopgrad(A) * log p_student(y), A = log p_teacher(y) - log p_student(y).

    The divergence recorded is the one-sample estimate of the reverse KL, -A, whose value the loss does not show. `target` is that of
    `OPSD`.

    Raises:
        TypeError, ValueError: for a temperature that is not positive.
    """

    temperature: float = 1.0
    target: Target = the_teacher

    def __post_init__(self) -> None:
        real("SampledTokenOPSD: temperature", self.temperature, above=0)

    def loss(self, student: Side, teachers: Teachers, tokens: Tokens) -> Tensor:
        """Return the losses of a few tokens [n]; no gradient reaches the advantage."""
        return self._weighed(student, teachers, tokens)[0]

    def losses_and_slopes(self, student: Side, teachers: Teachers, tokens: Tokens) -> Losses:
        """Return the losses and their slopes."""
        loss, advantage = self._weighed(student, teachers, tokens)
        return Losses(loss, through_token(student.at(self.temperature), tokens.ids, -advantage / self.temperature))

    def _weighed(self, student: Side, teachers: Teachers, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """Return the losses and the advantages [n]."""
        chosen = student.at(self.temperature).of(tokens.ids)
        target = self.target(student.detached(), teachers)
        advantage = (target.at(self.temperature).of(tokens.ids) - chosen).detach()
        tokens.record(divergence=-advantage)
        return -advantage * chosen, advantage


def _check_terms(divergence: Divergence) -> None:
    try:
        divergence.terms(*(Side(torch.zeros(1, 2)) for _ in range(2)))
    except NotImplementedError:
        raise TypeError(
            f"OPSD: pointwise_clip bounds the terms of a sum over entries, and {type(divergence).__name__} is none; leave it out"
        ) from None
