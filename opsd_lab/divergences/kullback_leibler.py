"""The Kullback-Leibler divergences, their mixtures and Renyi's; most write their slopes out beside their formula."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from opsd_lab.basics.options import real
from opsd_lab.basics.schedules import Varying
from opsd_lab.divergences.divergence import Divergence, Entries, finite, relative, relative_to
from opsd_lab.divergences.side import Side


@dataclass(frozen=True)
class ForwardKL(Divergence):
    """KL(teacher || student)."""

    def terms(self, student: Side, teacher: Side) -> Tensor:
        """Return t * log(t / s) for each entry [n, V]."""
        return relative(teacher.logprobs, student.logprobs)

    def entries(self, student: Side, teacher: Side) -> Entries:
        """Return terms and slopes."""
        return Entries(relative_to(student.logprobs, teacher, student.is_finite), -teacher.probabilities)


@dataclass(frozen=True)
class ReverseKL(Divergence):
    """KL(student || teacher)."""

    def terms(self, student: Side, teacher: Side) -> Tensor:
        """Return s * log(s / t) for each entry [n, V]."""
        return relative(student.logprobs, teacher.logprobs)

    def entries(self, student: Side, teacher: Side) -> Entries:
        """Return terms and slopes."""
        terms = relative_to(teacher.logprobs, student, teacher.is_finite)
        return Entries(terms, terms + student.probabilities)


@dataclass(frozen=True)
class JSD(Divergence):
    """beta * KL(teacher || m) + (1 - beta) * KL(student || m), m = beta * teacher + (1 - beta) * student.

    Its size vanishes towards the ends, so beta is a step size too.

    Raises:
        TypeError: for a beta that is no number.
        ValueError: unless 0 < beta < 1. The ends are no Kullback-Leibler divergences (the formula is 0 there); public code
            that calls them so means `forward_kl` (beta 0) and `reverse_kl` (beta 1).
    """

    beta: float = 0.5

    def __post_init__(self) -> None:
        real("jsd: beta", self.beta)
        if not isinstance(self.beta, Varying) and not 0 < self.beta < 1:
            raise ValueError(
                f"jsd: beta is {self.beta}; it lies inside (0, 1). Use forward_kl or reverse_kl for the one-sided divergences"
            )

    def terms(self, student: Side, teacher: Side) -> Tensor:
        """Return both parts of each entry [n, V]."""
        log_s, log_t = student.logprobs, teacher.logprobs
        log_m = torch.logaddexp(finite(log_t) + math.log(self.beta), finite(log_s) + math.log1p(-self.beta))
        return self.beta * relative(log_t, log_m) + (1 - self.beta) * relative(log_s, log_m)

    def entries(self, student: Side, teacher: Side) -> Entries:
        """Return terms and slopes."""
        mixture = (self.beta * teacher.probabilities).add_(student.probabilities, alpha=1 - self.beta)
        # Below the smallest normal number the mixture would round to 0, whose logarithm is no number to subtract.
        log_m = mixture.clamp_(min=torch.finfo(mixture.dtype).tiny).log_()
        ours = relative_to(log_m, student, True).mul_(1 - self.beta)
        theirs = relative_to(log_m, teacher, True)
        return Entries(torch.add(ours, theirs, alpha=self.beta), ours)  # the derivative through the mixture cancels


@dataclass(frozen=True)
class SkewedKL(Divergence):
    """KL(teacher || alpha * teacher + (1 - alpha) * student); alpha 0 is the forward KL.

    Raises:
        TypeError, ValueError: unless alpha lies in [0, 1).
    """

    alpha: float = 0.1

    def __post_init__(self) -> None:
        real("SkewedKL: alpha", self.alpha, least=0, below=1)

    def terms(self, student: Side, teacher: Side) -> Tensor:
        """Return t * log(t / m) for each entry [n, V]."""
        log_s, log_t = finite(student.logprobs), finite(teacher.logprobs)
        if not self.alpha:
            return relative(teacher.logprobs, student.logprobs)
        return relative(log_t, torch.logaddexp(log_t + math.log(self.alpha), log_s + math.log1p(-self.alpha)))


@dataclass(frozen=True)
class Renyi(Divergence):
    """Renyi's divergence log(sum over v of t**alpha * s**(1 - alpha)) / (alpha - 1); near alpha 1 it is the forward KL.

    Raises:
        TypeError, ValueError: unless alpha is positive and not 1.
    """

    alpha: float = 0.5

    def __post_init__(self) -> None:
        real("Renyi: alpha", self.alpha, above=0)
        if self.alpha == 1:
            raise ValueError("Renyi: alpha 1 is the forward KL; take forward_kl")

    def terms(self, student: Side, teacher: Side) -> Tensor:
        """Refuse: it is no sum over entries.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("Renyi's divergence is no sum over entries")

    def value(self, student: Side, teacher: Side) -> Tensor:
        """Return the divergence of each token [n], nats."""
        powers = self.alpha * finite(teacher.logprobs) + (1 - self.alpha) * finite(student.logprobs)
        return powers.logsumexp(-1) / (self.alpha - 1)


forward_kl, reverse_kl, jsd = ForwardKL(), ReverseKL(), JSD
