"""Methods that go by steps and spans of a rollout's text; letters as in `contexts`."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from opsd_lab.basics.schedules import Linear
from opsd_lab.contexts.views import answer_only, reference_solution
from opsd_lab.divergences import Side, forward_kl, reverse_kl
from opsd_lab.methods.method import method
from opsd_lab.objectives import GRPO, OPSD, Route, Scaled, Sum, Teachers, Tokens, rewarded
from opsd_lab.policies.teachers import refreshed_teacher
from opsd_lab.steps.marks import SegmentNumbers, equation_verdicts
from opsd_lab.training.recipes import Recipe

Columns = Mapping[str, Tensor]


@dataclass(frozen=True)
class MarginRecorded(OPSD):
    """A divergence that records the teacher's margin: its probability of the token less the mean over the student's top k."""

    top_k: int = 16

    def loss(self, student: Side, teachers: Teachers, tokens: Tokens) -> Tensor:
        """Return the divergences [n]."""
        _, ids = student.detached().top(self.top_k)
        elsewhere = teachers.only.probabilities.gather(-1, ids).mean(-1)
        tokens.record(margin=teachers.only.of(tokens.ids).exp() - elsewhere)
        return super().loss(student, teachers, tokens)


@dataclass(frozen=True)
class BeforeTheDrop:
    """1 up to the sentence at which the mean margin drops for good, by the Bayesian information criterion; all where it does not."""

    penalty: float = 1.0

    def __call__(self, columns: Columns) -> Tensor:
        """Return the weights [N]."""
        weights = torch.ones_like(columns["margin"])
        for rollout in columns["rollout"].unique():
            rows = (columns["rollout"] == rollout).nonzero()[:, 0]
            sentence = columns["sentence"][rows].long()
            sizes = torch.bincount(sentence).clamp(min=1)
            means = torch.zeros(len(sizes), device=sizes.device).index_add_(0, sentence, columns["margin"][rows].float()) / sizes
            if (cut := self.change_point(means)) is not None:
                weights[rows[sentence >= cut]] = 0.0
        return weights

    def change_point(self, means: Tensor) -> int | None:
        """Return from which sentence on the mean is lower, if two levels explain `means` [K] better than one."""
        count, best, found = len(means), float("inf"), None
        one = count * ((means - means.mean()).square().mean() + 1e-8).log()
        for cut in range(1, count):
            before, after = means[:cut], means[cut:]
            left = (before - before.mean()).square().sum() + (after - after.mean()).square().sum()
            score = float(count * (left / count + 1e-8).log()) + 2 * self.penalty * torch.tensor(float(count)).log().item()
            if after.mean() < before.mean() and score < best:
                best, found = score, cut
        return found if best < float(one) else None


@method("Prefix Teach", "2605.13643", "abstract")
def prefix_teach() -> Recipe:
    """Reverse KL up to the sentence at which the teacher's margin on the student's top k drops, by a change point.

    Unconfirmed: k (16 here), the margin's form and the penalty's constant. Differs: full vocabulary in place of the sampled token.
    """
    return Recipe(MarginRecorded(reverse_kl), reference_solution, weights=BeforeTheDrop(), marks={"sentence": SegmentNumbers()})


def in_a_span(tokens: Tokens) -> Tensor:
    """Return which tokens [n] lie in equations that hold, of right rollouts, or that do not hold, of wrong ones."""
    tokens.need("TRACE", ("outcome",))
    verdict = tokens["verdict"]
    return torch.where(tokens.outcome > 0, verdict > 0, verdict < 0)


KEY_SPANS = Route(rewarded, OPSD(forward_kl, pointwise_clip=0.05), OPSD(reverse_kl, pointwise_clip=0.05))


@method("TRACE", "2605.10194", "paper")
def trace() -> Recipe:
    """Forward KL on key spans of right rollouts and reverse KL on error spans of wrong ones, times l, and 1 - l / .5 of GRPO.

    GRPO alone elsewhere; l is .5 for 10 steps and falls to 0 over 30 more. Defaults: clip .05, the teacher a copy taken anew every
    10 steps. Differs: both kinds of spans count, where the paper takes one of them by how strong the base is; spans are the
    equations that `label_steps` judges, however many, where the paper's are at most a quarter of the tokens; the teacher sees the
    answer, where the paper shows a coarse type of error that a model annotates.
    """
    inside = Sum((KEY_SPANS, GRPO()), (Linear(0.5, 0.0, 30, after=10), Linear(0.0, 1.0, 30, after=10)))
    teacher, marks = partial(refreshed_teacher, every=10), {"verdict": equation_verdicts}
    return Recipe(Route(in_a_span, inside, GRPO()), answer_only, teacher=teacher, marks=marks, n=8)


@dataclass(frozen=True)
class StepDecay:
    """w_1 = 1, w_k = min(product over u < k of (d_u + e) / (d_(u+1) + e), most), d_u the mean |D| of a rollout's u-th sentence."""

    most: float = 1.2
    e: float = 1e-2

    def __call__(self, columns: Columns) -> Tensor:
        """Return the signal [N]."""
        found = torch.ones_like(columns["gap"], dtype=torch.float32)
        for rollout in columns["rollout"].unique():
            rows = (columns["rollout"] == rollout).nonzero()[:, 0]
            step = columns["sentence"][rows].long()
            sums = torch.zeros(int(step.max()) + 1, device=step.device).index_add_(0, step, columns["gap"][rows].abs().float())
            means = sums / torch.bincount(step).clamp(min=1) + self.e
            found[rows] = (means[0] / means).clamp(max=self.most)[step]  # the product telescopes
        return found


@method("SOD", "2605.07725", "code")
def sod() -> Recipe:
    """GRPO + w_k RKL, w_1 = 1, w_k = min(product of (d_u + e) / (d_(u+1) + e), 1.2), d_u the mean |D| of a rollout's u-th step.

    Unconfirmed: e. Differs: steps are sentences, not tool calls, and the teacher is the model itself with the solution.
    """
    objective = Sum((GRPO(), Scaled(OPSD(reverse_kl), "step decay")), (1.0, 1.0))
    return Recipe(objective, reference_solution, marks={"sentence": SegmentNumbers()}, signals={"step decay": StepDecay()}, n=8)
