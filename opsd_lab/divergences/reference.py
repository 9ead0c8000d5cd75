"""How far apart student and teacher are at each position: the readable, exact form.

Every function takes logits [..., V] of the student and of the teacher and returns one value [...] per position, in nats. Half
precision is raised to float32 first; float64 stays float64. The gradient reaches both arguments; OPSD detaches the teacher's.

Options, the same for every full-vocabulary divergence:
`temperature` divides both logits (arXiv 2601.18734; there is no T**2 factor). `pointwise_clip` bounds each vocabulary entry's
term from above before the sum (same paper, v3); the result is then no divergence any more and can be negative.
`vocab_top_k` keeps the k entries that `support` finds most probable; the rest becomes one more entry (`tail` "bucket",
arXiv 2601.20802) or is left out and both sides renormalised (`tail` "renormalise").

A clip that is small turns the gradient of `forward_kl` round: an entry whose term is above the clip has no slope, and these are the
entries that the teacher prefers, while the entries below, those that it avoids, keep theirs; through the softmax's normalisation
the student then moves away from the teacher. See `opsd_lab.training.clipping` for figures and for what measures it.
"""

import math
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from opsd_lab.basics.options import one_of, real, whole

Tail = Literal["bucket", "renormalise"]
Support = Literal["teacher", "student"]
NONE = {"temperature": 1.0, "pointwise_clip": None, "vocab_top_k": None, "tail": "bucket", "support": "teacher"}
"""The options that change nothing."""


class Divergence(Protocol):
    """A full-vocabulary divergence per position."""

    def __call__(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        *,
        temperature: float = 1.0,
        pointwise_clip: float | None = None,
        vocab_top_k: int | None = None,
        tail: Tail = "bucket",
        support: Support = "teacher",
    ) -> Tensor:
        """Return the divergence [...] of logits [..., V]."""
        ...


def forward_kl(student_logits: Tensor, teacher_logits: Tensor, *, pointwise_clip: float | None = None, **options: object) -> Tensor:
    """Return KL(teacher || student) per position; see the module for the options."""
    log_s, log_t = _logprobs(student_logits, teacher_logits, **options)
    return _sum(relative(log_t, log_s), pointwise_clip)


def reverse_kl(student_logits: Tensor, teacher_logits: Tensor, *, pointwise_clip: float | None = None, **options: object) -> Tensor:
    """Return KL(student || teacher) per position; see the module for the options."""
    log_s, log_t = _logprobs(student_logits, teacher_logits, **options)
    return _sum(relative(log_s, log_t), pointwise_clip)


@dataclass(frozen=True)
class JSD:
    """beta * KL(teacher || m) + (1 - beta) * KL(student || m), m = beta * teacher + (1 - beta) * student; `jsd` makes it.

    Raises:
        TypeError: for a beta that is no number.
        ValueError: unless 0 < beta < 1. The ends are no Kullback-Leibler divergences (the formula is 0 there); public code
            that calls them so means `forward_kl` (beta 0) and `reverse_kl` (beta 1).
    """

    beta: float = 0.5

    def __post_init__(self) -> None:
        real("jsd: beta", self.beta)
        if not 0 < self.beta < 1:
            raise ValueError(
                f"jsd: beta is {self.beta}; it lies inside (0, 1). Use forward_kl or reverse_kl for the one-sided divergences"
            )

    def __call__(
        self, student_logits: Tensor, teacher_logits: Tensor, *, pointwise_clip: float | None = None, **options: object
    ) -> Tensor:
        """Return the divergence per position; see the module for the options."""
        log_s, log_t = _logprobs(student_logits, teacher_logits, **options)
        log_m = torch.logaddexp(_finite(log_t) + math.log(self.beta), _finite(log_s) + math.log1p(-self.beta))
        return _sum(self.beta * relative(log_t, log_m) + (1 - self.beta) * relative(log_s, log_m), pointwise_clip)


def jsd(beta: float = 0.5) -> Divergence:
    """Return the generalised Jensen-Shannon divergence; see `JSD`. Its size vanishes towards the ends, so beta is a step size too.

    Raises:
        TypeError, ValueError: as `JSD` does.
    """
    return JSD(beta)


def sampled_token(student_logits: Tensor, teacher_logits: Tensor, token_ids: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Return log p_student - log p_teacher of the sampled tokens [...]: an unbiased one-sample estimate of the reverse KL.

    Its gradient is not the reverse KL's; the policy-gradient form is in `opsd_lab.objectives.opsd.SampledTokenOPSD`.
    """
    log_s, log_t = _logprobs(student_logits, teacher_logits, temperature=temperature)
    return (log_s - log_t).gather(-1, token_ids[..., None])[..., 0]


def check_options(
    *,
    temperature: float = 1.0,
    pointwise_clip: float | None = None,
    vocab_top_k: int | None = None,
    tail: Tail = "bucket",
    support: Support = "teacher",
) -> None:
    """Make sure that the options of a divergence mean something.

    Raises:
        TypeError, ValueError: for a value that is none of an option's, or with which there is nothing to learn; it names the option.
    """
    real("temperature", temperature, above=0)
    one_of("tail", tail, get_args(Tail))
    one_of("support", support, get_args(Support))
    if pointwise_clip is not None:
        real("pointwise_clip", pointwise_clip, above=0)
    if vocab_top_k is not None and whole("vocab_top_k", vocab_top_k, least=1) == 1 and tail == "renormalise":
        raise ValueError(
            "vocab_top_k = 1 with tail = 'renormalise' leaves one entry of probability 1 on both sides: every loss is 0. Keep the "
            "tail as a bucket, or take vocab_top_k >= 2"
        )


def _logprobs(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    temperature: float = 1.0,
    vocab_top_k: int | None = None,
    tail: Tail = "bucket",
    support: Support = "teacher",
) -> tuple[Tensor, Tensor]:
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f"student logits {tuple(student_logits.shape)} and teacher logits {tuple(teacher_logits.shape)} differ in shape"
        )
    check_options(temperature=temperature, vocab_top_k=vocab_top_k, tail=tail, support=support)
    log_s, log_t = (_tempered(x, temperature).log_softmax(-1) for x in (student_logits, teacher_logits))
    if vocab_top_k is None or vocab_top_k >= log_s.shape[-1]:
        return log_s, log_t
    chosen = {"teacher": log_t, "student": log_s}[support].topk(vocab_top_k, dim=-1).indices
    shorten = {"bucket": with_tail, "renormalise": renormalised}[tail]
    return shorten(log_s, chosen), shorten(log_t, chosen)


def _tempered(logits: Tensor, temperature: float) -> Tensor:
    logits = logits if logits.dtype in (torch.float32, torch.float64) else logits.float()
    return logits if temperature == 1 else logits / temperature  # a division by 1 still costs a pass over the vocabulary


def with_tail(logprobs: Tensor, chosen: Tensor) -> Tensor:
    """Return the chosen entries' log-probabilities and that of all others together [..., k + 1]."""
    # The tail's mass is summed, not taken as 1 minus the rest: that difference loses all its digits for a confident model.
    rest = _finite(logprobs.scatter(-1, chosen, -math.inf)).logsumexp(-1, keepdim=True)
    return torch.cat([logprobs.gather(-1, chosen), rest], -1)


def renormalised(logprobs: Tensor, chosen: Tensor) -> Tensor:
    """Return the chosen entries' log-probabilities [..., k] as if there were no others."""
    return logprobs.gather(-1, chosen).log_softmax(-1)


def relative(log_p: Tensor, log_q: Tensor, p: Tensor | None = None) -> Tensor:
    """Return p * log(p / q) per entry, 0 where p is 0; `p` where it is known already."""
    p = log_p.exp() if p is None else p
    return p * (log_p - log_q).masked_fill(p == 0, 0.0)


def _finite(logprobs: Tensor) -> Tensor:
    """Replace -inf by the logarithm of nothing at all: the same value, but a gradient of 0 where -inf would give none."""
    return logprobs.clamp(min=torch.finfo(logprobs.dtype).min / 4)


def _sum(terms: Tensor, pointwise_clip: float | None) -> Tensor:
    check_options(pointwise_clip=pointwise_clip)
    return (terms if pointwise_clip is None else terms.clamp(max=pointwise_clip)).sum(-1)
