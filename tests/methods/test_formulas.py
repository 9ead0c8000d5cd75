"""Each method's defining equation on constructed tokens, against a hand calculation in float64, gradient included.

Here is what a token's loss and weight are. Means over rollouts, cuts of the importance ratio, gates and views are tested where they
are made: `test_pieces.py`, `test_trainer.py`, `test_sources.py`.
"""

import math

import pytest
import torch
import torch.nn.functional as F

from opsd_lab.methods import METHODS
from tests.methods.constructed import LENGTH, OUTCOME, POSITION, ROLLOUT, SENTENCE, SOURCE, VERDICT, N, assert_is, evaluated

FORMULAS: dict = {}


def formula_of(*keys, **arguments):
    """Enter the formula of some methods; `arguments` are given to `assert_is`."""

    def enter(function):
        for key in keys:
            FORMULAS[key] = (function, arguments)
        return function

    return enter


def fkl(case, view="teacher"):
    t = case.t[view]
    return (t.exp() * (t - case.s)).sum(-1)


def rkl(case, target):
    target = target.log_softmax(-1)
    return (case.s.exp() * (case.s - target)).sum(-1)


def jsd(s, t):
    m = (0.5 * s.exp() + 0.5 * t.exp()).log()
    return 0.5 * (s.exp() * (s - m)).sum(-1) + 0.5 * (t.exp() * (t - m)).sum(-1)


def clipped_fkl(case, tau=0.05, view="teacher"):
    t = case.t[view]
    return (t.exp() * (t - case.s)).clamp(max=tau).sum(-1)


def shortened(case, k, by):
    """Both sides on the k most probable tokens of one of them, with the rest as one more."""
    ids = by.topk(k).indices

    def one(logps):
        rest = (1 - logps.exp().gather(-1, ids).sum(-1, keepdim=True)).clamp(min=1e-300)
        return torch.cat([logps.gather(-1, ids), rest.log()], -1)

    return one


def pg(case, advantage, low=0.2, high=0.2):
    ratio = (case.of(case.s) - case.tokens.sampled_logprob.double()).exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


def mean(values, weight=None):
    return values.mean() if weight is None else (values * weight).sum() / weight.sum()


def a_of(case):
    return case.tokens.advantage.double()


def entropy(logps):
    return -(logps.exp() * logps).sum(-1)


@formula_of("opsd")
def _(case):
    return mean(jsd(case.s, case.t["teacher"]))


@formula_of("opsd_clipped", "op2sd", "reason_first", "atesd_fixed", "atesd_scheduled", "atesd_bandit")
def _(case):
    return mean(clipped_fkl(case))


@formula_of("opsd_sampled_token")
def _(case):
    return mean(-case.gap * case.of(case.s))


@formula_of("sdft")
def _(case):
    return mean(fkl(case))


@formula_of("sdpo")
def _(case):
    one = shortened(case, 100, case.s.detach())
    return mean(jsd(one(case.s), one(case.t["teacher"])))


@formula_of("mopd", "crisp", "correct_rollouts", "incorrect_rollouts", "mpd")
def _(case):
    return mean(rkl(case, case.t["teacher"]))


@formula_of("u_opsd")
def _(case):
    return mean(fkl(case), (POSITION < 32).double())


@formula_of("resd")
def _(case):
    ratio = (case.t["teacher"] - case.s.detach()).exp().clamp(min=0.2)
    assert (ratio == 0.2).any(), "the floor binds somewhere"
    return mean((case.s.exp() * (case.s - case.s.detach() - ratio.log())).sum(-1))


@formula_of("msd")
def _(case):
    weight = (-entropy(case.t["teacher"])).exp() * (1 - case.of(case.s).detach().exp())
    return mean(rkl(case, case.t["teacher"]), weight)


@formula_of("purified_opsd")
def _(case):
    d = case.t["both"] - case.t["solution"]
    target = (case.t["question"] + 10 * torch.tanh((d - d.mean(-1, keepdim=True)) / 10)).log_softmax(-1)
    return mean(jsd(case.s, target))


@formula_of("unisd")
def _(case):
    views = torch.stack([case.of(case.t[name]) for name in ("reference", "answer", "hints")])
    d = ((views - views.mean(0)) ** 2).mean(0)
    weight = (1 / (1 + (d / d.quantile(0.95)).clamp(max=10))).clamp(min=0.01)
    own = case.of(case.s)
    hinge = (0.1 + (own - case.of(case.t["reference"])).abs() - (own - case.of(case.t["other"])).abs()).relu()
    return mean(fkl(case, "reference").clamp(max=10.0) + 0.01 * hinge, weight)


def top_fkl(case, k):
    values, ids = case.t["teacher"].topk(k)
    t = values.log_softmax(-1)
    return (t.exp() * (t - case.s.gather(-1, ids))).sum(-1)


@formula_of("eopd")
def _(case):
    unsure = (entropy(case.t["teacher"]) > 0.8).double()
    return mean(pg(case, case.gap) + unsure * top_fkl(case, 16))


@formula_of("pbsd")
def _(case):
    """The gradient is that of -log sigma(m), summed over pairs; the loss is its linear form."""
    sign = 1.0 - 2.0 * SOURCE.double()
    ratio = case.of(case.s) - case.of(case.t["teacher"])
    pair = ROLLOUT % 2
    margins = torch.zeros(2, dtype=torch.float64).index_add(0, pair, 0.1 * sign * ratio)
    (slopes,) = torch.autograd.grad(-F.logsigmoid(margins).sum(), case.hidden, retain_graph=True)
    weight = 0.1 * torch.sigmoid(-margins.detach())[pair]
    linear = (weight * -sign * case.of(case.s)).sum()
    (again,) = torch.autograd.grad(linear, case.hidden, retain_graph=True)
    torch.testing.assert_close(again, slopes)
    return linear / N


@formula_of("opd_top_k")
def _(case):
    values, ids = case.t["teacher"].topk(32)
    t, s = values.log_softmax(-1), case.s.gather(-1, ids).log_softmax(-1)
    return mean((s.exp() * (s - t)).sum(-1))


@formula_of("ogls_sd", step=50)
def _(case):
    def average(kind):
        seen = torch.stack([case.seen(f"{kind} {i}").double() for i in range(2)])[..., None]
        return (torch.stack([case.t[f"{kind} {i}"] for i in range(2)]) * seen).sum(0) / seen.sum(0).clamp(min=1)

    counts = (case.seen("right 0") & case.seen("wrong 0")).double()
    target = (case.t["teacher"] + 1.5 * (average("right") - average("wrong"))).log_softmax(-1)
    terms = (case.s.exp() * (case.s - target)).clamp(max=0.05).sum(-1)
    assert 0 < counts.sum() < N
    return mean(terms, counts)


@formula_of("avsd")
def _(case):
    gaps = torch.stack([t - case.s.detach() for t in case.t.values()])
    a_g, a_a = gaps.mean(0), gaps.exp().mean(0).log()
    c, j = a_g.abs() / gaps.abs().mean(0), a_a - a_g
    r = a_g.abs() / (a_g.abs() + j)
    return mean(rkl(case, case.s.detach() + a_g + c * r * j))


@formula_of("cv_sdpo")
def _(case):
    p0 = case.t["base"].exp()
    full, answer = (case.t[name] - case.t["base"] for name in ("full", "answer"))
    full, answer = (d - (p0 * d).sum(-1, keepdim=True) for d in (full, answer))
    b = ((p0 * full * answer).sum(-1) / (p0 * answer**2).sum(-1)).clamp(0, 1)
    one = shortened(case, 100, case.s.detach())
    s, t = one(case.s), one((case.t["base"] + full - b[:, None] * answer).log_softmax(-1))
    return mean((s.exp() * (s - t)).sum(-1))


@formula_of("beta_opsd")
def _(case):
    target = 0.5 * case.of(case.t["teacher"]).exp() + 0.5 * case.of(case.t["reference"]).exp()
    return mean(pg(case, target.log() - case.of(case.s).detach()))


@formula_of("sr_opsd")
def _(case):
    target = (0.5 * case.t["teacher"] + 0.5 * case.t["anchor"]).log_softmax(-1)
    return mean((target.exp() ** 0.5 * case.s.exp() ** 0.5).sum(-1).log() / -0.5)


@formula_of("pw_opsd")
def _(case):
    r = (POSITION + 0.5) / LENGTH
    return mean(clipped_fkl(case) * (0.25 + 0.75 * torch.sigmoid((r.double() - 0.3) / 0.1)))


def egrsd(case, window):
    """The advantage of constructed tokens stands for the whitened reward."""
    a = a_of(case)
    w = (a.sign() * case.gap).exp().clamp(0.8, 1.2)
    h = entropy(case.t["teacher"])
    ahead = torch.stack([min(h[j] for j in range(i, min(i + window + 1, N)) if ROLLOUT[j] == ROLLOUT[i]) for i in range(N)])
    g = (1 - 0.1 * ahead / max(float(h.max()), 1.0)).clamp(min=0.1)
    return mean(pg(case, a * w) * g)


@formula_of("egrsd")
def _(case):
    return egrsd(case, 0)


@formula_of("cl_egrsd")
def _(case):
    return egrsd(case, 5)


@formula_of("prefix_opd")
def _(case):
    return mean(rkl(case, case.t["teacher"]))


@formula_of("prefix_teach")
def _(case):
    ids = case.s.topk(16).indices
    margin = case.of(case.t["teacher"]).exp() - case.t["teacher"].exp().gather(-1, ids).mean(-1)
    weight = torch.ones(N, dtype=torch.float64)
    for rollout in range(4):
        rows = [i for i in range(N) if ROLLOUT[i] == rollout]
        count = int(SENTENCE[rows].max()) + 1
        means = [float(margin[[i for i in rows if SENTENCE[i] == k]].mean()) for k in range(count)]

        def left(values):
            return sum((v - sum(values) / len(values)) ** 2 for v in values)

        best, cut = count * math.log(left(means) / count + 1e-8), None
        for k in range(1, count):
            score = count * math.log((left(means[:k]) + left(means[k:])) / count + 1e-8) + 2 * math.log(count)
            if sum(means[k:]) / (count - k) < sum(means[:k]) / k and score < best:
                best, cut = score, k
        weight[[i for i in rows if cut is not None and SENTENCE[i] >= cut]] = 0
    return mean(rkl(case, case.t["teacher"]), weight)


@formula_of("trace", step=25)
def _(case):
    share = 0.5 * (1 - 15 / 30)
    inside = torch.where(OUTCOME > 0, VERDICT > 0, VERDICT < 0)
    t = case.t["teacher"]
    backward = (case.s.exp() * (case.s - t)).clamp(max=0.05).sum(-1)
    spans = torch.where(OUTCOME > 0, clipped_fkl(case), backward)
    grpo = pg(case, a_of(case))
    return mean(torch.where(inside, share * spans + (1 - share / 0.5) * grpo, grpo))


@formula_of("tip")
def _(case):
    def scaled(x):
        low, high = x.quantile(0.02), x.quantile(0.98)
        return (x.clamp(low, high) - low) / (high - low)

    h, d = scaled(entropy(case.s.detach())), scaled(rkl(case, case.t["teacher"]).detach())
    score = h + d - h * d
    return mean(rkl(case, case.t["teacher"]), (score >= score.quantile(0.5)).double())


@formula_of("sod")
def _(case):
    w = torch.ones(N, dtype=torch.float64)
    for rollout in range(4):
        rows = [i for i in range(N) if ROLLOUT[i] == rollout]
        d = [float(case.gap[[i for i in rows if SENTENCE[i] == k]].abs().mean()) for k in range(int(SENTENCE[rows].max()) + 1)]
        for i in rows:
            product = math.prod((d[u] + 1e-2) / (d[u + 1] + 1e-2) for u in range(int(SENTENCE[i])))
            w[i] = 1.0 if SENTENCE[i] == 0 else min(product, 1.2)
    return mean(pg(case, a_of(case)) + w * rkl(case, case.t["teacher"]))


@formula_of("opsa")
def _(case):
    logp, h = case.of(case.s).detach(), entropy(case.s.detach())
    chosen = logp <= logp.quantile(0.2)
    low, high = h[chosen].min(), h[chosen].max()
    return mean(pg(case, torch.where(chosen, -0.5 - (h - low) / (2 * (high - low)), 0.0)))


@formula_of("prune_opd")
def _(case):
    ours, theirs = case.s.topk(16).indices.tolist(), case.t["teacher"].topk(16).indices.tolist()
    drifted = [len(set(a) & set(b)) / 16 < 0.5 for a, b in zip(ours, theirs, strict=True)]
    events = [sum(drifted[j] for j in range(i + 1) if ROLLOUT[j] == ROLLOUT[i]) for i in range(N)]
    weight = (1 - 0.05 * torch.tensor(events, dtype=torch.float64)).clamp(0, 1) + 0.1
    assert any(drifted) and not all(drifted)
    return mean(rkl(case, case.t["teacher"]), weight)


@formula_of("rlsd", step=10)
def _(case):
    a, share = a_of(case), 0.5 * (1 - 10 / 50)
    return mean(pg(case, a * (1 - share + share * (a.sign() * case.gap).exp().clamp(0.8, 1.2))))


@formula_of("rlrt")
def _(case):
    a = a_of(case)
    weighed = a * (-a.sign() * case.gap).exp().clamp(0.5, 1.5)
    return mean(pg(case, torch.where(OUTCOME > 0, weighed, a), 0.2, 0.28))


@formula_of("antisd")
def _(case):
    return mean(pg(case, a_of(case)))  # the gate is shut before anything was seen


@formula_of("rlcsd")
def _(case):
    a = a_of(case)
    seen = torch.stack([case.seen(f"wrong {k}").double() for k in range(4)])
    probabilities = torch.stack([case.of(case.t[f"wrong {k}"]).exp() for k in range(4)])
    wrong = (probabilities * seen).sum(0) / seen.sum(0).clamp(min=1)
    r = 0.5 * torch.tanh((case.of(case.t["right"]) - wrong.log()) / 0.02)
    r = torch.where((r.abs() > 0.02) & case.seen("wrong 0"), r, 0.0)
    assert 0 < int((r == 0).sum()) < N
    return mean(pg(case, torch.where(a > 0, (a + r).clamp(min=0), (a + r).clamp(max=0))))


@formula_of("credit")
def _(case):
    reward = case.of(case.t["own"]) - 0.1 * case.of(case.t["other question"]) - case.of(case.s).detach()
    return mean(pg(case, reward))


@formula_of("gear")
def _(case):
    a, h = a_of(case), entropy(case.s.detach())
    k = (-case.gap).clamp(min=0)
    k = k / k.max()
    w = torch.zeros(N, dtype=torch.float64)
    opened = None
    for i in range(N):
        if opened is not None and (ROLLOUT[i] != ROLLOUT[opened] or h[i] > 1.5 * h[opened]):
            opened = None
        if opened is None and k[i] > 0.1:
            opened = i
        w[i] = 0.0 if opened is None else k[opened]
    return mean(pg(case, a * (0.2 * torch.where(a > 0, 1 - w, w) + 0.9)))


@formula_of("dgrpo")
def _(case):
    return mean(pg(case, a_of(case)) + 0.5 * rkl(case, case.t["teacher"]))


@formula_of("cepo", step=5)
def _(case):
    a, share, own = a_of(case), 0.5 * (1 - 5 / 25), case.of(case.s).detach()
    against = torch.where(case.seen("wrong"), case.of(case.t["wrong"]) - own, 0.0)
    evidence = case.of(case.t["right"]) - own - against
    return mean(pg(case, a * (1 - share + share * (a.sign() * evidence).exp().clamp(0.5, 1.5))))


@formula_of("dasd")
def _(case):
    h = entropy(case.s.detach())
    means = torch.stack([case.gap[r == ROLLOUT].mean() for r in range(4)])[ROLLOUT]
    omega = torch.tanh(h.quantile(0.2) - h) * torch.sigmoid(case.gap.abs() - 1)
    return mean(pg(case, a_of(case) + omega * means))


@formula_of("sdar")
def _(case):
    return mean(pg(case, a_of(case)) + 0.01 * torch.sigmoid(5 * case.gap) * rkl(case, case.t["teacher"]))


@formula_of("aopd")
def _(case):
    return mean(torch.where(case.gap > 0, pg(case, case.gap), top_fkl(case, 32)))


@formula_of("reopold", spread=1.5)
def _(case):
    assert bool((case.gap < -2.56).any())
    return mean(pg(case, case.gap.clamp(min=-2.56)))


@formula_of("paced")
def _(case):
    return mean(fkl(case))


@formula_of("srpo")
def _(case):
    one, wrong = shortened(case, 100, case.s.detach()), OUTCOME <= 0
    certain = (-entropy(case.t["teacher"])).exp()
    certain = certain / certain[wrong].mean()
    distilled = certain * jsd(one(case.s), one(case.t["teacher"]))
    return mean(torch.where(wrong, distilled, pg(case, a_of(case))))


@formula_of("stable_opd")
def _(case):
    gap = case.of(case.t["teacher"]) - case.of(case.s).detach()
    kept = -gap * case.of(case.s) + 0.1 * rkl(case, case.t["reference"])
    return mean(torch.where(SOURCE == 0, kept, -0.1 * case.of(case.s)))


@formula_of("lightning_opd")
def _(case):
    return mean(pg(case, case.tokens.marked["teacher logprob"].double() - case.of(case.s).detach()))


@formula_of("brts")
def _(case):
    ours, theirs = shortened(case, 16, case.s.detach()), shortened(case, 16, case.t["teacher"])
    s, t = ours(case.s), ours(case.t["teacher"])
    backward = (s.exp() * (s - t)).sum(-1)
    s, t = theirs(case.s), theirs(case.t["teacher"])
    return mean(torch.where(SOURCE == 0, backward, 10 * (t.exp() * (t - s)).sum(-1)))


@formula_of("sort")
def _(case):
    ratio = (case.of(case.t["plan"]) - case.of(case.t["base"])).exp()
    return mean(-case.of(case.s), ratio.sqrt().clamp(max=2))


@formula_of("npo")
def _(case):
    return mean(pg(case, a_of(case)))


@formula_of("ttpo")
def _(case):
    return mean(torch.where(OUTCOME > 0, fkl(case), 0.1 * case.of(case.s)))


CALIBRATED = {"rock_tokens"}  # its weights are made of a run's start; see test_pieces


def test_every_method_has_its_formula_here():
    assert FORMULAS.keys() | CALIBRATED == METHODS.keys() and not FORMULAS.keys() & CALIBRATED


@pytest.mark.parametrize("key", FORMULAS)
def test_a_method_is_its_formula_and_its_gradient_that_of_autograd(key):
    formula, arguments = FORMULAS[key]
    assert_is(METHODS[key].make(), formula, **arguments)


def test_antisd_is_its_formula_once_the_gate_is_open():
    from dataclasses import replace

    recipe = METHODS["antisd"].make()
    opened = replace(recipe, objective=replace(recipe.objective, share=0.5))
    assert_is(opened, lambda case: mean(pg(case, a_of(case) - 0.5 * (F.softplus(case.gap) - math.log(2)) / 2)))


def test_paced_turns_to_reverse_kl_in_its_second_half():
    assert_is(METHODS["paced"].make(), lambda case: mean(rkl(case, case.t["teacher"])), step=51)


@pytest.mark.parametrize("key", ["rlsd", "cepo", "rlrt", "rlcsd", "gear"])
def test_a_token_never_gets_an_advantage_of_another_sign_than_its_rollout(key):
    _, _, columns, case = evaluated(METHODS[key].make(), spread=2.0)
    sign = case.tokens.advantage.sign()
    assert bool(((columns["advantage"].sign() == sign) | (columns["advantage"] == 0)).all())
