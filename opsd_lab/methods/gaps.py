"""Methods whose policy gradient follows the teacher's log-probability, without outcomes; letters as in `contexts`."""

from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from opsd_lab.contexts.views import OtherProblem, Shown, reference_solution
from opsd_lab.divergences import Side
from opsd_lab.methods.method import method
from opsd_lab.objectives import GapGradient, PolicyGradient, Teachers, Tokens
from opsd_lab.policies.teachers import ema_teacher
from opsd_lab.problems.problem import Problem
from opsd_lab.training.recipes import Recipe


def _top_forward_kl(student: Side, teacher: Side, k: int) -> Tensor:
    """Return FKL over the teacher's k most probable tokens [n], the teacher renormalised on them, the student not."""
    logprobs, ids = teacher.top(k)
    theirs = logprobs.log_softmax(-1)
    return (theirs.exp() * (theirs - student.logprobs.gather(-1, ids))).sum(-1)


@dataclass(frozen=True)
class EOPDLoss(GapGradient):
    """The clipped policy gradient of D, and forward KL where the teacher is unsure."""

    least_entropy: float = 0.8
    top_k: int = 16

    def loss(self, student: Side, teachers: Teachers, tokens: Tokens) -> Tensor:
        """Return PG(D) + 1[H_T > least] sum over the teacher's top k of T' log(T' / S), T' renormalised [n]."""
        kl = _top_forward_kl(student, teachers.only, self.top_k)
        return super().loss(student, teachers, tokens) + (teachers.only.entropy > self.least_entropy) * kl


@method("EOPD", "2603.07079", "code")
def eopd() -> Recipe:
    """PPO-clipped policy gradient of D, plus 1[H_T > .8] FKL on the teacher's 16 most probable tokens.

    Defaults: clip .2; the teacher is renormalised on its 16 tokens, the student is not.
    """
    return Recipe(EOPDLoss(), reference_solution)


@dataclass(frozen=True)
class AOPDLoss(GapGradient):
    """Policy gradient of D where the teacher prefers the token, forward KL on its most probable tokens elsewhere."""

    top_k: int = 32

    def loss(self, student: Side, teachers: Teachers, tokens: Tokens) -> Tensor:
        """Return the losses [n]."""
        preferred = teachers.only.of(tokens.ids) > student.of(tokens.ids).detach()
        return torch.where(preferred, super().loss(student, teachers, tokens), _top_forward_kl(student, teachers.only, self.top_k))


@method("AOPD", "2605.06387", "note")
def aopd() -> Recipe:
    """Policy gradient of D where T(y) > S(y), else FKL on the teacher's 32 most probable tokens.

    Unconfirmed: that the teacher is renormalised on them and the student is not. Differs: the teacher is the model itself with the
    solution.
    """
    return Recipe(AOPDLoss(), reference_solution)


@method("REOPOLD", "2603.11137", "code")
def reopold() -> Recipe:
    """Policy gradient of max(D, -2.56). Differs: no masks by phase; the teacher is the model itself with the solution."""
    return Recipe(GapGradient(least=-2.56), reference_solution)


@dataclass(frozen=True)
class OtherQuestion:
    """Shows the problem's own solution under another problem's question; the training problems are the donors."""

    other: OtherProblem = field(default_factory=OtherProblem)

    def __call__(self, problem: Problem) -> Shown:
        """Return what is shown."""
        return Shown(reference_solution(problem, closing=self.other.closing), question=self.other.donor(problem).question)


@dataclass(frozen=True)
class CREDITAdvantage(PolicyGradient):
    """log T(y | x, z) - weight * log T(y | x', z) - log S(y | x)."""

    weight: float = 0.1

    def token_advantages(self, student: Side, teachers: Teachers, tokens: Tokens) -> Tensor:
        """Return the advantages [n]."""
        own, other = (teachers[name].of(tokens.ids) for name in ("own", "other question"))
        return own - self.weight * other - student.of(tokens.ids)


@method("CREDIT", "2605.11613", "note")
def credit(weight: float = 0.1) -> Recipe:
    """R_t = log T(y | x, z) - l log T(y | x', z) - log S(y | x): the same solution z under another question x', l = .1.

    Defaults: one other question (8 are best), moving average .01. l = 0 is the sampled token alone, l >= .5 collapses. Differs: z
    is the reference; the other question is one of the training problems', the same throughout, not one of the batch's; one rollout a
    problem, not 8; R_t is the policy gradient's advantage on its own.
    """
    views = {"own": reference_solution, "other question": OtherQuestion()}
    return Recipe(CREDITAdvantage(weight=weight), views, teacher=partial(ema_teacher, decay=0.99))
