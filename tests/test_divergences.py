import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from opsd_lab.divergences import JSD, Divergence, Side, compare, forward_kl, jsd, reverse_kl
from opsd_lab.objectives import OPSD, Losses, SampledTokenOPSD, Teachers, Tokens, compute_losses

FULL = {"forward": forward_kl, "reverse": reverse_kl, "jsd.5": jsd(0.5), "jsd.2": jsd(0.2)}
OPTIONS = [
    {},
    {"temperature": 1.1},
    {"pointwise_clip": 0.05},
    {"vocab_top_k": 3},
    {"vocab_top_k": 3, "tail": "renormalise"},
    {"vocab_top_k": 3, "support": "student", "temperature": 0.7, "pointwise_clip": 0.2},
]


def logits(seed: int, *shape: int, scale: float = 2.0, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(*shape, generator=generator, dtype=torch.float64).mul(scale).to(dtype) for _ in range(2))


def by_definition(
    name, student, teacher, *, temperature=1.0, pointwise_clip=None, vocab_top_k=None, tail="bucket", support="teacher"
):
    """The definitions, entry by entry, in Python floats."""

    def probabilities(row):
        exps = [math.exp(x / temperature) for x in row]
        return [e / sum(exps) for e in exps]

    def one(s_row, t_row):
        s, t = probabilities(s_row), probabilities(t_row)
        if vocab_top_k:
            chosen = sorted(range(len(s)), key=lambda i: -(t if support == "teacher" else s)[i])[:vocab_top_k]

            def short(p):
                kept = [p[i] for i in chosen]
                return [*kept, 1 - sum(kept)] if tail == "bucket" else [x / sum(kept) for x in kept]

            s, t = short(s), short(t)
        total = 0.0
        for ps, pt in zip(s, t, strict=True):
            if name == "forward":
                term = pt * math.log(pt / ps)
            elif name == "reverse":
                term = ps * math.log(ps / pt)
            else:
                beta = float(name[3:])
                m = beta * pt + (1 - beta) * ps
                term = beta * pt * math.log(pt / m) + (1 - beta) * ps * math.log(ps / m)
            total += term if pointwise_clip is None else min(term, pointwise_clip)
        return total

    return [one(s, t) for s, t in zip(student.tolist(), teacher.tolist(), strict=True)]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", FULL)
def test_a_divergence_is_its_definition_entry_by_entry(name, options):
    student, teacher = logits(0, 5, 11)
    expected = torch.tensor(by_definition(name, student, teacher, **options), dtype=torch.float64)
    torch.testing.assert_close(FULL[name](student, teacher, **options), expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(FULL[name](student.float(), teacher.float(), **options).double(), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", FULL)
def test_the_gradient_is_the_numerical_one(name, options):
    student, teacher = logits(1, 3, 7)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: FULL[name](s, teacher, **options), student)


@pytest.mark.parametrize("options", [o for o in OPTIONS if "pointwise_clip" not in o], ids=str)
@pytest.mark.parametrize("name", FULL)
def test_identical_logits_have_no_divergence_and_no_gradient(name, options):
    student, _ = logits(2, 4, 50, dtype=torch.float32)
    student.requires_grad_()
    value = FULL[name](student, student.detach().clone(), **options)
    value.sum().backward()
    assert value.abs().max() < 1e-6
    assert student.grad.abs().max() < 1e-6


def test_the_full_divergences_agree_with_torch_distributions():
    student, teacher = logits(3, 6, 20)
    s, t = (torch.distributions.Categorical(logits=x) for x in (student, teacher))
    torch.testing.assert_close(forward_kl(student, teacher), torch.distributions.kl_divergence(t, s))
    torch.testing.assert_close(reverse_kl(student, teacher), torch.distributions.kl_divergence(s, t))


def test_jsd_is_symmetric_at_one_half_and_bounded_by_log_two():
    student, teacher = logits(4, 6, 20, scale=30)
    torch.testing.assert_close(jsd(0.5)(student, teacher), jsd(0.5)(teacher, student))
    assert (jsd(0.5)(student, teacher) <= math.log(2) + 1e-12).all()


@pytest.mark.parametrize("beta", [0, 1, -0.1, 1.5])
def test_jsd_refuses_the_ends_and_names_the_one_sided_divergences(beta):
    with pytest.raises(ValueError, match="forward_kl or reverse_kl"):
        jsd(beta)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(sorted(FULL)), st.floats(0.1, 200), st.integers(1, 12))
def test_extreme_logits_give_finite_non_negative_values_and_gradients(seed, name, scale, k):
    student, teacher = logits(seed, 4, 12, scale=scale, dtype=torch.float32)
    student.requires_grad_()
    value = FULL[name](student, teacher, vocab_top_k=k)
    value.sum().backward()
    assert value.isfinite().all() and (value > -1e-5).all()
    assert student.grad.isfinite().all()


def test_entries_that_both_sides_rule_out_add_nothing():
    student, teacher = logits(5, 2, 6)
    masked = [torch.cat([x, torch.full((2, 3), -torch.inf, dtype=x.dtype)], -1) for x in (student, teacher)]
    masked[0].requires_grad_()
    for divergence in (forward_kl, reverse_kl):
        value = divergence(*masked)
        torch.testing.assert_close(value, divergence(student, teacher))
        (gradient,) = torch.autograd.grad(value.sum(), masked[0])
        assert gradient.isfinite().all()


def test_half_precision_logits_give_the_float32_value():
    student, teacher = logits(6, 3, 30, dtype=torch.bfloat16)
    value = forward_kl(student, teacher)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, forward_kl(student.float(), teacher.float()), atol=0, rtol=0)


def test_the_tail_bucket_lies_between_renormalised_nothing_and_the_whole():
    student, teacher = logits(7, 8, 40)
    whole = forward_kl(student, teacher)
    for k in (1, 5, 20, 39):
        assert (forward_kl(student, teacher, vocab_top_k=k) <= whole + 1e-12).all()
    torch.testing.assert_close(forward_kl(student, teacher, vocab_top_k=40), whole)
    torch.testing.assert_close(forward_kl(student, teacher, vocab_top_k=99), whole)


def test_a_point_wise_clip_only_lowers_and_can_make_the_sum_negative():
    student, teacher = logits(8, 20, 10)
    clipped, whole = forward_kl(student, teacher, pointwise_clip=0.01), forward_kl(student, teacher)
    assert (clipped <= whole + 1e-12).all()
    assert (clipped < 0).any()


def test_the_sampled_token_estimate_averages_to_the_reverse_kl():
    student, teacher = logits(9, 1, 5)
    p = student.softmax(-1)[0]
    sides, estimates = (Side(student), Teachers(teacher=Side(teacher))), []
    for i in range(5):
        tokens = Tokens(torch.tensor([i]))
        SampledTokenOPSD().loss(*sides, tokens)
        estimates.append(tokens.recorded["divergence"][0])
    estimates = torch.stack(estimates)
    torch.testing.assert_close((p * estimates).sum(), reverse_kl(student, teacher)[0])


@pytest.mark.parametrize(
    ("options", "word"),
    [({"temperature": 0}, "temperature"), ({"vocab_top_k": 0}, "vocab_top_k")],
)
def test_a_bad_option_is_named(options, word):
    with pytest.raises(ValueError, match=word):
        forward_kl(*logits(0, 2, 5), **options)


def test_logits_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        forward_kl(torch.zeros(2, 5), torch.zeros(2, 6))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"temperature": 0.0}, ValueError, "temperature"),
        ({"temperature": float("nan")}, ValueError, "temperature"),
        ({"temperature": "1"}, TypeError, "temperature"),
        ({"pointwise_clip": 0.0}, ValueError, "pointwise_clip"),
        ({"pointwise_clip": -1.0}, ValueError, "pointwise_clip"),
        ({"pointwise_clip": float("inf")}, ValueError, "pointwise_clip"),
        ({"vocab_top_k": 0}, ValueError, "vocab_top_k"),
        ({"vocab_top_k": 2.5}, TypeError, "vocab_top_k"),
        ({"vocab_top_k": True}, TypeError, "vocab_top_k"),
        ({"vocab_top_k": 3, "tail": "Bucket"}, ValueError, "tail is out of range: 'Bucket'; it is 'bucket' or 'renormalise'"),
        ({"vocab_top_k": 3, "support": "both"}, ValueError, "support is out of range: 'both'"),
        (
            {"vocab_top_k": 1, "tail": "renormalise"},
            ValueError,
            "every loss is 0. Keep the tail as a bucket, or take vocab_top_k >= 2",
        ),
    ],
    ids=str,
)
def test_an_option_that_means_nothing_is_refused_wherever_it_is_given(options, error, words):
    with pytest.raises(error, match=words):
        OPSD(**options)
    for divergence in (forward_kl, reverse_kl, jsd(0.5)):
        with pytest.raises(error, match=words):
            divergence(*logits(0, 2, 5), **options)
        with pytest.raises(error, match=words):
            compare(divergence, *map(Side, logits(0, 2, 5)), **options, slope=True)


@pytest.mark.parametrize("options", [{"tail": "renormalise"}, {"support": "student"}], ids=str)
def test_what_says_how_to_shorten_a_vocabulary_that_is_not_shortened_is_refused(options):
    with pytest.raises(ValueError, match="give vocab_top_k as well"):
        OPSD(**options)


@pytest.mark.parametrize(
    "given", [jsd, JSD, "forward_kl", None, lambda s, t: (s - t).abs().sum(-1)], ids=["jsd", "class", "text", "none", "function"]
)
def test_what_is_no_divergence_is_refused_when_the_objective_is_made(given):
    with pytest.raises(
        TypeError, match=r"OPSD: divergence is .*, not a Divergence; take forward_kl, reverse_kl or jsd\(0\.5\), or write"
    ):
        OPSD(given)


@pytest.mark.parametrize("beta", [None, "0.5", True])
def test_jsd_takes_a_number(beta):
    with pytest.raises(TypeError, match="jsd: beta takes a number"):
        jsd(beta)


@dataclass(frozen=True)
class Powered(Divergence):
    """A divergence of one's own that happens to have an attribute that a known one has."""

    beta: float = 0.5

    def terms(self, student, teacher):
        return ((student.probabilities - teacher.probabilities).abs() + 1e-3).pow(self.beta)


class Doubled(JSD):
    """A known divergence's subclass that computes something else."""

    def terms(self, student, teacher):
        return 2 * super().terms(student, teacher)


class Renyi(Divergence):
    """One that is no sum over entries."""

    def terms(self, student, teacher):
        raise NotImplementedError

    def value(self, student, teacher):
        return -2 * (0.5 * (student.logprobs + teacher.logprobs)).logsumexp(-1)


ALL = [{}, {"temperature": 1.7}, {"vocab_top_k": 3, "support": "student"}, {"vocab_top_k": 3, "tail": "renormalise"}]
CLIPPED = [{"pointwise_clip": 0.05}, {"vocab_top_k": 4, "pointwise_clip": 0.1, "temperature": 0.8}]


@pytest.mark.parametrize(
    ("divergence", "options"),
    [(d, o) for d in (*FULL.values(), Powered(), Doubled(0.3)) for o in ALL + CLIPPED] + [(Renyi(), o) for o in ALL],
    ids=lambda value: type(value).__name__ if isinstance(value, Divergence) else str(value),
)
def test_every_option_goes_around_every_divergence_and_every_slope_is_autograds(divergence, options):
    student, teacher = logits(3, 4, 9)
    leaf = student.clone().requires_grad_()
    expected = divergence(leaf, teacher, **options)
    (gradient,) = torch.autograd.grad(expected.sum(), leaf)
    tokens = Tokens(torch.zeros(4, dtype=torch.long))
    found = compute_losses(OPSD(divergence, **options), Side(student), Teachers(teacher=Side(teacher)), tokens, slope=True)
    torch.testing.assert_close(found.loss, expected.detach(), atol=1e-12, rtol=0)
    torch.testing.assert_close(found.slope, gradient, atol=1e-12, rtol=0)


def test_a_divergence_that_is_no_sum_is_its_formula_and_cannot_be_clipped():
    student, teacher = logits(3, 4, 9)
    s, t = student.softmax(-1), teacher.softmax(-1)
    torch.testing.assert_close(Renyi()(student, teacher), -2 * (s * t).sqrt().sum(-1).log())
    with pytest.raises(TypeError, match="pointwise_clip bounds the terms of a sum over entries, and Renyi is none"):
        OPSD(Renyi(), pointwise_clip=0.1)


def own(result):
    class Own(Divergence):
        def terms(self, student, teacher):
            return result(student.logprobs, teacher.logprobs)

        def value(self, student, teacher):
            return result(student.logprobs, teacher.logprobs)

    return OPSD(Own())


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (lambda s, t: s.mean(), r"the divergence Own.value returned a tensor \(\) of torch\.float64, not floats of the shape \(4,\)"),
        (lambda s, t: math.exp, "value returned builtin_function_or_method, not floats"),
        (lambda s, t: t.mean(-1), "OPSD.loss does not depend on the student's logits"),
    ],
    ids=["mean", "function", "constant"],
)
def test_a_divergence_of_ones_own_that_returns_something_else_is_named(result, words):
    student, teacher = logits(3, 4, 9)
    with pytest.raises(TypeError, match=words):
        compute_losses(
            own(result), Side(student), Teachers(teacher=Side(teacher)), Tokens(torch.zeros(4, dtype=torch.long)), slope=True
        )


@dataclass(frozen=True)
class Scaled(OPSD):
    """An objective with a field of its own."""

    scale: float = 2.0

    def loss(self, student, teachers, tokens):
        return self.scale * super().loss(student, teachers, tokens)


def test_an_objective_made_from_opsd_may_have_fields_and_a_loss_of_its_own():
    student, teacher = map(Side, logits(3, 4, 9))
    tokens = Tokens(torch.zeros(4, dtype=torch.long))
    plain, scaled = (
        compute_losses(o, student, Teachers(teacher=teacher), tokens, slope=True)
        for o in (OPSD(temperature=1.2), Scaled(temperature=1.2, scale=3.0))
    )
    assert isinstance(plain, Losses)
    torch.testing.assert_close(scaled.loss, 3 * plain.loss)
    torch.testing.assert_close(scaled.slope, 3 * plain.slope)
