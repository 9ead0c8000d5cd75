"""Methods that change towards what the student moves, or how far apart is measured; letters as in `contexts`."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from opsd_lab.basics.options import real
from opsd_lab.basics.schedules import Linear, Schedule
from opsd_lab.contexts.peers import FailedPeer, SuccessfulPeer
from opsd_lab.contexts.views import OWN_WORDS, OtherProblem, Shown, answer_only, hints, no_privilege, reference_solution
from opsd_lab.divergences import Renyi, Side, forward_kl, jsd, reverse_kl
from opsd_lab.methods.method import method
from opsd_lab.objectives import OPSD, SFT, PolicyGradient, Teachers, Tokens
from opsd_lab.objectives.targets import GeometricMixture, PMIResidual, TheView
from opsd_lab.policies.teachers import ema_teacher
from opsd_lab.problems.problem import Problem
from opsd_lab.rollouts import StudentWrites, TeacherWrites, Together
from opsd_lab.rollouts.gates import incorrect_only
from opsd_lab.training.recipes import Recipe

PEERS = 2  # contexts of each kind, where the papers take all of the group


@dataclass(frozen=True)
class SolutionAlone:
    """Shows the verified solution without the question, followed by the sentence `closing`, as `reference_solution` does with it."""

    closing: str = OWN_WORDS

    def __call__(self, problem: Problem) -> Shown:
        """Return what is shown."""
        return Shown(reference_solution(problem, self.closing), question="")


@method("Purified OPSD", "2607.02234", "paper")
def purified_opsd() -> Recipe:
    """JSD to softmax(log p0(. | x) + c tanh(d / c) / beta), d = log p0(. | x, y*) - log p0(. | y*) less its mean over v.

    Defaults: c = 10, beta = 1, both flat over wide ranges; p0 is the initial policy; three passes of it.
    """
    views = {"question": no_privilege, "both": reference_solution, "solution": SolutionAlone()}
    return Recipe(OPSD(jsd(0.5), target=PMIResidual("question", "both", "solution", bound=10.0, beta=1.0)), views)


@dataclass(frozen=True)
class UniSDLoss(OPSD):
    """The divergence, and a hinge that keeps S(y) nearer to the right context than to another problem's."""

    hinge: float = 0.01
    margin: float = 0.1

    def loss(self, student: Side, teachers: Teachers, tokens: Tokens) -> Tensor:
        """Return D(T, S) + hinge * relu(margin + |l_S - l_right| - |l_S - l_other|) [n]."""
        own, right, other = (side.of(tokens.ids) for side in (student, teachers["reference"], teachers["other"]))
        contrast = (self.margin + (own - right).abs() - (own - other).abs()).relu()
        views = ("reference", "answer", "hints")
        spread = torch.stack([teachers[name].of(tokens.ids) for name in views]).var(0, correction=0)
        tokens.record(disagreement=spread)
        return super().loss(student, teachers, tokens) + self.hinge * contrast


@dataclass(frozen=True)
class Agreement:
    """Weighs tokens max(.01, 1 / (1 + g d)), d the contexts' disagreement over its .95 quantile in the step, at most 10."""

    strength: float = 1.0
    needs_step = True

    def __call__(self, columns: Mapping[str, Tensor]) -> Tensor:
        """Return the weights [N]; `strength` is g."""
        scale = columns["disagreement"].quantile(0.95).clamp(min=1e-8)
        return (1 / (1 + self.strength * (columns["disagreement"] / scale).clamp(max=10.0))).clamp(min=0.01)


@method("UniSD", "2605.06597", "code")
def unisd() -> Recipe:
    """min(JSD_a, kappa) weighed by 1 / (1 + g d), sum over sum of weights, and .01 relu(.1 + |l_S - l_+| - |l_S - l_-|).

    Defaults: a = 0, which is forward KL; kappa = 10; d is the variance of l_T = log T(y) over the contexts. Unconfirmed: g (1 here,
    the launcher has .001) and the decay of the moving average (.99 here). Differs: the contexts are the problem's own solution,
    answer and hints, and the wrong one another problem's solution, where the paper has other demonstrations; the contrast is weighed
    too, and weights are divided out over the step, not each rollout; no hidden states are matched. Problems need hints.
    """
    views = {"reference": reference_solution, "answer": answer_only, "hints": hints, "other": OtherProblem()}
    objective = UniSDLoss(forward_kl, target=TheView("reference"), token_clip=10.0)
    return Recipe(objective, views, teacher=partial(ema_teacher, decay=0.99), weights=Agreement())


@dataclass(frozen=True)
class PreferenceTokens(SFT):
    """What a preference margin's slope is made of: -log S(y) of what the teacher wrote, +log S(y) of what the student wrote."""

    needs_teacher = True

    def loss(self, student: Side, teachers: Teachers, tokens: Tokens) -> Tensor:
        """Return the signed log-probabilities [n]."""
        sign = 1.0 - 2.0 * tokens.source.to(student.logits.dtype)  # source 0 is the teacher
        return -sign * student.of(tokens.ids)


@dataclass(frozen=True)
class PreferenceWeights:
    """beta sigma(-m) of each pair, which -log sigma(m) multiplies slopes by; m = beta sum over its tokens of +-(log S - log T)."""

    beta: float = 0.1
    needs_step = True
    divided_out = False

    def __call__(self, columns: Mapping[str, Tensor]) -> Tensor:
        """Return the weights [N]; pairs are the i-th rollouts of either source."""
        sign = 1.0 - 2.0 * columns["source"].float()
        pair = _pairs(columns["rollout"], columns["source"])
        margins = torch.zeros(int(pair.max()) + 1, device=pair.device).index_add_(0, pair, -sign * columns["gap"].float())
        return self.beta * torch.sigmoid(-self.beta * margins)[pair]


def _pairs(rollout: Tensor, source: Tensor) -> Tensor:
    """Return the number of each token's pair [N]: its rollout's place among those of its source."""
    found = torch.zeros_like(rollout)
    for own in source.unique():
        chosen = source == own
        found[chosen] = rollout[chosen].unique(return_inverse=True)[1]
    return found


@method("PBSD", "2605.05040", "paper")
def pbsd(beta: float = 0.1) -> Recipe:
    """-log sigma(beta [log S(y+) / T(y+) - log S(y-) / T(y-)]), y+ written by the context teacher, y- by the student.

    Defaults: fixed teacher, which is the reference of the margin too. Unconfirmed: beta. The gradient is that of the formula; the
    loss that is shown is its linear form, and both are divided by the tokens of a step, not by its pairs. Truncated rollouts stay,
    since pairs are counted by place.
    """
    sources = Together((TeacherWrites(), StudentWrites()))
    kept = {"truncated": "keep"}
    return Recipe(PreferenceTokens(), reference_solution, source=sources, weights=PreferenceWeights(beta), training=kept)


@method("OPD-RKL, top k", "2603.25562", "code")
def opd_top_k() -> Recipe:
    """Reverse KL on the teacher's 32 most probable tokens, both sides renormalised.

    Defaults: rollouts are drawn with top-p .9. Differs: special tokens are not masked; the teacher sees the solution.
    """
    objective = OPSD(reverse_kl, vocab_top_k=32, tail="renormalise")
    return Recipe(objective, reference_solution, sampling={"top_p": 0.9})


@dataclass(frozen=True)
class Steering:
    """Teacher's logits moved by strength * (mean logits under right attempts - mean logits under wrong ones)."""

    strength: float | Schedule

    def __call__(self, student: Side, teachers: Teachers) -> Side:
        """Return the target."""
        peers = {kind: [f"{kind} {i}" for i in range(PEERS)] for kind in ("right", "wrong")}
        right, wrong = (teachers.mean(lambda side: side.logprobs, names) for names in peers.values())
        return Side(teachers["teacher"].logprobs + self.strength * (right - wrong))


@method("OGLS-SD", "2605.12400", "note")
def ogls_sd(steps: int = 100) -> Recipe:
    """RKL on wrong rollouts to softmax(z_T + l (mean of z over right attempts' contexts - mean over wrong ones')), l from 0 to 3.

    Defaults: 8 rollouts a problem, clip .05. Unconfirmed: the steps over which l rises (100 here), the frozen teacher, and that z_T
    sees the solution. Differs: 2 attempts of each kind are contexts, not all of the group's, and a group's only wrong attempt has no
    other one beside it, so it does not count.
    """
    peers = {f"right {i}": SuccessfulPeer(i) for i in range(PEERS)} | {f"wrong {i}": FailedPeer(i) for i in range(PEERS)}
    needed = ("teacher", "right 0", "wrong 0")
    objective = OPSD(reverse_kl, pointwise_clip=0.05, target=Steering(Linear(0.0, 3.0, steps)), needed_views=needed)
    return Recipe(objective, {"teacher": reference_solution, **peers}, gate=incorrect_only, n=8)


@dataclass(frozen=True)
class ViewConsensus:
    """log S + A_G + C R (A_A - A_G): the views' mean gap, and as much of their mixture's as they agree on."""

    def __call__(self, student: Side, teachers: Teachers) -> Side:
        """Return the target."""
        gaps = torch.stack([side.logprobs - student.logprobs for side in teachers.values()])
        geometric, arithmetic = gaps.mean(0), gaps.logsumexp(0) - torch.tensor(float(len(gaps))).log()
        agreement = geometric.abs() / gaps.abs().mean(0).clamp(min=1e-8)
        excess = (arithmetic - geometric).clamp(min=0)
        share = geometric.abs() / (geometric.abs() + excess).clamp(min=1e-8)
        return Side(student.logprobs + geometric + agreement * share * excess)


@method("AVSD", "2605.20643", "code")
def avsd() -> Recipe:
    """RKL to softmax(log S + A_G + C R J): A_G the views' mean gap, J = A_A - A_G, C = |A_G| / mean |gap|, R = |A_G| / (|A_G| + J).

    Defaults: 3 views. A_A is the logarithm of the mean ratio. Unconfirmed: that J is this. Differs: the views are reference, answer
    and hints; problems need hints.
    """
    views = {"reference": reference_solution, "answer": answer_only, "hints": hints}
    return Recipe(OPSD(reverse_kl, target=ViewConsensus()), views)


@dataclass(frozen=True)
class ControlVariate:
    """The full view's log-ratio to the base, less what the answer's log-ratio explains of it."""

    def __call__(self, student: Side, teachers: Teachers) -> Side:
        """Return the target."""
        base = teachers["base"]
        full, answer = (teachers[name].logprobs - base.logprobs for name in ("full", "answer"))
        full, answer = (r - (base.probabilities * r).sum(-1, keepdim=True) for r in (full, answer))
        both, own = ((base.probabilities * r * answer).sum(-1, keepdim=True) for r in (full, answer))
        return Side(base.logprobs + full - (both / own.clamp(min=1e-8)).clamp(0, 1) * answer)


@method("CV-SDPO", "none", "note")
def cv_sdpo() -> Recipe:
    """RKL to softmax(log p0 + d_full - b d_answer), b the projection of d_full on d_answer under p0, between 0 and 1.

    Defaults: three passes of a moving average, the student's 100 most probable tokens. There is no paper. Unconfirmed: that
    both d are centred under p0 first, the bounds of b, and the decay (.95, as SDPO's).
    """
    views = {"base": no_privilege, "full": reference_solution, "answer": answer_only}
    objective = OPSD(reverse_kl, vocab_top_k=100, support="student", target=ControlVariate())
    return Recipe(objective, views, teacher=partial(ema_teacher, decay=0.95))


@dataclass(frozen=True)
class TowardsMixture(PolicyGradient):
    """The clipped policy gradient of log p*(y) - log S(y), p* = share * T + (1 - share) * reference."""

    share: float | Schedule = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        real("TowardsMixture: share", self.share, least=0, most=1)

    def token_advantages(self, student: Side, teachers: Teachers, tokens: Tokens) -> Tensor:
        """Return the advantages [n]."""
        told, plain = (teachers[name].of(tokens.ids).exp() for name in ("teacher", "reference"))
        return (self.share * told + (1 - self.share) * plain).log() - student.of(tokens.ids)


@method("beta-OPSD", "2607.28582", "code")
def beta_opsd(share: float = 0.5) -> Recipe:
    """Policy gradient of log [.5 T(y) + .5 p0(y)] - log S(y), p0 the initial policy without the solution.

    Defaults: share .5, constant. Differs: neither the variant whose share changes linearly, nor a return-to-go.
    """
    views = {"teacher": reference_solution, "reference": no_privilege}
    return Recipe(TowardsMixture(share=share), views)


@method("SR-OPSD", "2608.09745", "abstract")
def sr_opsd(alpha: float = 0.5) -> Recipe:
    """Renyi divergence to the geometric mixture of the teacher and the initial policy that sees the question alone.

    Unconfirmed: everything but the pieces' names; alpha and the mixture's weight are .5 here.
    """
    target = GeometricMixture({"teacher": 0.5, "anchor": 0.5})
    return Recipe(OPSD(Renyi(alpha), target=target), {"teacher": reference_solution, "anchor": no_privilege})
