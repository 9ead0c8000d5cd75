"""What a divergence is, and the options that are applied around every one of them.

`temperature` divides both sides' logits (arXiv 2601.18734; there is no T**2 factor). `vocab_top_k` keeps the k entries that
`support` finds most probable; the rest becomes one more entry (`tail` "bucket", arXiv 2601.20802) or is left out and both sides
renormalised (`tail` "renormalise"). `pointwise_clip` bounds each entry's term from above before the sum (arXiv 2601.18734, v3);
the result is then no divergence any more and can be negative.

A clip that is small turns the gradient of `forward_kl` round: an entry whose term is above the clip has no slope, and these are the
entries that the teacher prefers, while the entries below, those that it avoids, keep theirs; through the softmax's normalisation
the student then moves away from the teacher. See `opsd_lab.training.clipping` for figures and for what measures it.
"""

import math
from abc import ABC, abstractmethod
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from opsd_lab.basics.options import name_of, one_of, overrides_both, real, whole
from opsd_lab.divergences.side import Side

Tail = Literal["bucket", "renormalise"]
Support = Literal["teacher", "student"]
PLAIN = {"temperature": 1.0, "pointwise_clip": None, "vocab_top_k": None, "tail": "bucket", "support": "teacher"}
"""The options that change nothing."""


class Entries(NamedTuple):
    """Each vocabulary entry's term [n, V], and its derivative by the student's log-probability of that entry [n, V]."""

    terms: Tensor
    slopes: Tensor


class Compared(NamedTuple):
    """What is left of the divergence of each token [n] after the clip, and what the clip took; nats.

    `slope` [n, V] is the derivative of the former by the student's logits, where it was asked for and is known without autograd.
    """

    kept: Tensor
    clipped: Tensor
    slope: Tensor | None = None


class Divergence(ABC):
    """How far apart student and teacher are at each position; a formula, around which the options are applied."""

    @abstractmethod
    def terms(self, student: Side, teacher: Side) -> Tensor:
        """Return each vocabulary entry's term [n, V], nats; their sum is the divergence, and autograd differentiates it.

        Raises:
            NotImplementedError: for a divergence that is no sum over entries; it overrides `value` instead.
        """

    def value(self, student: Side, teacher: Side) -> Tensor:
        """Return the divergence of each token [n], nats."""
        return self.terms(student, teacher).sum(-1)

    def entries(self, student: Side, teacher: Side) -> Entries | None:
        """Return terms and slopes from one reading of the logits, where they are written out: faster than autograd."""
        return None

    @property
    def knows_slopes(self) -> bool:
        """Whether `entries` is written out, and not that of a base with another formula."""
        own = type(self).entries is not Divergence.entries
        return own and all(overrides_both(type(self), plain, "entries") for plain in ("terms", "value"))

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor, **options: object) -> Tensor:
        """Return the divergence [...] of logits [..., V], nats; the gradient reaches both arguments.

        `options` are those of the module.

        Raises:
            TypeError, ValueError: for other shapes, or an option that means nothing; it names the option.
        """
        if student_logits.shape != teacher_logits.shape:
            raise ValueError(
                f"student logits {tuple(student_logits.shape)} and teacher logits {tuple(teacher_logits.shape)} differ in shape"
            )
        return compare(self, Side(student_logits), Side(teacher_logits), **options).kept


def compare(
    divergence: Divergence,
    student: Side,
    teacher: Side,
    *,
    temperature: float = 1.0,
    pointwise_clip: float | None = None,
    vocab_top_k: int | None = None,
    tail: Tail = "bucket",
    support: Support = "teacher",
    slope: bool = False,
) -> Compared:
    """Return the divergence of each token under the options of the module; without `slope`, autograd differentiates it.

    With `slope`, where the divergence knows its slopes, the derivative by the student's logits comes with it; else it is None.

    Args:
        divergence: the formula.
        student: the student's logits [..., V].
        teacher: the teacher's logits, of the same shape.
        temperature: divides both sides' logits; 1 changes nothing.
        pointwise_clip: bounds each entry's term from above, nats; None bounds none.
        vocab_top_k: how many entries are kept; None, or the size of the vocabulary and more, keeps all.
        tail: what becomes of the others: "bucket" makes one entry of them, "renormalise" leaves them out.
        support: whose most probable entries are kept, "teacher" or "student".
        slope: whether the derivative is wanted.

    Raises:
        TypeError, ValueError: for an option that means nothing; it names the option. For a clip around what is no sum over entries.
    """
    check_options(temperature=temperature, pointwise_clip=pointwise_clip, vocab_top_k=vocab_top_k, tail=tail, support=support)
    student, teacher = student.at(temperature), teacher.at(temperature)
    ours, theirs, shortened = student, teacher, None
    if vocab_top_k is not None and vocab_top_k < student.logits.shape[-1]:
        chosen = {"teacher": teacher, "student": student}[support].logits.topk(vocab_top_k, dim=-1).indices
        shortened = _Shortened(student, teacher, chosen, tail)
        ours, theirs = shortened.student, shortened.teacher
    entries = divergence.entries(ours, theirs) if slope and divergence.knows_slopes else None
    if entries is None and pointwise_clip is None:
        value = _checked(divergence, divergence.value(ours, theirs), ours, 1)
        return Compared(value, torch.zeros_like(value))
    terms = entries.terms if entries else _checked(divergence, divergence.terms(ours, theirs), ours, 0)
    kept, clipped = _clipped(terms, pointwise_clip)
    if entries is None:
        return Compared(kept, clipped)
    slopes = entries.slopes if pointwise_clip is None else entries.slopes.masked_fill(terms > pointwise_clip, 0.0)
    slopes = slopes if shortened is None else shortened.spread(slopes)
    return Compared(kept, clipped, _through_softmax(slopes, student, temperature))


def check_options(
    *,
    temperature: float = 1.0,
    pointwise_clip: float | None = None,
    vocab_top_k: int | None = None,
    tail: Tail = "bucket",
    support: Support = "teacher",
) -> None:
    """Make sure that the options of a divergence mean something.

    Each is explained in the module. What is left out changes nothing.

    Args:
        temperature: a number above 0.
        pointwise_clip: a number above 0 in nats, or None.
        vocab_top_k: a whole number of entries, at least 1, or None for all.
        tail: "bucket" or "renormalise".
        support: "teacher" or "student".

    Raises:
        TypeError, ValueError: for a value that is none of an option's, or with which there is nothing to learn; it names the option.
    """
    real("temperature", temperature, above=0)
    one_of("tail", tail, get_args(Tail))
    one_of("support", support, get_args(Support))
    if pointwise_clip is not None:
        real("pointwise_clip", pointwise_clip, above=0)
    if vocab_top_k is not None and whole("vocab_top_k", vocab_top_k, least=1, varies=True) == 1 and tail == "renormalise":
        raise ValueError(
            "vocab_top_k = 1 with tail = 'renormalise' leaves one entry of probability 1 on both sides: every loss is 0. Keep the "
            "tail as a bucket, or take vocab_top_k >= 2"
        )


def relative(log_p: Tensor, log_q: Tensor, p: Tensor | None = None) -> Tensor:
    """Return p * log(p / q) per entry, 0 where p is 0; `p` where it is known already."""
    p = log_p.exp() if p is None else p
    return p * (log_p - log_q).masked_fill(p == 0, 0.0)


def relative_to(log_q: Tensor, side: Side, is_finite: bool) -> Tensor:
    """Return `relative` of a side to `log_q`, without gradient; where both are known to be finite, without care for 0 * log 0."""
    if is_finite and side.is_finite:
        return (side.logprobs - log_q).mul_(side.probabilities)
    return relative(side.logprobs, log_q, side.probabilities)


def finite(logprobs: Tensor) -> Tensor:
    """Replace -inf by the logarithm of nothing at all: the same value, but a gradient of 0 where -inf would give none."""
    return logprobs.clamp(min=torch.finfo(logprobs.dtype).min / 4)


def with_tail(logprobs: Tensor, chosen: Tensor) -> Tensor:
    """Return the chosen entries' log-probabilities and that of all others together [..., k + 1]."""
    # The tail's mass is summed, not taken as 1 minus the rest: that difference loses all its digits for a confident model.
    rest = finite(logprobs.scatter(-1, chosen, -math.inf)).logsumexp(-1, keepdim=True)
    return torch.cat([logprobs.gather(-1, chosen), rest], -1)


def renormalised(logprobs: Tensor, chosen: Tensor) -> Tensor:
    """Return the chosen entries' log-probabilities [..., k] as if there were no others."""
    return logprobs.gather(-1, chosen).log_softmax(-1)


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
        share = (self._whole.logprobs - self.student.logprobs[..., -1:]).exp_()
        return share.mul_(slopes[..., -1:]).scatter_(-1, self._chosen, slopes[..., :-1])


def _clipped(terms: Tensor, pointwise_clip: float | None) -> tuple[Tensor, Tensor]:
    whole = terms.sum(-1)
    if pointwise_clip is None:
        return whole, torch.zeros_like(whole)
    kept = terms.clamp(max=pointwise_clip).sum(-1)
    return kept, (whole - kept).detach()


def _through_softmax(slopes: Tensor, student: Side, temperature: float) -> Tensor:
    """Turn derivatives by log-probabilities [n, V] into derivatives by the logits."""
    gradient = torch.addcmul(slopes, student.probabilities, slopes.sum(-1, keepdim=True), value=-1)
    return gradient if temperature == 1 else gradient.div_(temperature)


def _checked(divergence: Divergence, found: object, side: Side, summed: int) -> Tensor:
    wanted = side.logprobs.shape[: side.logprobs.dim() - summed]
    if not isinstance(found, Tensor) or found.shape != wanted or not found.is_floating_point():
        kind = f"a tensor {tuple(found.shape)} of {found.dtype}" if isinstance(found, Tensor) else type(found).__name__
        what = "value returned" if summed else "terms returned"
        raise TypeError(f"the divergence {name_of(divergence)}.{what} {kind}, not floats of the shape {tuple(wanted)}")
    return found
