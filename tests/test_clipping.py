import dataclasses
import math
import warnings

import pytest
import torch

from opsd_lab.contexts import ContextBuilder
from opsd_lab.divergences import forward_kl, jsd, reverse_kl
from opsd_lab.objectives import OPSD, SampledTokenOPSD, Tokens
from opsd_lab.supervision.views import build_examples
from opsd_lab.training.clipping import COSINE, ClipMeasured, clip_cosine_of_weights
from opsd_lab.training.records import TrainingParams
from tests.test_fused import case, cut, exact_logits, losses
from tests.test_trainer import PARAMS, build, run, weights

OBJECTIVES = [
    OPSD(pointwise_clip=0.05),
    OPSD(pointwise_clip=1e-6),
    OPSD(reverse_kl, pointwise_clip=0.01, temperature=1.3),
    OPSD(jsd(0.3), pointwise_clip=1e-3, vocab_top_k=5),
]


def whole_gradient(objective, student, teacher):
    """The gradient by whole logits [N, V], in float64, by autograd through the readable function."""
    logits = exact_logits(student).detach().requires_grad_()
    loss = objective.divergence(logits, exact_logits(teacher).detach(), **objective.options)
    return torch.autograd.grad(loss.sum(), logits)[0]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_the_cosine_is_that_of_whole_gradients_in_float64(objective):
    student, teacher, token_ids, _ = case(n=13)
    clipped, whole = (whole_gradient(o, student, teacher) for o in (objective, dataclasses.replace(objective, pointwise_clip=None)))
    expected = torch.nn.functional.cosine_similarity(clipped, whole, dim=-1, eps=0)
    with cut(100, 40):  # a few tokens at a time
        found = losses(ClipMeasured(objective), student, teacher, token_ids).columns[COSINE]
    torch.testing.assert_close(found.double(), expected, atol=2e-4, rtol=0, equal_nan=True)


def test_a_small_clip_of_forward_kl_turns_the_gradient_round_and_a_large_one_does_not():
    student, other, token_ids, _ = case(n=40, vocabulary=200, scale=6.0)
    teacher = dataclasses.replace(other, hidden=student.hidden.detach() + 0.1 * other.hidden)
    measured = [ClipMeasured(OPSD(pointwise_clip=clip)) for clip in (1e3, 0.05, 1e-6)]
    means = [float(losses(objective, student, teacher, token_ids).columns[COSINE].mean()) for objective in measured]
    assert means[0] == pytest.approx(1, abs=1e-5) and means[0] > means[1] > 0 > means[2]


@pytest.mark.parametrize("grad", [True, False], ids=["training", "scoring"])
def test_measuring_changes_neither_loss_nor_gradient(grad):
    objective = OPSD(pointwise_clip=0.01)
    student, teacher, token_ids, tokens_weights = case()
    with torch.set_grad_enabled(grad):
        plain, measured = (losses(o, student, teacher, token_ids) for o in (objective, ClipMeasured(objective)))
    assert torch.equal(plain.loss, measured.loss)
    assert measured.columns.keys() - plain.columns.keys() == {"clip_cosine"}
    if grad:
        a, b = (torch.autograd.grad((x.loss * tokens_weights).sum(), student.hidden)[0] for x in (plain, measured))
        assert torch.equal(a, b)


def test_measuring_counts_the_tokens_that_the_objective_counts():
    some, none = torch.tensor([True, True, False]), torch.zeros(3, dtype=torch.bool)
    for needed, counted in ((("a",), some), (None, none)):
        tokens = Tokens(torch.arange(3), seen={"a": some, "b": none})
        assert ClipMeasured(OPSD(pointwise_clip=0.01, needed_views=needed)).counts(tokens).equal(counted)


def test_what_has_no_clip_cannot_be_measured():
    with pytest.raises(ValueError, match="has no clip to measure"):
        ClipMeasured(OPSD())
    with pytest.raises(TypeError, match="SampledTokenOPSD has no point-wise clip"):
        ClipMeasured(SampledTokenOPSD())
    with pytest.raises(ValueError, match="has no clip to measure"):
        build(params=dataclasses.replace(PARAMS, measure_clip=True))


def test_training_records_the_cosine_when_asked_and_warns_once_when_it_is_negative():
    params = dataclasses.replace(PARAMS, measure_clip=True)
    with pytest.warns(
        UserWarning, match=r"pointwise_clip = 1e-06 turns the gradient round.*mean cosine .* is -0\.\d\d.*Raise"
    ) as caught:
        records = run(build(objective=OPSD(pointwise_clip=1e-6), params=params), 3)
    assert len(caught) == 1 and all(-1 <= r.metrics["clip_cosine"] < 0 < r.metrics["clip_fraction"] <= 1 for r in records)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (record,) = run(build(objective=OPSD(pointwise_clip=5.0), params=params), 1)
    assert record.metrics["clip_cosine"] == pytest.approx(1, abs=1e-3)
    (plain,) = run(build(objective=OPSD(pointwise_clip=5.0)), 1)
    assert plain.loss == record.loss and "clip_cosine" not in plain.metrics and TrainingParams().measure_clip is False


def test_the_cosine_in_the_weights_is_that_of_two_gradients_and_leaves_the_gradients_alone():
    objective = OPSD(pointwise_clip=0.01)
    trainer = build(objective=objective)
    (record,) = run(trainer, 1)
    examples = build_examples(ContextBuilder(trainer.policy.tokenizer), trainer.problems, record.rollouts)
    kept = {name: p.grad.clone() for name, p in trainer.policy.trainable().items()}
    before = weights(trainer)
    found = clip_cosine_of_weights(trainer.policy, trainer.teacher, objective, examples, token_budget=1)
    gradients = []
    for one in (objective, OPSD()):
        total = sum(e.scored for e in examples)
        parts = {name: torch.zeros(p.shape, dtype=torch.float64) for name, p in trainer.policy.trainable().items()}
        for e in examples:
            logits = {}
            for side, prompt in (("student", e.prompts.student_ids), ("teacher", e.prompts.teacher_ids)):
                ids = torch.tensor([prompt + e.rollout.completion_ids], device=trainer.policy.device)
                with trainer.teacher.beside(trainer.policy) if side == "teacher" else torch.enable_grad():
                    logits[side] = trainer.policy.model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
            loss = forward_kl(logits["student"].double(), logits["teacher"].detach().double(), pointwise_clip=one.pointwise_clip)
            names, parameters = zip(*trainer.policy.trainable().items(), strict=True)
            for name, g in zip(names, torch.autograd.grad(loss.sum() / total, parameters), strict=True):
                parts[name] += g.cpu()
        gradients.append(torch.cat([g.flatten() for g in parts.values()]))
    assert found == pytest.approx(float(torch.nn.functional.cosine_similarity(*gradients, dim=0)), abs=1e-3)
    assert all(torch.equal(p.grad, kept[name]) and torch.equal(p, before[name]) for name, p in trainer.policy.trainable().items())
    with pytest.raises(ValueError, match="no examples"):
        clip_cosine_of_weights(trainer.policy, trainer.teacher, objective, [])
    assert not math.isnan(found)
