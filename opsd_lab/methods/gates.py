"""Methods that choose rollouts, mix sources or keep training stable; letters as in `contexts`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from opsd_lab.basics.schedules import Stairs
from opsd_lab.contexts.peers import ShortestPeer
from opsd_lab.contexts.views import View, hints, no_privilege, reference_solution
from opsd_lab.divergences import Side, forward_kl, reverse_kl
from opsd_lab.evaluation.rewards import by_majority
from opsd_lab.methods.contexts import concise, sdpo
from opsd_lab.methods.method import method
from opsd_lab.objectives import (
    GRPO,
    OPSD,
    SFT,
    Objective,
    PolicyGradient,
    Route,
    SampledTokenOPSD,
    Scaled,
    Sum,
    Teachers,
    Tokens,
    rewarded,
)
from opsd_lab.objectives.marks import StoredNumbers
from opsd_lab.objectives.targets import TheView
from opsd_lab.policies.teachers import live_teacher
from opsd_lab.problems.problem import Problem
from opsd_lab.rollouts import BestOf, PerProblem, Rollout, Stored, StudentWrites, Texts, Together, sample_rollouts
from opsd_lab.rollouts.gates import Rewards, correct_only, incorrect_only
from opsd_lab.rollouts.teacher_writes import TeacherRewrites, TeacherWrites
from opsd_lab.supervision import build_examples, score_rollouts
from opsd_lab.training.later import LaterCheckpoint
from opsd_lab.training.recipes import Recipe
from opsd_lab.training.start import Start

Columns = Mapping[str, Tensor]


@dataclass(frozen=True)
class PassRateGate:
    """Weighs a rollout p**a (1 - p)**b, p the share of its problem's rollouts that are right."""

    a: float = 1.0
    b: float = 1.0
    needs_groups = True

    def __call__(self, rewards: np.ndarray, groups: np.ndarray) -> np.ndarray:
        """Return the weights [R]."""
        p = np.array([(rewards[groups == group] > 0).mean() for group in groups])
        return p**self.a * (1 - p) ** self.b


@method("PACED", "2603.11178", "paper")
def paced(half: int = 50) -> Recipe:
    """p (1 - p) times FKL in the first half of training, times RKL in the second; p is the problem's pass rate.

    Defaults: both exponents 1. `half` is the last step of the first half. Unconfirmed: whose weights teach (the initial here).
    Differs: the weights' sum divides, so that p (1 - p) compares the rollouts of one step.
    """
    objective = OPSD(Stairs((forward_kl, reverse_kl), (half,)))
    return Recipe(objective, reference_solution, gate=PassRateGate(), n=8)


@method("correct only", "2605.06188", "note")
def correct_rollouts() -> Recipe:
    """Reverse KL on right rollouts alone. Unconfirmed: the divergence, the view and the number of rollouts."""
    return Recipe(OPSD(reverse_kl), reference_solution, gate=correct_only)


@method("incorrect only", "2605.06188", "note")
def incorrect_rollouts() -> Recipe:
    """Reverse KL on wrong rollouts alone, with which the paper's accuracy falls by 7 to 10 points.

    Unconfirmed: the divergence, the view and the number of rollouts.
    """
    return Recipe(OPSD(reverse_kl), reference_solution, gate=incorrect_only)


@dataclass(frozen=True)
class Certainty:
    """exp(-H_T) over its mean, for the tokens of rollouts without a reward that have the view; the mean of these is 1."""

    def __call__(self, columns: Columns) -> Tensor:
        """Return the signal [N]."""
        certain = torch.exp(-columns["teacher_entropy"].float())
        taught = (columns["outcome"] <= 0) & columns["seen teacher"].bool()
        return certain / certain[taught].mean() if bool(taught.any()) else torch.ones_like(certain)


def right_or_alone(tokens: Tokens) -> Tensor:
    """Return which tokens [n] are of right rollouts, or of wrong ones in whose group no other attempt is right."""
    return rewarded(tokens) | ~tokens.have(("teacher",))


@method("SRPO", "2604.02288", "code")
def srpo() -> Recipe:
    """JSD to T(. | a right attempt) times exp(-H_T) over its mean on wrong rollouts that have one, GRPO on all others.

    Defaults: the student's 100 most probable tokens, moving average .05, importance ratio cut at 2. Differs: the cut ratio weighs
    GRPO's tokens as well, where it differs from 1, and there is no dual clip.
    """
    objective = Route(right_or_alone, GRPO(), Scaled(sdpo().objective, "certainty"))
    return replace(sdpo(), objective=objective, signals={"certainty": Certainty()})


def golden(problem: Problem) -> str:
    """Return the verified solution with the answer in a box."""
    return f"{problem.solution}\n\\boxed{{{problem.answer}}}"


def from_the_first_source(tokens: Tokens) -> Tensor:
    """Return which tokens [n] the first of several sources wrote."""
    return tokens.source == 0


@method("StableOPD", "2604.08527", "note")
def stable_opd(golden_weight: float = 0.1, reference_weight: float = 0.1) -> Recipe:
    """Policy gradient of D + b KL(S || initial policy) on rollouts, + l SFT on as many verified solutions.

    Unconfirmed: l and b (.1 here), which the paper does not report. Differs: one rollout a problem, not 4; the ratio is not clipped;
    each rollout and each solution counts by the mean of its tokens.
    """
    anchor = OPSD(reverse_kl, target=TheView("reference"))
    kept = Sum((SampledTokenOPSD(target=TheView("teacher")), anchor), (1.0, reference_weight))
    objective = Route(from_the_first_source, kept, Sum((SFT(),), (golden_weight,)))
    views = {"teacher": reference_solution, "reference": no_privilege}
    sources, training = Together((StudentWrites(), Texts(golden))), {"normalisation": "sequence"}
    return Recipe(objective, views, source=sources, training=training)


@dataclass(frozen=True)
class InitialRollouts:
    """The source of rollouts that the initial policy wrote of all problems before the first step, `n` of each; billed once."""

    def begin(self, start: Start) -> Stored:
        """Return the stored rollouts."""
        return Stored(tuple(_initial_rollouts(start)))


def _initial_rollouts(start: Start) -> list[Rollout]:
    return start.once("rollouts", lambda: sample_rollouts(start.sampler, start.contexts, start.problems, start.sampling))


@dataclass(frozen=True)
class InitialScores:
    """The mark of the initial policy's log-probabilities of `InitialRollouts` under `view`, asked once before the first step."""

    view: View = reference_solution

    def begin(self, start: Start) -> StoredNumbers:
        """Return the stored log-probabilities."""
        rollouts = _initial_rollouts(start)
        examples = build_examples(replace(start.contexts, view=self.view), start.problems, rollouts)
        frame = score_rollouts(start.policy, live_teacher(), SampledTokenOPSD(), examples, progress=False).frame
        start.bill_scoring(rollouts, examples)
        of_rollout = frame.sort_values(["rollout", "position"]).groupby("rollout")["teacher_logprob"]
        numbers = {int(number): tuple(values) for number, values in of_rollout}
        return StoredNumbers({(r.problem_id, r.completion_ids): numbers[i] for i, r in enumerate(rollouts)})


@dataclass(frozen=True)
class StoredGap(PolicyGradient):
    """The clipped policy gradient of a mark less log S(y); no teacher runs."""

    by: str = "teacher logprob"
    needs_teacher = False

    def token_advantages(self, student: Side, teachers: Teachers, tokens: Tokens) -> Tensor:
        """Return the advantages [n]."""
        return tokens[self.by] - student.of(tokens.ids)


@method("Lightning OPD", "2604.13010", "code")
def lightning_opd() -> Recipe:
    """Policy gradient of log T(y) - log S(y) on rollouts that were written and scored once, before training.

    Differs: rollouts and scores are the initial policy's own, with the solution in view; the paper's teacher is a larger model
    that wrote the student's supervised data too.
    """
    return Recipe(StoredGap(), reference_solution, source=InitialRollouts(), marks={"teacher logprob": InitialScores()})


@dataclass(frozen=True)
class RightThenProbable:
    """Keeps one rollout of a problem: of the right ones, or of all where none is, the most probable per token to who wrote it."""

    rewards: Rewards | None = None

    def begin(self, start: Start) -> "RightThenProbable":
        """Return the choice with the run's rewards."""
        return replace(self, rewards=start.rewards)

    def __call__(self, problem: Problem, rollouts: Sequence[Rollout]) -> list[Rollout]:
        """Return the one that is kept."""
        rewards = self.rewards(list(rollouts), [problem] * len(rollouts))
        return [max(zip(rollouts, rewards, strict=True), key=lambda pair: (pair[1] > 0, np.mean(pair[0].logprobs)))[0]]


@method("BRTS", "2605.09725", "paper")
def brts(weight: float = 10.0, top_k: int = 16) -> Recipe:
    """RKL on the student's rollout + 10 FKL on the best of 4 rollouts of the teacher, each on its writer's most probable tokens.

    Differs: of right rollouts of the teacher the most probable is kept, not the one whose top k overlaps most with the student's;
    the teacher sees the solution when it writes, so there is no second try with the answer hidden; each rollout counts by the mean
    of its tokens; the tokens outside of the top k are one more entry. Unconfirmed: k, and that the student writes one rollout.
    """
    best = BestOf(PerProblem(TeacherWrites(), 4), RightThenProbable())
    ours = OPSD(reverse_kl, vocab_top_k=top_k, support="student")
    objective = Route(from_the_first_source, ours, Sum((OPSD(forward_kl, vocab_top_k=top_k),), (weight,)))
    return Recipe(objective, reference_solution, source=Together((StudentWrites(), best)), training={"normalisation": "sequence"})


def to_be_rewritten(problem: Problem, rollout: Rollout, group: object) -> str:
    """Show a rollout and ask for it in fewer words."""
    return f"Here is an attempt:\n{rollout.text}\nWrite it again. {concise(problem)}"


@method("MPD", "2605.08776", "note")
def mpd() -> Recipe:
    """RKL on the student's rollouts as the teacher writes them again, concisely; right and wrong ones alike.

    Differs: the teacher is the model itself, and it sees the solution when it scores.
    """
    return Recipe(OPSD(reverse_kl), reference_solution, source=TeacherRewrites(to_be_rewritten))


def all_wrong(rewards: np.ndarray, groups: np.ndarray, rollouts: Sequence[Rollout]) -> np.ndarray:
    """Let given texts through whose problem's sampled rollouts are all wrong, and nothing else."""
    given = np.array([math.isnan(rollout.logprobs[0]) for rollout in rollouts])
    solved = {group: (rewards[(groups == group) & ~given] > 0).any() for group in np.unique(groups)}
    return given & ~np.array([solved[group] for group in groups], dtype=bool)


def planned(columns: Columns) -> Tensor:
    """Return the square root of how much likelier the plan makes the token, at most 2; the initial policy says both."""
    return ((columns["gap"] - columns["gap base"]) / 2).exp().clamp(max=2.0)


@dataclass(frozen=True)
class TaughtTexts(SFT):
    """Maximum likelihood of given texts of which a teacher says how much each token weighs."""

    needs_teacher = True


@method("SORT", "2605.11505", "abstract")
def sort() -> Recipe:
    """SFT on the verified solution of problems that no rollout solves, each token weighed by p_plan against p_base.

    Unconfirmed: the blend of both, here the root of their ratio, at most 2. The plan is the problem's hints, so problems need some.
    """
    source = Together((StudentWrites(), Texts(golden)))
    views = {"plan": hints, "base": no_privilege}
    return Recipe(TaughtTexts(), views, source=source, gate=all_wrong, weights=planned, n=8)


@method("NPO", "2604.20733", "abstract")
def npo(steps: int = 20) -> Recipe:
    """GRPO on groups to which right rollouts of a later checkpoint of the same run are added.

    Unconfirmed: how the checkpoint is chosen; here it is always that after 20 steps, one rollout of each of 256 problems, and it is
    not asked again.
    """
    return Recipe(GRPO(), source=Together((StudentWrites(), LaterCheckpoint(steps=steps))), n=8)


@dataclass(frozen=True)
class Penalty(Objective):
    """log S(y) times a weight: what is written becomes less likely. Where no attempt of the group has a reward, nothing counts."""

    weight: float = 0.1
    needs_teacher = False
    sees_outcomes = True

    def counts(self, tokens: Tokens) -> Tensor:
        """Return which tokens [n] count."""
        tokens.need("Penalty", ("pass_rate",))
        return tokens.pass_rate > 0

    def loss(self, student: Side, teachers: Teachers, tokens: Tokens) -> Tensor:
        """Return the losses [n]."""
        return self.weight * student.of(tokens.ids)


@method("TTPO", "2608.27448", "abstract")
def ttpo(penalty: float = 0.1) -> Recipe:
    """Forward KL to T(. | the shortest attempt with the majority's answer) on the majority's rollouts, a penalty on the minority's.

    Groups without a majority do not count. Unconfirmed: everything but the two halves.
    """
    objective = Route(rewarded, OPSD(forward_kl), Penalty(penalty))
    return Recipe(objective, ShortestPeer(), rewards=by_majority, n=8)
