"""What OPSD is compared with: the likelihood of given texts (SFT), and the policy gradient of graded outcomes (GRPO).

Both stand on the same per-token losses as OPSD. Distillation from other rollouts or other teachers needs no objective of its own:
it is `OPSD` with another source of completions (`opsd_lab.rollouts.sources`) or another teacher (`opsd_lab.policies.teachers`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from opsd_lab.basics.options import flag, real
from opsd_lab.divergences import LossTerms, Side, Tokens, through_token
from opsd_lab.objectives.opsd import Objective


@dataclass(frozen=True)
class SFT(Objective):
    """Maximum likelihood: the loss of a token is -log p_student(y), in nats. It has no teacher."""

    needs_teacher = False

    def terms(self, student: Side, teacher: Side, tokens: Tokens, slope: bool) -> LossTerms:
        """Return the negative log-likelihoods of a few tokens [n] and their derivatives."""
        chosen = student.logprobs.gather(-1, tokens.ids[:, None])[:, 0]
        nothing = torch.zeros_like(chosen)
        gradient = through_token(student, tokens.ids, torch.full_like(chosen, -1.0)) if slope else None
        return LossTerms(-chosen, nothing, nothing, gradient)


@dataclass(frozen=True)
class GRPO(Objective):
    """Group-relative policy optimisation (Shao et al. 2024, arXiv 2402.03300, equation 3), its loss per token.

    A rollout's advantage A is its reward minus the mean of its problem's rollouts, divided by their unbiased standard deviation plus
    1e-4, or not divided with `scale` false (arXiv 2503.20783). With r = p_student(y) / p_sampler(y) the loss is
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
    scale: bool = True

    needs_rewards = needs_groups = needs_sampled_logprobs = True

    def __post_init__(self) -> None:
        for name in ("clip_low", "clip_high"):
            real(f"GRPO: {name}", getattr(self, name), finite=False)
        real("GRPO: kl", self.kl)
        if self.clip_low <= 0 or self.clip_high <= 0 or self.kl < 0:
            raise ValueError(f"GRPO: clips must be positive and kl not negative, not {self.clip_low}, {self.clip_high}, {self.kl}")
        flag("GRPO: scale", self.scale)

    @property
    def needs_teacher(self) -> bool:
        """Whether there is a reference policy to stay near to."""
        return self.kl > 0

    def advantages(self, rewards: Sequence[float], groups: Sequence[int]) -> list[float]:
        """Return each rollout's advantage in its group; 0 where all rewards of a group agree, or where it is alone."""
        values, owners = np.asarray(rewards, dtype=np.float64), np.asarray(groups)
        found = np.zeros_like(values)
        for group in np.unique(owners):
            rows = owners == group
            centred = values[rows] - values[rows].mean()
            spread = values[rows].std(ddof=1) + 1e-4 if self.scale and rows.sum() > 1 else 1.0
            found[rows] = centred / spread
        return found.tolist()

    def terms(self, student: Side, teacher: Side, tokens: Tokens, slope: bool) -> LossTerms:
        """Return the losses of a few tokens [n] and their derivatives.

        Raises:
            ValueError: when the tokens have no advantage or no log-probability of the sampler's.
        """
        if tokens.advantage is None or tokens.sampled_logprob is None:
            raise ValueError("GRPO needs each token's advantage and the sampler's log-probability of it")
        chosen, reference = (side.logprobs.gather(-1, tokens.ids[:, None])[:, 0] for side in (student, teacher))
        advantage = tokens.advantage.to(chosen)
        ratio = (chosen - tokens.sampled_logprob.to(chosen)).exp()
        free, bounded = ratio * advantage, ratio.clamp(1 - self.clip_low, 1 + self.clip_high) * advantage
        gain = torch.minimum(free, bounded)
        away = reference - chosen
        k3 = away.exp() - away - 1
        gradient = None
        if slope:
            by_logprob = torch.where(free <= bounded, -free, 0.0) + self.kl * (1 - away.exp())
            gradient = through_token(student, tokens.ids, by_logprob)
        return LossTerms(self.kl * k3 - gain, k3, free - gain, gradient)
