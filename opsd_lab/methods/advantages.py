"""Methods that turn an outcome into one advantage per token; letters as in `contexts`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from opsd_lab.basics.controllers import Hysteresis
from opsd_lab.basics.schedules import Linear, Varying
from opsd_lab.contexts.peers import FailedPeer, FirstOf, SuccessfulPeer
from opsd_lab.contexts.views import bare_solution, reference_solution
from opsd_lab.divergences import Side, reverse_kl
from opsd_lab.methods.method import method
from opsd_lab.objectives import GRPO, OPSD, Sum, Teachers, Tokens
from opsd_lab.policies.teachers import live_teacher, refreshed_teacher
from opsd_lab.training.recipes import Recipe

GROUP = 8  # rollouts a problem


@dataclass(frozen=True)
class WithTeacher(GRPO):
    """GRPO whose tokens' advantages look at a teacher."""

    needs_teacher = True


@dataclass(frozen=True)
class RLSDAdvantage(WithTeacher):
    """A [(1 - share) + share clip(exp(sign(A) D), 1 - width, 1 + width)]."""

    share: float | Varying = 0.5
    width: float = 0.2

    def evidence(self, student: Side, teachers: Teachers, tokens: Tokens) -> Tensor:
        """Return D [n]."""
        return teachers.only.of(tokens.ids) - student.of(tokens.ids)

    def token_advantages(self, student: Side, teachers: Teachers, tokens: Tokens) -> Tensor:
        """Return the advantages [n]."""
        weight = (tokens.advantage.sign() * self.evidence(student, teachers, tokens)).exp().clamp(1 - self.width, 1 + self.width)
        return tokens.advantage * (1 - self.share + self.share * weight)


@method("RLSD", "2604.03128", "paper")
def rlsd(steps: int = 50) -> Recipe:
    """A_t = A [(1 - l) + l clip(exp(sign(A) D), 1 +- .2)], l from .5 to 0 over 50 steps; GRPO's loss.

    Defaults: 8 rollouts a problem; the teacher is a copy of the student, taken anew every 10 steps in public code.
    """
    objective = RLSDAdvantage(share=Linear(0.5, 0.0, steps))
    return Recipe(objective, reference_solution, teacher=partial(refreshed_teacher, every=10), n=GROUP)


@dataclass(frozen=True)
class RLRTAdvantage(WithTeacher):
    """A clip(exp(-sign(A) D), 1 - width, 1 + width) on right rollouts, A on the others."""

    width: float = 0.5
    clip_high: float = 0.28

    def token_advantages(self, student: Side, teachers: Teachers, tokens: Tokens) -> Tensor:
        """Return the advantages [n]."""
        gap = teachers.only.of(tokens.ids) - student.of(tokens.ids)
        weight = (-tokens.advantage.sign() * gap).exp().clamp(1 - self.width, 1 + self.width)
        return torch.where(tokens.outcome > 0, tokens.advantage * weight, tokens.advantage)


@method("RLRT", "2605.10781", "note")
def rlrt(width: float = 0.5) -> Recipe:
    """A_t = A clip((S / T)(y)^sign(A), 1 +- w) on right rollouts, A on wrong ones; the live student teaches, with a right attempt.

    Defaults: w is 1 for base models, .5 for instruction-tuned ones, .2 for those that think; GRPO's clips .2 and .28. Differs: where
    no other attempt is right the teacher sees the reference.
    """
    view = FirstOf((SuccessfulPeer(), bare_solution))
    return Recipe(RLRTAdvantage(width=width), view, teacher=live_teacher, n=GROUP)


@dataclass(frozen=True)
class AntiSDAdvantage(WithTeacher):
    """A - share (softplus(D) - log 2) / 2."""

    share: float | Varying = 0.5

    def token_advantages(self, student: Side, teachers: Teachers, tokens: Tokens) -> Tensor:
        """Return the advantages [n]."""
        gap = teachers.only.of(tokens.ids) - student.of(tokens.ids)
        return tokens.advantage - self.share * (F.softplus(gap) - math.log(2)) / 2


@method("AntiSD", "2605.11609", "paper")
def antisd() -> Recipe:
    """A_t = A - l phi(D), phi(u) = (softplus(u) - log 2) / 2; l is .5, and 0 from when H_T falls below .93 H_warm until it is back.

    Defaults: live teacher, which sees a right attempt or else the solution; H_warm is the mean H_T of the first 5 steps. Without
    the gate training collapses. Unconfirmed: that l is 0 during these 5 steps. Differs: without the words that say what is correct.
    """
    view = FirstOf((SuccessfulPeer(), bare_solution))
    objective = AntiSDAdvantage(share=Hysteresis("teacher_entropy", on=0.5, share=0.93, warm_steps=5))
    return Recipe(objective, view, teacher=live_teacher, n=GROUP)


@dataclass(frozen=True)
class RLCSDAdvantage(WithTeacher):
    """A + r without a change of sign, r = share tanh((log T+ - log mean of T-) / tau), 0 where it is small."""

    share: float = 0.5
    tau: float = 0.02
    least: float = 0.02
    wrong: tuple[str, ...] = ("wrong 0", "wrong 1", "wrong 2", "wrong 3")

    def token_advantages(self, student: Side, teachers: Teachers, tokens: Tokens) -> Tensor:
        """Return the advantages [n]."""
        a, mean = tokens.advantage, teachers.mean(lambda side: side.of(tokens.ids).exp(), self.wrong)
        r = self.share * ((teachers["right"].of(tokens.ids) - mean.log()) / self.tau).tanh()
        contrasted = tokens.have(("right", self.wrong[0]))
        r = torch.where((r.abs() > self.least) & contrasted, r, 0.0)
        return torch.where(a > 0, (a + r).clamp(min=0), torch.where(a < 0, (a + r).clamp(max=0), 0.0))

    def counts(self, tokens: Tokens) -> Tensor:
        """Count every token [n]: where a view is missing, the advantage is the rollout's."""
        return tokens.have(())


@method("RLCSD", "2606.11709", "code")
def rlcsd() -> Recipe:
    """e = log T+(y) - log mean over k of T-_k(y), r = l tanh(e / .02) or 0 where |r| <= .02; A + r, never of another sign.

    Defaults: l = .5, up to 4 wrong attempts as contexts, a right attempt as the right one, 8 rollouts a problem, a copy taken anew
    every 10 steps. Differs: selected and other tokens share one mean, and where no attempt is right the reference is shown.
    """
    views = {"right": FirstOf((SuccessfulPeer(), bare_solution)), **{f"wrong {k}": FailedPeer(k) for k in range(4)}}
    return Recipe(RLCSDAdvantage(), views, teacher=partial(refreshed_teacher, every=10), n=GROUP)


@dataclass(frozen=True)
class SpikeSegments:
    """From a token whose k is above `spike` until the entropy rises, all take that token's k; else 0.

    k is -D where the teacher disagrees and 0 elsewhere, over its largest of the step. A segment ends where the entropy is above
    `rise` times that of its first token.
    """

    spike: float = 0.1
    rise: float = 1.5

    def __call__(self, columns: Mapping[str, Tensor]) -> Tensor:
        """Return the signal [N]."""
        k = (-columns["gap"].float()).clamp(min=0)
        k = (k / k.max().clamp(min=1e-8)).tolist()
        entropy, rollout = columns["student_entropy"].tolist(), columns["rollout"].tolist()
        found, held, first = [], 0.0, 0
        for i, value in enumerate(k):
            if i and (rollout[i] != rollout[i - 1] or entropy[i] > self.rise * entropy[first]):
                held = 0.0
            if not held and value > self.spike:
                held, first = value, i
            found.append(held)
        return torch.tensor(found, device=columns["gap"].device)


@dataclass(frozen=True)
class GEARAdvantage(WithTeacher):
    """A times `spread` w + 1 - `spread` / 2, w the segment's weight, turned round where A is positive."""

    spread: float = 0.2

    def token_advantages(self, student: Side, teachers: Teachers, tokens: Tokens) -> Tensor:
        """Return the advantages [n]."""
        k = tokens["segment"].to(tokens.advantage)
        weight = torch.where(tokens.advantage > 0, 1 - k, k)  # what the teacher dislikes earns less, and is punished more
        return tokens.advantage * (self.spread * weight + 1 - self.spread / 2)


@method("GEAR", "2605.11853", "note")
def gear() -> Recipe:
    """A_t = A (.2 w + .9): a spike of -D above .1 opens a segment, which keeps that token's weight until the entropy rises.

    Defaults: 8 rollouts a problem, live teacher with the reference. Unconfirmed: how -D is scaled (0 where it is negative, and over
    the step's largest, here), the rule of signs, and that k is 0 outside of segments. Differs: no KL to a reference policy.
    """
    signals = {"segment": SpikeSegments()}
    return Recipe(GEARAdvantage(), reference_solution, teacher=live_teacher, signals=signals, n=GROUP)


@method("dGRPO", "2605.12227", "note")
def dgrpo(weight: float = 0.5) -> Recipe:
    """GRPO + b RKL, b = .5. Differs: the paper's teacher is a larger model; a self-teacher is clearly worse there."""
    return Recipe(Sum((GRPO(), OPSD(reverse_kl)), (1.0, weight)), reference_solution, n=GROUP)


@dataclass(frozen=True)
class CEPOAdvantage(RLSDAdvantage):
    """RLSD's form with D+ - D-, the gaps under the right and under a wrong solution."""

    width: float = 0.5

    def evidence(self, student: Side, teachers: Teachers, tokens: Tokens) -> Tensor:
        """Return D+ - D- [n]; D- is 0 where there is no wrong solution."""
        seen = teachers.seen.get("wrong", torch.ones_like(tokens.ids, dtype=torch.bool))
        against = torch.where(seen, teachers["wrong"].of(tokens.ids), student.of(tokens.ids))
        return teachers["right"].of(tokens.ids) - against

    needed_views = ("right",)


@method("CEPO", "2605.19436", "paper")
def cepo(steps: int = 25) -> Recipe:
    """A_t = A [(1 - l) + l clip(exp(sign(A) (D+ - D-)), 1 +- .5)], l from .5 to 0 over 25 steps; D- is 0 without a wrong attempt.

    Both solutions stand under the same words, so that the contrast is what they say.
    """
    views = {"right": bare_solution, "wrong": FailedPeer()}
    return Recipe(CEPOAdvantage(share=Linear(0.5, 0.0, steps)), views, n=GROUP)


@dataclass(frozen=True)
class DirectionSignal:
    """omega * mean D of the rollout, omega = tanh((lowest fifth of H - H) / scale) sigmoid(|D| - 1)."""

    scale: float = 1.0

    def __call__(self, columns: Mapping[str, Tensor]) -> Tensor:
        """Return the signal [N]."""
        gap, entropy, rollout = columns["gap"].float(), columns["student_entropy"].float(), columns["rollout"].long()
        count = torch.bincount(rollout).clamp(min=1)
        mean = torch.zeros(len(count), device=gap.device).index_add_(0, rollout, gap) / count
        omega = ((entropy.quantile(0.2) - entropy) / self.scale).tanh() * torch.sigmoid(gap.abs() - 1)
        return omega * mean[rollout]


@dataclass(frozen=True)
class PlusSignal(WithTeacher):
    """A + weight times a mark or a signal of the token."""

    by: str = "direction"
    weight: float = 1.0

    def token_advantages(self, student: Side, teachers: Teachers, tokens: Tokens) -> Tensor:
        """Return the advantages [n]."""
        return tokens.advantage + self.weight * tokens[self.by]


@method("DASD", "2605.22263", "paper")
def dasd(weight: float = 1.0) -> Recipe:
    """A_t = A + b omega mean D, omega = tanh((tau - H) / s) sigma(|D| - 1), tau the lowest fifth of the entropies.

    The mean D is the rollout's, tau the step's. Unconfirmed: b and s (1 here).
    """
    signals = {"direction": DirectionSignal()}
    return Recipe(PlusSignal(weight=weight), reference_solution, signals=signals, n=GROUP)


@dataclass(frozen=True)
class GatedReverseKL(OPSD):
    """sigmoid(steepness * D) * KL(S || T), no gradient through the gate."""

    steepness: float = 5.0

    def loss(self, student: Side, teachers: Teachers, tokens: Tokens) -> Tensor:
        """Return the losses [n]."""
        gap = (teachers.only.of(tokens.ids) - student.of(tokens.ids)).detach()
        return torch.sigmoid(self.steepness * gap) * super().loss(student, teachers, tokens)


@method("SDAR", "2605.15155", "note")
def sdar() -> Recipe:
    """GRPO + .01 sigma(5 D) RKL, no gradient through the gate; live teacher.

    Differs: RKL is that of the whole vocabulary, not of the sampled token.
    """
    objective = Sum((GRPO(), GatedReverseKL(reverse_kl)), (1.0, 0.01))
    return Recipe(objective, reference_solution, teacher=live_teacher, n=GROUP)
