"""Methods that say which tokens count, and how much; letters as in `contexts`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from opsd_lab.basics.controllers import RunningMean
from opsd_lab.basics.schedules import Varying
from opsd_lab.contexts.views import View, reference_solution
from opsd_lab.divergences import Side, forward_kl, reverse_kl
from opsd_lab.methods.advantages import RLSDAdvantage
from opsd_lab.methods.contexts import FirstTokens
from opsd_lab.methods.method import method
from opsd_lab.objectives import (
    OPSD,
    PolicyGradient,
    Teachers,
    Tokens,
)
from opsd_lab.policies.teachers import live_teacher
from opsd_lab.rollouts import sample_rollouts
from opsd_lab.supervision import build_examples, score_rollouts
from opsd_lab.training.recipes import Recipe
from opsd_lab.training.start import Start

Columns = Mapping[str, Tensor]


@dataclass(frozen=True)
class PositionSigmoid:
    """least + (1 - least) sigmoid((r - middle) / width), r = (position + .5) / length."""

    least: float = 0.25
    middle: float = 0.30
    width: float = 0.10
    divided_out = False

    def __call__(self, columns: Columns) -> Tensor:
        """Return the weights [N]."""
        place = (columns["position"] + 0.5) / columns["length"]
        return self.least + (1 - self.least) * torch.sigmoid((place - self.middle) / self.width)


@method("PW-OPSD", "2605.21606", "code")
def pw_opsd(least: float = 0.25) -> Recipe:
    """Clipped forward KL times w(r) = .25 + .75 sigma((r - .30) / .10), r = (index - .5) / length; its mean per sequence first."""
    objective = OPSD(forward_kl, pointwise_clip=0.05)
    return Recipe(objective, reference_solution, weights=PositionSigmoid(least), training={"normalisation": "sequence"})


@dataclass(frozen=True)
class EntropyGate:
    """max(least, 1 - gamma H / max(largest H of the step, 1 nat)), H the teacher's entropy or its least within `window` tokens on."""

    gamma: float = 0.1
    window: int = 0
    least: float = 0.1
    needs_step = True
    divided_out = False

    def __call__(self, columns: Columns) -> Tensor:
        """Return the weights [N]."""
        entropy = columns["teacher_entropy"]
        ahead = entropy.clone()
        for shift in range(1, self.window + 1):
            same = columns["rollout"][shift:] == columns["rollout"][:-shift]
            ahead[:-shift] = torch.where(same, torch.minimum(ahead[:-shift], entropy[shift:]), ahead[:-shift])
        return (1 - self.gamma * ahead / entropy.max().clamp(min=1.0)).clamp(self.least, 1.0)


@dataclass(frozen=True)
class WhitenedRatio(RLSDAdvantage):
    """A clip(exp(sign(A) D), 1 - width, 1 + width), A the reward less its running mean, over its running deviation."""

    share: float | Varying = 1.0
    mean: float | Varying = field(default_factory=lambda: RunningMean("reward"))
    square: float | Varying = field(default_factory=lambda: RunningMean("reward_square"))
    needs_groups = False

    def advantages(self, rewards: Sequence[float], groups: Sequence[str]) -> list[float]:
        """Return (reward - mean) / (deviation + 1e-4) for each rollout."""
        deviation = max(self.square - self.mean**2, 0.0) ** 0.5
        return [(reward - self.mean) / (deviation + 1e-4) if deviation else reward - self.mean for reward in rewards]


@method("EGRSD", "2605.13255", "note")
def egrsd(gamma: float = 0.1) -> Recipe:
    """-A w g log S(y): w = clip(exp(sign(A) D)), g = max(.1, 1 - gamma H_T / max(largest H_T of the batch, 1 nat)); mean over tokens.

    Defaults: frozen teacher (a moving one fails), one rollout a problem, A whitened by the running moments of the steps before, and
    in the first step the reward. Unconfirmed: the clip of w (.2 here) and the reward's adjustment by length, which is left out.
    Differs: the ratio to the sampler is clipped at .2, as in GRPO.
    """
    return Recipe(WhitenedRatio(), reference_solution, weights=EntropyGate(gamma))


@method("CL-EGRSD", "2605.13255", "note")
def cl_egrsd(gamma: float = 0.1, window: int = 5) -> Recipe:
    """EGRSD with the least H_T of the token and the 5 after it in place of H_T."""
    return replace(egrsd(), weights=EntropyGate(gamma, window))


@method("Prefix OPD", "2602.15260", "paper")
def prefix_opd(count: int = 32) -> Recipe:
    """Reverse KL on the first k tokens, of which no more are drawn. Differs: the teacher sees the solution; k is 32 here."""
    sampling, kept = {"max_new_tokens": count}, {"truncated": "keep"}
    return Recipe(OPSD(reverse_kl), reference_solution, weights=FirstTokens(count), sampling=sampling, training=kept)


@dataclass(frozen=True)
class LeaveOut:
    """Weighs tokens of some ids 0 and all others 1."""

    ids: tuple[int, ...]

    def __call__(self, columns: Columns) -> Tensor:
        """Return the weights [N]."""
        return (~torch.isin(columns["ids"], torch.tensor(self.ids, device=columns["ids"].device))).float()


@dataclass(frozen=True)
class RockTokens:
    """The weights that leave out the token types of the largest frequency times mean divergence, found on rollouts before training.

    Of the ranked types the `first` most frequent are passed over and the next `count` left out. `problems` are drawn for it, one
    rollout each, and billed. `view` is what the teacher sees.
    """

    view: View = reference_solution
    problems: int = 500
    first: int = 5
    count: int = 100

    def begin(self, start: Start) -> LeaveOut:
        """Return the weights, from the initial policy's own rollouts."""
        problems = list(start.problems[: self.problems])
        rollouts = sample_rollouts(start.sampler, start.contexts, problems, replace(start.sampling, n=1))
        examples = build_examples(replace(start.contexts, view=self.view), problems, rollouts)
        found = score_rollouts(start.policy, live_teacher(), OPSD(reverse_kl), examples, progress=False).frame
        start.bill_scoring(rollouts, examples)
        types = found.groupby("token_id")["divergence"].agg(["size", "mean"])
        ultra_frequent = set(types["size"].nlargest(self.first).index)
        ranked = (types["size"] * types["mean"]).sort_values(ascending=False).index
        return LeaveOut(tuple([int(i) for i in ranked if i not in ultra_frequent][: self.count]))


@method("Rock tokens", "2605.09253", "code")
def rock_tokens(count: int = 100, first: int = 5, problems: int = 500) -> Recipe:
    """Reverse KL without the token types of ranks 1 to 100 by frequency times mean reverse KL, the 5 most frequent kept.

    Defaults: ranked on 500 rollouts of the initial policy; divided by the weights' sum. Differs: the high-divergence window
    around such a token is not frozen.
    """
    return Recipe(OPSD(reverse_kl), reference_solution, weights=RockTokens(count=count, first=first, problems=problems))


@dataclass(frozen=True)
class EntropyOrDivergence:
    """1 for the `share` of the step's tokens with the largest h + d - h d, entropy and divergence each scaled to [0, 1]; else 0."""

    share: float = 0.5
    needs_step = True

    def __call__(self, columns: Columns) -> Tensor:
        """Return the weights [N]."""
        h, d = (self.scaled(columns[name].float()) for name in ("student_entropy", "divergence"))
        score = h + d - h * d
        return (score >= score.quantile(1 - self.share)).float()

    @staticmethod
    def scaled(values: Tensor) -> Tensor:
        """Return values [N] cut at their .02 and .98 quantiles, then from 0 to 1."""
        low, high = values.quantile(0.02), values.quantile(0.98)
        return (values.clamp(low, high) - low) / (high - low).clamp(min=1e-8)


@method("TIP", "2604.14084", "paper")
def tip(share: float = 0.5) -> Recipe:
    """Reverse KL on the half of the tokens with the largest h + d - h d, h the student's entropy, d the reverse KL, scaled to [0, 1].

    Defaults: the top 50 or 20 %, cut at the 2 % quantiles first. Differs: the authors' code draws tokens in proportion to powers
    of both instead.
    """
    return Recipe(OPSD(reverse_kl), reference_solution, weights=EntropyOrDivergence(share))


@dataclass(frozen=True)
class Improbable:
    """-1/2 - (H - least H) / (2 (largest H - least H)) for the `share` of the step's least probable tokens, 0 for all others."""

    share: float = 0.2

    def __call__(self, columns: Columns) -> Tensor:
        """Return the signal [N]."""
        entropy, logprob = columns["student_entropy"].float(), columns["student_logprob"].float()
        chosen = logprob <= logprob.quantile(self.share)
        low, high = entropy[chosen].min(), entropy[chosen].max()
        return torch.where(chosen, -0.5 - (entropy - low) / (2 * (high - low).clamp(min=1e-8)), 0.0)


@dataclass(frozen=True)
class SignalledGradient(PolicyGradient):
    """The clipped policy gradient of an advantage that is a mark or a signal of the token; it has no teacher."""

    by: str = "advantage"
    needs_teacher = False

    def token_advantages(self, student: Side, teachers: Teachers, tokens: Tokens) -> Tensor:
        """Return the advantages [n]."""
        return tokens[self.by]


@method("OPSA", "2608.31046", "paper")
def opsa() -> Recipe:
    """A = -1/2 - (H - H_min) / (2 (H_max - H_min)) for the fifth of the tokens that were least probable; no teacher, no reference.

    Unconfirmed: that the fifth and the range of H are those of the step, and that the mean is over all its tokens.
    """
    return Recipe(SignalledGradient(by="improbable"), signals={"improbable": Improbable()})


@dataclass(frozen=True)
class OverlapRecorded(OPSD):
    """A divergence that records the share of each side's k most probable tokens that both have."""

    top_k: int = 16

    def loss(self, student: Side, teachers: Teachers, tokens: Tokens) -> Tensor:
        """Return the divergences [n]."""
        _, ours = student.detached().top(self.top_k)
        _, theirs = teachers.only.top(self.top_k)
        shared = (ours[:, :, None] == theirs[:, None, :]).any(-1).float().mean(-1)
        tokens.record(overlap=shared)
        return super().loss(student, teachers, tokens)


@dataclass(frozen=True)
class DriftCount:
    """clip(1 - rate * n, 0, 1) + base, n how many tokens of the rollout so far had an overlap below `least`."""

    rate: float = 0.05
    base: float = 0.1
    least: float = 0.5

    def __call__(self, columns: Columns) -> Tensor:
        """Return the weights [N]."""
        drifted = (columns["overlap"] < self.least).float()
        events = drifted.cumsum(0)
        first = columns["position"] == 0
        before = torch.where(first, events - drifted, torch.zeros_like(events))
        events = events - before[first][first.long().cumsum(0) - 1]
        return (1 - self.rate * events).clamp(0, 1) + self.base


@method("PRUNE-OPD", "2605.07804", "note")
def prune_opd(rate: float = 0.05) -> Recipe:
    """Reverse KL weighed by clip(1 - w n, 0, 1) + base, n the tokens so far at which both sides' top k overlap too little.

    Unconfirmed: w, base, k and the overlap (.05, .1, 16, .5 here). Differs: the length cap does not adapt.
    """
    return Recipe(OverlapRecorded(reverse_kl), reference_solution, weights=DriftCount(rate))
