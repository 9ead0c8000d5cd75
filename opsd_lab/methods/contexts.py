"""Methods that change what the teacher sees.

In all formulas S is the student's distribution at a token, T the teacher's, y the token that was written, D = log T(y) - log S(y)
without gradient, A a rollout's advantage, H an entropy. FKL is KL(T || S), RKL is KL(S || T).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from opsd_lab.basics.controllers import BetaBandit
from opsd_lab.basics.schedules import Linear
from opsd_lab.contexts.peers import MixedPeers, ShortestPeer, SuccessfulPeer
from opsd_lab.contexts.views import OWN_WORDS, OtherProblem, PartialSolution, Shown, WrittenView, reference_solution
from opsd_lab.divergences import Side, forward_kl, jsd, reverse_kl
from opsd_lab.evaluation.rewards import by_majority
from opsd_lab.methods.method import method
from opsd_lab.objectives import OPSD, SampledTokenOPSD, Teachers
from opsd_lab.policies.teachers import ema_teacher, refreshed_teacher
from opsd_lab.problems.problem import Problem
from opsd_lab.rollouts.gates import incorrect_only
from opsd_lab.training.recipes import Recipe

ANALYSE = "Explain the key steps of this solution. Do not solve the problem anew."
CONCISE = "Be concise: leave out what is not needed, and keep every step that is."


@method("OPSD, JSD", "2601.18734", "code")
def opsd() -> Recipe:
    """JSD with beta .5 between T(. | question, solution) and S, one rollout a problem, the initial policy as teacher (version 1).

    Defaults: the paper draws at temperature 1.2 and divides both sides' logits by 1.1; here the study's sampling stands. Differs: the
    mean is over the tokens of a step; `normalisation = "sequence"` is the paper's, over rollouts of the mean of each.
    """
    return Recipe(OPSD(jsd(0.5)), reference_solution)


@method("OPSD, clipped forward KL", "2601.18734", "code")
def opsd_clipped() -> Recipe:
    """Sum over v of min(T log(T / S), tau), tau = .05 (version 3).

    Defaults: tau .05 for 1.7B and 4B, .06 for 8B, 1e-6 to 1e-7 where both sides do not think. A small tau turns the gradient round.
    Differs: the mean, as in the JSD's.
    """
    return Recipe(OPSD(forward_kl, pointwise_clip=0.05), reference_solution)


@method("OPSD, sampled token", "2601.18734", "code")
def opsd_sampled_token() -> Recipe:
    """-D log S(y), the policy-gradient form. Differs: the mean, as in the JSD's."""
    return Recipe(SampledTokenOPSD(), reference_solution)


def to_be_analysed(problem: Problem) -> Shown:
    """Show the verified solution and ask for an analysis of it, and for nothing else."""
    return Shown(reference_solution(problem, closing=ANALYSE), instruction="")


def with_analysis(problem: Problem, text: str) -> str:
    """Show the verified solution, the teacher's own analysis of it behind, and the sentence that closes a solution."""
    return f"{reference_solution(problem, closing='')}\nYour own analysis of it:\n{text}\n{OWN_WORDS}"


@method("OPSD, reason first", "2601.18734", "code")
def reason_first(max_new_tokens: int = 64) -> Recipe:
    """Clipped forward KL to T(. | question, solution, the teacher's own analysis of the solution), which the teacher writes first.

    Defaults: the paper allows 4,096 tokens of analysis. Here it is written anew at each step, and billed.
    """
    return Recipe(OPSD(forward_kl, pointwise_clip=0.05), WrittenView(to_be_analysed, with_analysis, max_new_tokens))


@method("SDFT", "2601.19897", "paper")
def sdft() -> Recipe:
    """Forward KL to an exponential moving average that sees a demonstration.

    Defaults: printed as reverse KL; the revision of August 2026 favours forward KL. Differs: the demonstration is the reference
    solution, and no first tokens are skipped. The average's decay, .99, is unconfirmed.
    """
    return Recipe(OPSD(forward_kl), reference_solution, teacher=partial(ema_teacher, decay=0.99))


@method("SDPO", "2601.20802", "code")
def sdpo() -> Recipe:
    """JSD with beta .5 on the student's 100 most probable tokens and a tail, to T(. | a right attempt of the same group).

    Defaults: 8 rollouts a problem, moving average .05, importance ratio cut at 2. The view is never the rollout itself: the one
    right attempt of a group has none, and does not count. Differs: there is no feedback text to fall back on, and an attempt is
    shown with its thinking part.
    """
    objective = OPSD(jsd(0.5), vocab_top_k=100, support="student")
    teacher = partial(ema_teacher, decay=0.95)
    return Recipe(objective, SuccessfulPeer(), teacher=teacher, n=8, training={"importance_cap": 2.0})


@method("MOPD", "2605.12652", "note")
def mopd() -> Recipe:
    """Reverse KL to T(. | up to two right attempts of the group and up to one wrong), the mean over the group's rollouts.

    Defaults: 8 rollouts a problem; reverse KL on mathematics, JSD elsewhere. Unconfirmed: whose weights teach (the initial here).
    Differs: one right attempt is enough.
    """
    return Recipe(OPSD(reverse_kl), MixedPeers(right=2, wrong=1), n=8, training={"normalisation": "sequence"})


def concise(problem: Problem) -> str:
    """Show the instruction to be concise."""
    return CONCISE


@method("CRISP", "2603.05433", "code")
def crisp() -> Recipe:
    """Reverse KL to T(. | question, "be concise"), the teacher a copy of the student that is taken anew every 50 steps.

    Defaults: 40 to 60 steps are stable, 10 degrade, 1 collapses; forward KL collapses. No references are needed.
    """
    return Recipe(OPSD(reverse_kl), concise, teacher=partial(refreshed_teacher, every=50))


@dataclass(frozen=True)
class WorkedExample(OtherProblem):
    """Shows another problem with its solution, as a worked example that has nothing to do with the question, and then `closing`."""

    closing: str = "Now solve the problem above."

    def __call__(self, problem: Problem) -> str:
        """Return the text."""
        other = self.donor(problem)
        if not other.solution.strip():
            raise ValueError(f"problem {other.id!r}, a donor, has no solution; leave it out of the donors, or give it one")
        shown = ["Here is a worked example of an unrelated problem:", other.question, other.solution, self.closing]
        return "\n".join(filter(None, shown))


@method("OP2SD", "2608.09228", "code")
def op2sd(clip: float = 0.05) -> Recipe:
    """Clipped forward KL to T(. | question, another problem with its solution).

    Defaults: tau .05 (1.7B), 1e-6 (4B), 1e-7 (8B), of which the small ones turn the gradient round. Differs: the donors are the
    training problems, not a pool of their own.
    """
    return Recipe(OPSD(forward_kl, pointwise_clip=clip), WorkedExample())


@method("ATESD, fixed", "2605.11458", "paper")
def atesd_fixed(share: float = 0.5) -> Recipe:
    """Clipped forward KL to T(. | question, the first share of the solution, the answer), share .5.

    Differs: the share is of the solution's characters, up to a whole word, not of its segments.
    """
    return Recipe(OPSD(forward_kl, pointwise_clip=0.05), PartialSolution(share, answer=True))


@method("ATESD, scheduled", "2605.11458", "paper")
def atesd_scheduled(steps: int = 100) -> Recipe:
    """Clipped forward KL to T(. | question, the first share of the solution, the answer), the share falling from 1 to .1.

    Differs: the paper schedules no share; this is a control for its bandit, with the share a function of the step alone.
    """
    view = PartialSolution(Linear(1.0, 0.1, steps), answer=True)
    return Recipe(OPSD(forward_kl, pointwise_clip=0.05), view)


@method("ATESD, bandit", "2605.11458", "paper")
def atesd_bandit() -> Recipe:
    """Clipped forward KL to T(. | question, the first share of the solution, the answer), the share drawn from a learnt Beta.

    Unconfirmed: how long a share is held (5 steps here) and the discount (.9). Differs: the Beta's two parameters are learnt
    themselves, within bounds, without a network on statistics of training and its cap on the entropy; the reward is of the share's
    own steps, not of 20 ahead, and leaves out the teacher's log-probability of the reference.
    """
    return Recipe(OPSD(forward_kl, pointwise_clip=0.05), PartialSolution(BetaBandit(), answer=True))


@dataclass(frozen=True)
class FirstTokens:
    """Weighs the first `count` tokens of a rollout 1 and the others 0."""

    count: int

    def __call__(self, columns: Mapping[str, Tensor]) -> Tensor:
        """Return the weights [N]."""
        return (columns["position"] < self.count).float()


@method("u-OPSD", "2608.06296", "paper")
def u_opsd(prefix: int = 32) -> Recipe:
    """Forward KL to T(. | the shortest attempt with the majority's answer), on rollouts that disagree, their first tokens only.

    Defaults: the answer that most attempts give is the majority's, however few they are (tau = 0); slow moving average. Unconfirmed:
    that tau bounds the majority's share, forward KL, the prefix's length and the decay, .999. Differs: all disagreeing rollouts
    count, where the paper keeps the longest but one.
    """
    view, teacher, rewards = ShortestPeer(), partial(ema_teacher, decay=0.999), partial(by_majority, share=0.0)
    return Recipe(OPSD(forward_kl), view, teacher=teacher, gate=incorrect_only, weights=FirstTokens(prefix), rewards=rewards, n=8)


def own_attempt(problem: Problem, rollout: object, group: object) -> Shown | None:
    """Show a wrong attempt and ask what went wrong in it; None for an attempt that is right."""
    wrong = all(reward <= 0 for peer, reward in zip(group.rollouts, group.rewards, strict=True) if peer is rollout)
    asked = f"An attempt that is wrong:\n{rollout.text}\nSay what went wrong."
    return Shown(f"{reference_solution(problem, closing='')}\n{asked}", instruction="") if wrong else None


def with_reflection(problem: Problem, text: str) -> str:
    """Show the verified solution, and what the teacher says went wrong in the attempt."""
    return f"{reference_solution(problem, closing='')}\nWhat went wrong in an attempt:\n{text}"


@dataclass(frozen=True)
class FlooredRatio:
    """The teacher, its probabilities no smaller than `floor` times the student's; not normalised again."""

    floor: float

    def __call__(self, student: Side, teachers: Teachers) -> Side:
        """Return the target."""
        least = student.logprobs + math.log(self.floor)
        return Side.of_logprobs(torch.maximum(teachers["teacher"].logprobs, least))


@method("RESD", "2605.12741", "note")
def resd(max_new_tokens: int = 64) -> Recipe:
    """Sum over v of -S log max(T / S, .2), T seeing the solution and the teacher's reflection on the rollout, on wrong rollouts.

    Defaults: the floor .2 of the ratio, moving average 1e-4, 4 updates on the same rollouts. Differs: the whole vocabulary, not the
    student's 100 most probable tokens; no notes are kept from step to step; the teacher that scores sees the reference, not a stored
    solution, and not the attempt; right rollouts do not count at all. Unconfirmed: that no gradient goes through S in the floor.
    """
    objective = OPSD(reverse_kl, target=FlooredRatio(0.2))
    view, teacher = WrittenView(own_attempt, with_reflection, max_new_tokens), partial(ema_teacher, decay=0.9999)
    return Recipe(objective, view, teacher=teacher, training={"passes": 4})


def sure_teacher_unsure_student(columns: Mapping[str, Tensor]) -> Tensor:
    """Return exp(-H_T) (1 - S(y)): large where the teacher is sure and the student is not."""
    return torch.exp(-columns["teacher_entropy"]) * (1 - columns["student_logprob"].exp())


@method("MSD's form", "2605.02971", "note")
def msd() -> Recipe:
    """Reverse KL weighed by w_T w_S: w_T high where the teacher's entropy is low, w_S = 1 - S(y).

    Unconfirmed: the forms of w_T and w_S. Differs: the teacher sees the solution, not a translation with an instruction to think;
    w_T = exp(-H_T) over the whole vocabulary, where the paper takes the entropy of the 32 most probable tokens.
    """
    return Recipe(OPSD(reverse_kl), reference_solution, weights=sure_teacher_unsure_student)
