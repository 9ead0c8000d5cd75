"""What the divergences of `reference.py` are, written for speed: value and gradient of a few tokens from one reading of their logits.

The gradient by the student's logits is written out rather than left to autograd. With s and t the log-probabilities that are
compared, each divergence is a sum of f(s_v, t_v) over the entries v, and its slope df/ds_v stands beside it here; one common rule
then leads back through the tail, the logarithm of the softmax and the temperature.
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from opsd_lab.basics.options import name_of, real
from opsd_lab.divergences.reference import (
    JSD,
    NONE,
    Divergence,
    Support,
    Tail,
    check_options,
    forward_kl,
    relative,
    renormalised,
    reverse_kl,
    with_tail,
)


class Side:
    """One side's logits [n, V] of a few tokens, with what is computed from them at most once."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    @classmethod
    def of_logprobs(cls, logprobs: Tensor) -> "Side":
        """Return the side whose log-probabilities are known; as logits they give themselves."""
        side = cls(logprobs)
        side.logprobs = logprobs
        return side

    @cached_property
    def logprobs(self) -> Tensor:
        """Log-probabilities [n, V], nats."""
        return self.logits.log_softmax(-1)

    @cached_property
    def probabilities(self) -> Tensor:
        """Probabilities [n, V]."""
        return self.logprobs.exp()

    def at(self, temperature: float) -> "Side":
        """Return this side with its logits divided by the temperature."""
        return self if temperature == 1 else Side(self.logits / temperature)


class LossTerms(NamedTuple):
    """Per-token results [n]: the loss, the divergence recorded, and the part of it that the clip took away.

    `slope` [n, V] is the loss's derivative by the student's logits, where it was asked for.
    """

    loss: Tensor
    divergence: Tensor
    clipped: Tensor
    slope: Tensor | None


class Entries(NamedTuple):
    """f(s_v, t_v) and df/ds_v for every entry [n, K]."""

    terms: Tensor
    slopes: Tensor


Rule = Callable[[Side, Side], Entries]


def divergence_terms(
    divergence: Divergence,
    student: Side,
    teacher: Side,
    *,
    temperature: float = 1.0,
    pointwise_clip: float | None = None,
    vocab_top_k: int | None = None,
    tail: Tail = "bucket",
    support: Support = "teacher",
    slope: bool = True,
) -> LossTerms:
    """Return a full-vocabulary divergence of each token, its clipped part and its slope.

    The options are those of `opsd_lab.divergences.reference`. A divergence that is not one of that module's is called as it is,
    with the options that change something, and differentiated by autograd.

    Raises:
        TypeError: for a divergence of one's own that returns anything but a value per position.
        ValueError: for an option out of its range; it names the option.
    """
    options = {
        "temperature": temperature,
        "pointwise_clip": pointwise_clip,
        "vocab_top_k": vocab_top_k,
        "tail": tail,
        "support": support,
    }
    check_options(**options)
    if (rule := rule_of(divergence)) is None:
        return _by_autograd(divergence, student.logits, teacher.logits, changed(options), slope)
    student, teacher = student.at(temperature), teacher.at(temperature)
    shortened = None
    if vocab_top_k is not None and vocab_top_k < student.logits.shape[-1]:
        chosen = {"teacher": teacher, "student": student}[support].logits.topk(vocab_top_k, dim=-1).indices
        shortened = _Shortened(student, teacher, chosen, tail)
        entries = rule(shortened.student, shortened.teacher)
    else:
        entries = rule(student, teacher)
    kept, clipped, slopes = _sum(entries, pointwise_clip)
    if not slope:
        return LossTerms(kept, kept, clipped, None)
    if shortened is not None:
        slopes = shortened.spread(slopes)
    return LossTerms(kept, kept, clipped, _through_softmax(slopes, student, temperature))


def sampled_token_terms(
    student: Side, teacher: Side, token_ids: Tensor, *, temperature: float = 1.0, slope: bool = True
) -> LossTerms:
    """Return stopgrad(e) * log p_student(y), where e = log p_student(y) - log p_teacher(y) is recorded as the divergence.

    The policy-gradient form of arXiv 2601.18734: e is the negative advantage.

    Raises:
        ValueError: when the temperature is not positive.
    """
    real("temperature", temperature, above=0)
    student, teacher = student.at(temperature), teacher.at(temperature)
    chosen, theirs = (side.logprobs.gather(-1, token_ids[:, None])[:, 0] for side in (student, teacher))
    estimate = chosen - theirs
    gradient = through_token(student, token_ids, estimate / temperature) if slope else None
    return LossTerms(estimate * chosen, estimate, torch.zeros_like(estimate), gradient)


def through_token(student: Side, token_ids: Tensor, by_logprob: Tensor) -> Tensor:
    """Turn derivatives by the chosen tokens' log-probabilities [n] into derivatives by the logits [n, V]."""
    gradient = student.probabilities * -by_logprob[:, None]
    return gradient.scatter_add_(-1, token_ids[:, None], by_logprob[:, None])


def rule_of(divergence: Divergence) -> Rule | None:
    """Return the written-out rule of a divergence of `reference.py`, or None for any other."""
    if divergence is forward_kl:
        return _forward
    if divergence is reverse_kl:
        return _reverse
    if type(divergence) is JSD:  # exactly: a subclass may compute something else
        return lambda student, teacher: _jsd(student, teacher, divergence.beta)
    return None


def changed(options: Mapping[str, object]) -> dict[str, object]:
    """Return the options that are not at the value that changes nothing; only these reach a divergence of one's own."""
    return {name: value for name, value in options.items() if value != NONE[name]}


def _forward(student: Side, teacher: Side) -> Entries:
    p = teacher.probabilities
    return Entries(relative(teacher.logprobs, student.logprobs, p), -p)


def _reverse(student: Side, teacher: Side) -> Entries:
    terms = relative(student.logprobs, teacher.logprobs, student.probabilities)
    return Entries(terms, terms + student.probabilities)


def _jsd(student: Side, teacher: Side, beta: float) -> Entries:
    mixture = (beta * teacher.probabilities).add_(student.probabilities, alpha=1 - beta)
    # Below the smallest normal number the mixture would round to 0, whose logarithm is no number to subtract.
    log_m = mixture.clamp_(min=torch.finfo(mixture.dtype).tiny).log_()
    ours = relative(student.logprobs, log_m, student.probabilities).mul_(1 - beta)
    theirs = relative(teacher.logprobs, log_m, teacher.probabilities)
    return Entries(torch.add(ours, theirs, alpha=beta), ours)  # the derivative through the mixture cancels


def _sum(entries: Entries, pointwise_clip: float | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sum of the clipped terms [n], what the clip took [n], and the slopes of what is left [n, K]."""
    whole = entries.terms.sum(-1)
    if pointwise_clip is None:
        return whole, torch.zeros_like(whole), entries.slopes
    kept = entries.terms.clamp(max=pointwise_clip).sum(-1)
    return kept, whole - kept, entries.slopes.masked_fill(entries.terms > pointwise_clip, 0.0)


def _through_softmax(slopes: Tensor, student: Side, temperature: float) -> Tensor:
    """Turn derivatives by log-probabilities [n, V] into derivatives by the logits."""
    gradient = torch.addcmul(slopes, student.probabilities, slopes.sum(-1, keepdim=True), value=-1)
    return gradient if temperature == 1 else gradient.div_(temperature)


class _Shortened:
    """Both sides on the chosen entries [n, k], with the rest as one more entry or left out."""

    def __init__(self, student: Side, teacher: Side, chosen: Tensor, tail: Tail) -> None:
        shorten = {"bucket": with_tail, "renormalise": renormalised}[tail]
        self._whole, self._chosen, self._tail = student, chosen, tail
        self.student, self.teacher = (Side.of_logprobs(shorten(side.logprobs, chosen)) for side in (student, teacher))

    def spread(self, slopes: Tensor) -> Tensor:
        """Turn derivatives by the shortened log-probabilities into derivatives by the whole ones [n, V]."""
        if self._tail == "renormalise":
            kept = slopes - self.student.probabilities * slopes.sum(-1, keepdim=True)
            return torch.zeros_like(self._whole.logprobs).scatter_(-1, self._chosen, kept)
        # An entry of the tail moves the tail's log-probability by its share of the tail's mass; an empty tail does not move.
        share = (self._whole.logprobs - self.student.logprobs[:, -1:]).exp_()
        return share.mul_(slopes[:, -1:]).scatter_(-1, self._chosen, slopes[:, :-1])


def _by_autograd(divergence: Divergence, student: Tensor, teacher: Tensor, options: dict[str, object], slope: bool) -> LossTerms:
    with torch.enable_grad():
        leaf = student.detach().requires_grad_(slope)
        kept = divergence(leaf, teacher, **options)
        if not isinstance(kept, Tensor) or kept.shape != student.shape[:-1] or not kept.is_floating_point():
            found = f"a tensor {tuple(kept.shape)} of {kept.dtype}" if isinstance(kept, Tensor) else type(kept).__name__
            raise TypeError(
                f"the divergence {name_of(divergence)} returned {found}, not one float for each of {len(student)} positions; "
                "it takes the logits of student and teacher [n, V] and returns [n]. Where it makes a divergence, call it first"
            )
        if slope and not kept.requires_grad:
            raise TypeError(
                f"the divergence {name_of(divergence)} does not depend on the student's logits, so nothing could be learnt from it"
            )
        gradient = torch.autograd.grad(kept.sum(), leaf)[0] if slope else None
    kept = kept.detach()
    if "pointwise_clip" not in options:
        return LossTerms(kept, kept, torch.zeros_like(kept), gradient)
    whole = divergence(student, teacher, **{name: value for name, value in options.items() if name != "pointwise_clip"})
    return LossTerms(kept, kept, whole.detach() - kept, gradient)
