import contextlib
import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from opsd_lab.divergences import Divergence, Side, forward_kl, jsd, reverse_kl
from opsd_lab.divergences import fused as fused_module
from opsd_lab.objectives import OPSD, SampledTokenOPSD, Tokens
from opsd_lab.policies.head import LogitHead
from opsd_lab.scoring.forward import CompletionStates
from opsd_lab.scoring.pipeline import token_losses
from tests.conftest import tiny_policy

FULL = {"forward": forward_kl, "reverse": reverse_kl, "jsd.5": jsd(0.5), "jsd.2": jsd(0.2)}
OPTIONS = [
    {},
    {"temperature": 1.1},
    {"pointwise_clip": 0.05},
    {"pointwise_clip": 1e-6, "temperature": 0.7},
    {"vocab_top_k": 3},
    {"vocab_top_k": 500},
    {"vocab_top_k": 3, "tail": "renormalise"},
    {"vocab_top_k": 3, "tail": "renormalise", "support": "student", "pointwise_clip": 0.01},
    {"vocab_top_k": 3, "support": "student", "temperature": 0.7, "pointwise_clip": 0.2},
]


@contextlib.contextmanager
def cut(block, piece):
    before = fused_module.BLOCK, fused_module.PIECE, fused_module.ROWS
    fused_module.BLOCK, fused_module.PIECE, fused_module.ROWS = {"cpu": block}, {"cpu": piece}, 1
    try:
        yield
    finally:
        fused_module.BLOCK, fused_module.PIECE, fused_module.ROWS = before


def case(seed=0, n=13, width=8, vocabulary=37, *, scale=2.0, dtype=torch.float32, bias=False, **head):
    """Both sides' states with one frozen head, the tokens, and a weight for each."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    module = nn.Linear(width, vocabulary, bias=bias).requires_grad_(False).to(dtype)
    module.weight.copy_(draw(vocabulary, width) * scale / math.sqrt(width))
    if bias:
        module.bias.copy_(draw(vocabulary))
    logit_head = LogitHead(module, **head)
    student = CompletionStates(draw(n, width).to(dtype).requires_grad_(), logit_head)
    teacher = CompletionStates(draw(n, width).to(dtype), logit_head)
    return student, teacher, torch.randint(vocabulary, (n,), generator=generator), torch.rand(n, generator=generator)


def losses(objective, student, teacher, tokens):
    """The losses of tokens, given as ids or with what is known of them, and their columns."""
    tokens = tokens if isinstance(tokens, Tokens) else Tokens(tokens)
    loss, readings = token_losses(objective, student, {} if teacher is None else {"teacher": teacher}, tokens)
    return SimpleNamespace(loss=loss, columns=readings[""])


def exact_logits(states):
    """Logits in float64, with the gradient of the states."""
    head = states.head
    logits = states.hidden.double() @ head.module.weight.double().T
    logits = (logits if head.module.bias is None else logits + head.module.bias.double()) * head.scale
    return logits if head.softcap is None else head.softcap * torch.tanh(logits / head.softcap)


def exact_loss(objective, student, teacher, token_ids):
    """The loss of each token by the readable functions, in float64."""
    s, t = exact_logits(student), exact_logits(teacher).detach()
    if isinstance(objective, SampledTokenOPSD):
        ours, theirs = (Side(x).at(objective.temperature).of(token_ids) for x in (s, t))
        estimate = (ours - theirs).detach()
        return estimate * (s / objective.temperature).log_softmax(-1).gather(-1, token_ids[:, None])[:, 0]
    return objective.divergence(s, t, **objective.options)


def assert_equal_to_reference(objective, student, teacher, token_ids, weights, tolerance=1e-5):
    expected = exact_loss(objective, student, teacher, token_ids)
    (gradient,) = torch.autograd.grad((expected * weights).sum(), student.hidden)
    found = losses(objective, student, teacher, token_ids)
    loss, columns = found.loss, found.columns
    (found,) = torch.autograd.grad((loss * weights).sum(), student.hidden)
    torch.testing.assert_close(loss.double(), expected, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(columns["loss"], loss.detach(), atol=0, rtol=0)
    coarse = 2**-7 if student.hidden.dtype == torch.bfloat16 else tolerance  # a bfloat16 gradient is rounded in the end
    steepness = max(1.0, float(student.head.module.weight.abs().max()))  # what errors of the slopes are multiplied with
    torch.testing.assert_close(found, gradient.to(found.dtype), atol=tolerance * steepness, rtol=coarse)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", FULL)
def test_value_and_gradient_are_the_references(name, options):
    assert_equal_to_reference(OPSD(FULL[name], **options), *case())


@pytest.mark.parametrize("temperature", [1.0, 1.3])
def test_the_sampled_token_loss_and_its_gradient_are_the_references(temperature):
    assert_equal_to_reference(SampledTokenOPSD(temperature), *case())


@pytest.mark.parametrize(
    "head", [{"bias": True}, {"softcap": 3.0}, {"scale": 0.25}, {"bias": True, "softcap": 5.0, "scale": 1.5}], ids=str
)
@pytest.mark.parametrize("objective", [OPSD(), OPSD(jsd(0.3), temperature=1.2), SampledTokenOPSD()], ids=repr)
def test_biased_scaled_and_capped_heads_are_followed_back(objective, head):
    assert_equal_to_reference(objective, *case(**head))


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    name=st.sampled_from(sorted(FULL)),
    options=st.sampled_from(OPTIONS),
    n=st.integers(1, 40),
    vocabulary=st.integers(2, 90),
    scale=st.sampled_from([0.01, 1.0, 6.0, 60.0]),
    block=st.integers(1, 4000),
    piece=st.integers(1, 500),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_no_shape_cut_scale_or_dtype_changes_the_result(seed, name, options, n, vocabulary, scale, block, piece, dtype):
    student, teacher, token_ids, weights = case(seed, n, 5, vocabulary, scale=scale, dtype=dtype)
    spread = float(exact_logits(student).abs().max().detach())
    with cut(block, piece):  # float32 logits are known to about 1e-7 of their size, and the losses follow them
        assert_equal_to_reference(OPSD(FULL[name], **options), student, teacher, token_ids, weights, 1e-5 * max(1.0, spread / 20))


def test_vocabulary_entries_that_both_sides_rule_out_add_nothing():
    student, teacher, token_ids, weights = case(bias=True)
    student.head.module.bias[5:9] = -math.inf
    token_ids = token_ids.where((token_ids < 5) | (token_ids > 8), 0)
    for options in ({}, {"vocab_top_k": 3}, {"vocab_top_k": 33}, {"vocab_top_k": 35}):
        for divergence in FULL.values():
            assert_equal_to_reference(OPSD(divergence, **options), student, teacher, token_ids, weights)
    columns = losses(OPSD(), student, teacher, token_ids).columns
    assert all(values.isfinite().all() for values in columns.values())


def test_extreme_logits_give_finite_losses_and_gradients():
    student, teacher, token_ids, _ = case(scale=300.0)
    for divergence in FULL.values():
        loss = losses(OPSD(divergence), student, teacher, token_ids).loss
        (gradient,) = torch.autograd.grad(loss.sum(), student.hidden)
        assert loss.isfinite().all() and gradient.isfinite().all()


def test_a_divergence_of_ones_own_is_differentiated_by_autograd():
    class Squared(Divergence):
        def terms(self, student, teacher):
            return (student.logprobs - teacher.logprobs).square()

    assert_equal_to_reference(OPSD(Squared(), temperature=1.5, pointwise_clip=0.5), *case())


def test_the_clipped_part_is_what_the_clip_took():
    student, teacher, token_ids, _ = case()
    for divergence in FULL.values():
        columns = losses(OPSD(divergence, pointwise_clip=0.02), student, teacher, token_ids).columns
        whole = divergence(exact_logits(student), exact_logits(teacher)).float().detach()
        torch.testing.assert_close(columns["clipped"], whole - columns["divergence"], atol=1e-5, rtol=1e-5)
        assert (columns["clipped"] > 0).any()


def test_the_statistics_are_those_of_the_whole_distributions():
    student, teacher, token_ids, _ = case(n=50)
    with cut(300, 80):
        columns = losses(OPSD(temperature=1.7), student, teacher, token_ids).columns  # recorded at temperature 1 all the same
    for name, states in (("student", student), ("teacher", teacher)):
        logits = exact_logits(states).detach()
        logprobs = torch.distributions.Categorical(logits=logits)
        torch.testing.assert_close(columns[f"{name}_logprob"].double(), logprobs.log_prob(token_ids), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(columns[f"{name}_entropy"].double(), logprobs.entropy(), atol=1e-5, rtol=1e-5)
        order = logits.argsort(-1, descending=True)
        assert torch.equal(columns[f"{name}_rank"], (order == token_ids[:, None]).nonzero()[:, 1])


def test_reading_several_teachers_gives_the_columns_of_each_loss_and_the_likeliest_tokens():
    student, teacher, token_ids, _ = case(n=30)
    other = CompletionStates(torch.randn(30, 8), teacher.head)
    with cut(400, 100):
        views = {"one": teacher, "two": other}
        with torch.no_grad():
            found = token_losses(
                OPSD(jsd(0.5)), student, views, Tokens(token_ids), readings={"one": ("one",), "two": ("two",)}, top_k=4
            ).readings
        for name, states in (("one", teacher), ("two", other)):
            for column, values in losses(OPSD(jsd(0.5)), student, states, token_ids).columns.items():
                torch.testing.assert_close(found[name][column], values, atol=1e-6, rtol=1e-6)
            top = exact_logits(states).log_softmax(-1).topk(4)
            assert torch.equal(found[name]["teacher_top_ids"].long(), top.indices)
            torch.testing.assert_close(found[name]["teacher_top_logprobs"].double(), top.values, atol=1e-5, rtol=1e-5)
            elsewhere = exact_logits(student).log_softmax(-1).gather(-1, top.indices).detach()
            torch.testing.assert_close(found[name]["teacher_top_elsewhere"].double(), elsewhere, atol=1e-5, rtol=1e-5)


def trainable(states, kind):
    """The student's states with a head that trains, as float32 parameters."""
    module = nn.Linear(8, 37, bias=kind == "bias")
    module.load_state_dict(states.head.module.state_dict(), strict=False)
    if kind == "lora":
        module = get_peft_model(
            nn.Sequential(module), LoraConfig(r=2, target_modules=["0"], init_lora_weights=False)
        ).get_base_model()[0]
    return CompletionStates(states.hidden, LogitHead(module, softcap=4.0))


@pytest.mark.parametrize("kind", ["plain", "bias", "lora"])
@pytest.mark.parametrize("objective", [OPSD(), OPSD(reverse_kl, vocab_top_k=3), SampledTokenOPSD()], ids=repr)
def test_a_head_that_trains_gets_the_references_gradient(objective, kind):
    student, teacher, token_ids, weights = case()
    student = trainable(student, kind)
    parameters = [student.hidden, *(p for p in student.head.module.parameters() if p.requires_grad)]
    assert len(parameters) == {"plain": 2, "bias": 3, "lora": 3}[kind]
    logits = student.head(student.hidden)
    as_logits = SimpleNamespace(
        hidden=logits, head=SimpleNamespace(module=SimpleNamespace(weight=torch.eye(37), bias=None), scale=1, softcap=None)
    )
    expected = exact_loss(objective, as_logits, teacher, token_ids)
    gradients = torch.autograd.grad((expected * weights).sum(), parameters)
    with cut(120, 40):
        loss = losses(objective, student, teacher, token_ids).loss
        found = torch.autograd.grad((loss * weights).sum(), parameters)
    torch.testing.assert_close(loss.double(), expected, atol=1e-5, rtol=1e-5)
    for one, other in zip(found, gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_a_frozen_head_and_the_teacher_get_no_gradient():
    student, teacher, token_ids, _ = case()
    teacher.hidden.requires_grad_()
    losses(OPSD(), student, teacher, token_ids).loss.sum().backward()
    assert student.hidden.grad is not None
    assert teacher.hidden.grad is None and student.head.module.weight.grad is None


def test_without_gradients_the_loss_has_none_and_the_same_value():
    student, teacher, token_ids, _ = case()
    with torch.no_grad():
        loss = losses(OPSD(), student, teacher, token_ids).loss
    assert not loss.requires_grad
    assert torch.equal(loss, losses(OPSD(), student, teacher, token_ids).loss.detach())


class Largest(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor that any operation returned."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.elements = max([self.elements, *(x.numel() for x in tree_leaves(result) if isinstance(x, torch.Tensor))])
        return result


@pytest.mark.parametrize("trains", [False, True])
@pytest.mark.parametrize("objective", [OPSD(), OPSD(jsd(0.5), vocab_top_k=5), SampledTokenOPSD()], ids=repr)
def test_no_tensor_grows_with_the_number_of_tokens(objective, trains):
    def largest(n):
        student, teacher, token_ids, _ = case(n=n, width=3, vocabulary=200)
        if trains:
            student.head.module.requires_grad_()
            teacher = CompletionStates(teacher.hidden, student.head.kept())
        with cut(4000, 1000), Largest() as watch:
            losses(objective, student, teacher, token_ids).loss.sum().backward()
        return watch.elements

    assert largest(40) == largest(400) == 4000


def test_a_kept_head_gives_the_logits_of_the_weights_it_was_made_under():
    policy = tiny_policy()
    head = LogitHead.of(policy)
    hidden = torch.randn(4, 32).to(policy.device)
    before, kept = head(hidden).detach(), head.kept()
    assert kept.is_frozen and kept.size == head.size
    assert kept.module.weight.data_ptr() == head.module.weight.data_ptr()  # no copy of a matrix that may take gigabytes
    head.module.weight.data = head.module.weight.data * 2
    assert torch.equal(kept(hidden), before)
    assert not torch.equal(head(hidden), before)


def test_a_head_that_trains_cannot_be_pulled_back_by_hand():
    with pytest.raises(TypeError, match="differentiate its call"):
        LogitHead(nn.Linear(3, 5)).pull_back(torch.zeros(1, 5))
