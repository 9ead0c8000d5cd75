"""The clipped policy gradient, of any advantage per token, and of judged outcomes."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from opsd_lab.basics.options import flag, real
from opsd_lab.basics.schedules import Varying
from opsd_lab.divergences import Side
from opsd_lab.objectives.objective import Losses, Objective, through_token
from opsd_lab.objectives.tokens import Teachers, Tokens


@dataclass(frozen=True)
class PolicyGradient(Objective):
    """The clipped policy gradient (Schulman et al. 2017, arXiv 1707.06347, equation 7) of an advantage A per token.

    A subclass says what A is in `token_advantages`. With r = p_student(y) / p_sampler(y) the loss is
    -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) + kl * k3, where k3 = exp(d) - d - 1, d = log p_reference(y) - log p_student(y),
    estimates the KL from the reference policy, which is the teacher: show it nothing (`no_privilege`). The divergence recorded is k3,
    the clipped part what the clip took off the reward's term. Both probabilities of r are those at temperature 1, so rollouts
    must be drawn from that distribution, whole.

    Raises:
        TypeError: for an option of another kind.
        ValueError: for a clip that is not positive or a negative kl.
    """

    clip_low: float = 0.2
    clip_high: float = 0.2
    kl: float = 0.0

    needs_sampled_logprobs = True
    _needed = ("sampled_logprob",)

    def __post_init__(self) -> None:
        name = type(self).__name__
        for clip in ("clip_low", "clip_high"):
            real(f"{name}: {clip}", getattr(self, clip), above=0, finite=False)
        real(f"{name}: kl", self.kl, least=0)

    @abstractmethod
    def token_advantages(self, student: Side, teachers: Teachers, tokens: Tokens) -> Tensor:
        """Return each token's advantage [n], without gradient."""

    def loss(self, student: Side, teachers: Teachers, tokens: Tokens) -> Tensor:
        """Return the losses of a few tokens [n].

        Raises:
            ValueError: when the tokens have no advantage or no log-probability of the sampler's.
        """
        chosen, free, bounded = self._gains(student, teachers, tokens)
        gain = torch.minimum(free, bounded)
        tokens.record(clipped=free - gain)
        if not self.kl:
            return -gain
        away = teachers.only.of(tokens.ids) - chosen
        k3 = away.exp() - away - 1
        tokens.record(divergence=k3)
        return self.kl * k3 - gain

    def losses_and_slopes(self, student: Side, teachers: Teachers, tokens: Tokens) -> Losses:
        """Return the losses and their slopes."""
        loss = self.loss(student, teachers, tokens)
        chosen, free, bounded = self._gains(student, teachers, tokens)
        by_logprob = torch.where(free <= bounded, -free, 0.0)
        if self.kl:
            by_logprob = by_logprob + self.kl * (1 - (teachers.only.of(tokens.ids) - chosen).exp())
        return Losses(loss, through_token(student, tokens.ids, by_logprob))

    def _gains(self, student: Side, teachers: Teachers, tokens: Tokens) -> tuple[Tensor, Tensor, Tensor]:
        """Return the tokens' log-probabilities, and what they gain without and within the clip, each [n]."""
        tokens.need(type(self).__name__, self._needed)
        chosen = student.of(tokens.ids)
        advantage = self.token_advantages(student.detached(), teachers, tokens).to(chosen)
        tokens.record(advantage=advantage)
        ratio = (chosen - tokens.sampled_logprob.to(chosen)).exp()
        return chosen, ratio * advantage, ratio.clamp(1 - self.clip_low, 1 + self.clip_high) * advantage


@dataclass(frozen=True)
class GapGradient(PolicyGradient):
    """The `PolicyGradient` of the gap, log p_teacher(y) - log p_student(y), at least `least`: the reverse KL at the token written."""

    least: float = -math.inf

    def token_advantages(self, student: Side, teachers: Teachers, tokens: Tokens) -> Tensor:
        """Return each token's gap [n], nats."""
        return (teachers.only.of(tokens.ids) - student.of(tokens.ids)).clamp(min=self.least)


@dataclass(frozen=True)
class GRPO(PolicyGradient):
    """Group-relative policy optimisation (Shao et al. 2024, arXiv 2402.03300, equation 3), its loss per token.

    The `PolicyGradient` of a rollout's advantage: its reward minus the mean of its problem's rollouts, divided by their unbiased
    standard deviation plus 1e-4, or not divided with `scale` false (arXiv 2503.20783). A subclass that overrides `token_advantages`
    gives each token of a rollout an advantage of its own.

    Raises:
        TypeError: for an option of another kind.
        ValueError: for a clip that is not positive or a negative kl.
    """

    scale: bool = True

    needs_rewards = needs_groups = True
    _needed = ("advantage", "sampled_logprob")

    def __post_init__(self) -> None:
        super().__post_init__()
        flag(f"{type(self).__name__}: scale", self.scale)

    @property
    def needs_teacher(self) -> bool:
        """Whether there is a reference policy to stay near to."""
        return isinstance(self.kl, Varying) or self.kl > 0

    def advantages(self, rewards: Sequence[float], groups: Sequence[str]) -> list[float]:
        """Return each rollout's advantage in its group; 0 where all rewards of a group agree, or where it is alone."""
        values, owners = np.asarray(rewards, dtype=np.float64), np.asarray(groups)
        found = np.zeros_like(values)
        for group in np.unique(owners):
            rows = owners == group
            centred = values[rows] - values[rows].mean()
            spread = values[rows].std(ddof=1) + 1e-4 if self.scale and rows.sum() > 1 else 1.0
            found[rows] = centred / spread
        return found.tolist()

    def token_advantages(self, student: Side, teachers: Teachers, tokens: Tokens) -> Tensor:
        """Return each token's advantage [n], without gradient: here its rollout's."""
        return tokens.advantage
