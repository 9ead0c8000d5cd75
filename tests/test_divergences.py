import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from opsd_lab.divergences import Side, Tokens, divergence_terms, forward_kl, jsd, reverse_kl, sampled_token
from opsd_lab.divergences.reference import JSD
from opsd_lab.objectives.opsd import OPSD

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
    estimates = torch.stack([sampled_token(student, teacher, torch.tensor([i]))[0] for i in range(5)])
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
            divergence_terms(divergence, *map(Side, logits(0, 2, 5)), **options)


@pytest.mark.parametrize("options", [{"tail": "renormalise"}, {"support": "student"}], ids=str)
def test_what_says_how_to_shorten_a_vocabulary_that_is_not_shortened_is_refused(options):
    with pytest.raises(ValueError, match="give vocab_top_k as well"):
        OPSD(**options)


def takes_no_options(student_logits, teacher_logits):
    return (student_logits.softmax(-1) - teacher_logits.softmax(-1)).abs().sum(-1)


def makes_one(alpha=0.5):
    return takes_no_options


@pytest.mark.parametrize(
    ("given", "options", "words"),
    [
        (sampled_token, {}, r"sampled_token is no full-vocabulary divergence; use the objective SampledTokenOPSD\(\)"),
        (jsd, {}, r"jsd is no full-vocabulary divergence; call it, as in OPSD\(jsd\(0\.5\)\)"),
        ("forward_kl", {}, "'forward_kl' is no divergence"),
        (None, {}, "None is no divergence"),
        (makes_one, {}, r"makes_one cannot be called with the logits of student and teacher .*call it first"),
        (takes_no_options, {"temperature": 2.0}, r"takes_no_options cannot be called with .*temperature.* must be left out"),
    ],
    ids=["sampled_token", "jsd", "text", "none", "factory", "option"],
)
def test_what_is_no_divergence_is_refused_when_the_objective_is_made(given, options, words):
    with pytest.raises(TypeError, match=words):
        OPSD(given, **options)


@pytest.mark.parametrize("beta", [None, "0.5", True])
def test_jsd_takes_a_number(beta):
    with pytest.raises(TypeError, match="jsd: beta takes a number"):
        jsd(beta)


class Powered:
    """A divergence of one's own that happens to have an attribute that a known one has."""

    beta = 0.5

    def __call__(self, student_logits, teacher_logits, *, temperature=1.0):
        s, t = ((x / temperature).softmax(-1) for x in (student_logits, teacher_logits))
        return ((s - t).abs() + 1e-3).pow(self.beta).sum(-1)


class Doubled(JSD):
    """A known divergence's subclass that computes something else."""

    def __call__(self, student_logits, teacher_logits, **options):
        return 2 * super().__call__(student_logits, teacher_logits, **options)


@pytest.mark.parametrize(
    ("divergence", "options"),
    [
        (Powered(), {}),
        (Powered(), {"temperature": 1.7}),
        (Doubled(0.3), {}),
        (Doubled(0.3), {"vocab_top_k": 3}),
        (takes_no_options, {}),
    ],
    ids=["attribute", "attribute, tempered", "subclass", "subclass, shortened", "function"],
)
def test_a_divergence_of_ones_own_is_computed_as_it_is_defined(divergence, options):
    student, teacher = logits(3, 4, 9)
    leaf = student.clone().requires_grad_()
    expected = divergence(leaf, teacher, **options)
    (gradient,) = torch.autograd.grad(expected.sum(), leaf)
    found = OPSD(divergence, **options).terms(Side(student), Side(teacher), Tokens(torch.zeros(4, dtype=torch.long)), True)
    torch.testing.assert_close(found.loss, expected.detach())
    torch.testing.assert_close(found.slope, gradient)


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (lambda s, t: s.mean(), r"returned a tensor \(\) of torch\.float64, not one float for each of 4 positions"),
        (lambda s, t: takes_no_options, "returned function, not one float"),
        (lambda s, t: t.mean(-1), "does not depend on the student's logits"),
    ],
    ids=["mean", "factory", "constant"],
)
def test_a_divergence_of_ones_own_that_returns_something_else_is_named(own, words):
    student, teacher = map(Side, logits(3, 4, 9))
    with pytest.raises(TypeError, match=f"the divergence <lambda> {words}"):
        OPSD(own).terms(student, teacher, Tokens(torch.zeros(4, dtype=torch.long)), True)


@dataclass(frozen=True)
class Scaled(OPSD):
    """An objective with a field of its own."""

    scale: float = 2.0

    def terms(self, student, teacher, tokens, slope):
        found = super().terms(student, teacher, tokens, slope)
        return found._replace(loss=self.scale * found.loss, slope=self.scale * found.slope if slope else None)


def test_an_objective_made_from_opsd_may_have_fields_of_its_own():
    student, teacher = map(Side, logits(3, 4, 9))
    tokens = Tokens(torch.zeros(4, dtype=torch.long))
    plain, scaled = (o.terms(student, teacher, tokens, True) for o in (OPSD(temperature=1.2), Scaled(temperature=1.2, scale=3.0)))
    torch.testing.assert_close(scaled.loss, 3 * plain.loss)
    torch.testing.assert_close(scaled.slope, 3 * plain.slope)
