"""The same completions under several views: one scoring, whatever the batches, interruptions and processors' number formats."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from opsd_lab.contexts import ContextBuilder, answer_only, no_privilege, other_problem, reference_solution
from opsd_lab.divergences import reverse_kl
from opsd_lab.objectives import OPSD, SampledTokenOPSD
from opsd_lab.policies.head import LogitHead
from opsd_lab.policies.teachers import OtherTeacher, ema_teacher, fixed_teacher, live_teacher
from opsd_lab.rollouts import HFSampler, SamplingParams, sample_rollouts
from opsd_lab.scoring.batching import Example, build_batch
from opsd_lab.scoring.forward import score_completions
from opsd_lab.supervision.views import build_examples, score_rollouts, score_views, text_rollout
from opsd_lab.tokens.top import ARRAYS
from tests.conftest import tiny_policy


def rollouts_of(policy, contexts, problems):
    return sample_rollouts(HFSampler(policy, progress=False), contexts, problems, SamplingParams(9, seed=3))


@pytest.fixture
def views(policy, problems, contexts):
    rollouts = rollouts_of(policy, contexts, problems)
    chosen = {"reference": reference_solution, "answer": answer_only, "other": other_problem(problems), "none": no_privilege}
    return {
        name: build_examples(ContextBuilder(policy.tokenizer, view, contexts.student, contexts.teacher), problems, rollouts)
        for name, view in chosen.items()
    }


@pytest.fixture
def trained(policy):
    with torch.no_grad():
        for p in policy.trainable().values():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)).to(p))
    return policy


@pytest.mark.parametrize(
    "objective", [OPSD(), OPSD(reverse_kl, vocab_top_k=5), SampledTokenOPSD()], ids=["forward", "top-k", "sampled"]
)
def test_views_scored_together_are_the_views_scored_apart(trained, views, objective):
    teacher = fixed_teacher(trained)
    together = score_views(trained, teacher, objective, views, token_budget=700, top_k=4)
    for name, examples in views.items():
        alone = score_rollouts(trained, teacher, objective, examples, token_budget=10**6, top_k=4)
        pd.testing.assert_frame_equal(together[name].frame, alone.frame, atol=1e-4, rtol=0)
        assert (together[name].top.student_top_ids == alone.top.student_top_ids).mean() > 0.99, "equal numbers may change places"
        student = [c for c in alone.frame if c.startswith("student")]
        pd.testing.assert_frame_equal(together[name].frame[student], together["reference"].frame[student], check_exact=True)


def test_a_view_without_privilege_has_no_gap_and_no_divergence(policy, views):
    frame = score_views(policy, live_teacher(), OPSD(), views)["none"].frame
    assert frame["gap"].abs().max() < 1e-5 and frame["divergence"].abs().max() < 1e-6


def test_the_student_runs_once_and_the_teacher_once_per_view(policy, views, monkeypatch):
    passes = []
    trunk = policy.causal_lm.get_decoder()
    forward = trunk.forward
    monkeypatch.setattr(trunk, "forward", lambda *args, **kwargs: passes.append(1) or forward(*args, **kwargs))
    score_views(policy, live_teacher(), OPSD(), views, token_budget=10**6)
    assert len(passes) == 1 + len(views)


def test_the_most_probable_tokens_are_those_of_the_full_distributions(policy, views):
    table = score_views(policy, live_teacher(), OPSD(), views, top_k=6)["answer"]
    example, top = views["answer"][2], table.rollout(2).top
    logprobs = {}
    for side, prompt in (("student", example.prompts.student_ids), ("teacher", example.prompts.teacher_ids)):
        ids = torch.tensor([prompt + example.rollout.completion_ids], device=policy.device)
        with torch.no_grad():
            logprobs[side] = policy.model(input_ids=ids).logits[0, len(prompt) - 1 : -1].double().log_softmax(-1).cpu()
    for side, other in (("student", "teacher"), ("teacher", "student")):
        for row in range(len(top)):
            ids = getattr(top, f"{side}_top_ids")[row]
            expected = logprobs[side][row].topk(6)
            np.testing.assert_allclose(getattr(top, f"{side}_top_logprobs")[row], expected.values, atol=1e-5)
            np.testing.assert_allclose(logprobs[side][row][ids.tolist()], expected.values, atol=1e-5)
            np.testing.assert_allclose(getattr(top, f"{side}_top_elsewhere")[row], logprobs[other][row][ids.tolist()], atol=1e-5)
    assert top.texts.keys() >= set(top.student_top_ids.flatten().tolist())


def test_the_student_can_have_the_weights_of_before_training(policy, views, request):
    initial_weights = fixed_teacher(policy)
    initial = score_rollouts(policy, live_teacher(), OPSD(), views["none"]).frame
    trained = request.getfixturevalue("trained")
    before = score_rollouts(trained, live_teacher(), OPSD(), views["none"], student=initial_weights).frame
    after = score_rollouts(trained, live_teacher(), OPSD(), views["none"]).frame
    np.testing.assert_allclose(before["student_logprob"], initial["student_logprob"], atol=1e-5)
    np.testing.assert_allclose(before["teacher_logprob"], after["teacher_logprob"], atol=1e-5)
    assert (before["student_logprob"] - after["student_logprob"]).abs().max() > 1e-2


def test_an_interrupted_scoring_goes_on_where_it_stopped_and_gives_the_same_table(policy, views, tmp_path, monkeypatch):
    whole = score_views(policy, live_teacher(), OPSD(), views, token_budget=600, top_k=3)
    calls = []

    trunk = policy.causal_lm.get_decoder()
    forward = trunk.forward

    def stopping(*args, **kwargs):
        calls.append(1)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return forward(*args, **kwargs)

    monkeypatch.setattr(trunk, "forward", stopping)
    with pytest.raises(KeyboardInterrupt):
        score_views(policy, live_teacher(), OPSD(), views, token_budget=600, top_k=3, parts=tmp_path)
    finished = len(list(tmp_path.glob("part-*")))
    resumed = score_views(policy, live_teacher(), OPSD(), views, token_budget=600, top_k=3, parts=tmp_path)
    batches = len(list(tmp_path.glob("part-*")))
    assert finished == 1 and len(calls) - 9 == (batches - finished) * (1 + len(views)), "nothing finished is computed again"
    for name, table in whole.items():
        pd.testing.assert_frame_equal(resumed[name].frame, table.frame, check_exact=True)
        assert all(np.array_equal(getattr(resumed[name].top, a), getattr(table.top, a)) for a in ARRAYS)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("weights", "the student's adapter"),
        ("objective", r"objective\.divergence \(ForwardKL there, ReverseKL here\)"),
        ("rollouts", "rollouts"),
        ("top_k", r"top_k \(0 there, 2 here\)"),
        ("view", "view 'answer'"),
    ],
)
def test_parts_of_another_scoring_are_refused_and_what_differs_is_named(policy, views, tmp_path, change, told):
    views = {"reference": views["reference"][:2]}
    score_views(policy, live_teacher(), OPSD(), views, parts=tmp_path)
    objective, top_k = OPSD(), 0
    match change:
        case "weights":
            with torch.no_grad():
                next(iter(policy.trainable().values())).add_(1e-3)
        case "objective":
            objective = OPSD(reverse_kl)
        case "rollouts":
            views = {"reference": views["reference"][:1]}
        case "top_k":
            top_k = 2
        case "view":
            views = {"answer": views["reference"]}
    with pytest.raises(ValueError, match=f"parts of another scoring: .*{told}"):
        score_views(policy, live_teacher(), objective, views, top_k=top_k, parts=tmp_path)


def test_parts_of_another_teacher_of_the_same_kind_are_refused(policy, views, tmp_path):
    views = {"none": views["none"][:2]}
    score_views(policy, OtherTeacher(tiny_policy(seed=5), policy), OPSD(), views, parts=tmp_path)
    known = score_views(policy, OtherTeacher(tiny_policy(seed=5), policy), OPSD(), views, parts=tmp_path)
    assert len(known["none"]), "the same weights, loaded anew, are the same teacher"
    with pytest.raises(ValueError, match="parts of another scoring: the teacher's weights;"):
        score_views(policy, OtherTeacher(tiny_policy(seed=6), policy), OPSD(), views, parts=tmp_path)


def test_a_note_that_a_full_disk_cut_short_stops_nothing_until_a_part_stands_beside_it(policy, views, tmp_path):
    views = {"none": views["none"][:2]}
    (tmp_path / "scoring.json").write_text("")
    score_views(policy, live_teacher(), OPSD(), views, parts=tmp_path)
    (tmp_path / "scoring.json").write_text("{")
    with pytest.raises(ValueError, match=r"scoring\.json cannot be read"):
        score_views(policy, live_teacher(), OPSD(), views, parts=tmp_path)


def test_a_damaged_part_is_named(policy, views, tmp_path):
    views = {"none": views["none"][:2]}
    score_views(policy, live_teacher(), OPSD(), views, parts=tmp_path)
    path = tmp_path / "part-000000.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"part-000000\.safetensors is damaged .*; delete it"):
        score_views(policy, live_teacher(), OPSD(), views, parts=tmp_path)


def test_parts_of_an_objective_that_cannot_be_identified_are_refused_before_any_work(policy, views, tmp_path):
    class Holding(OPSD):
        pass

    objective = Holding()
    object.__setattr__(objective, "log", (i for i in ()))
    with pytest.raises(TypeError, match=r"objective\.log cannot be identified: .*generator"):
        score_views(policy, live_teacher(), objective, {"none": views["none"][:2]}, parts=tmp_path)
    assert not list(tmp_path.glob("part-*"))


def test_views_that_know_other_things_of_a_rollout_are_refused_and_the_place_is_named(policy, views):
    one, two = views["reference"], list(views["answer"])
    for fact, value in (("outcome", 1.0), ("weight", 0.5), ("marked", {"m": (1.0,) * two[1].scored})):
        changed = [two[0], replace(two[1], **{fact: value}), *two[2:]]
        with pytest.raises(ValueError, match=f"example 1 of view 'answer' .* has another {fact} than that of view 'reference'"):
            score_views(policy, live_teacher(), OPSD(), {"reference": one, "answer": changed})


@pytest.mark.parametrize("fact", ["advantage", "pass_rate", "source", "marked", "logprobs"])
def test_parts_are_not_used_for_rollouts_of_which_other_things_are_known(policy, views, tmp_path, fact):
    examples = list(views["none"][:2])
    score_views(policy, live_teacher(), OPSD(), {"none": examples}, parts=tmp_path)
    if fact == "logprobs":
        rollout = replace(examples[0].rollout, logprobs=tuple(value - 1 for value in examples[0].rollout.logprobs))
        examples[0] = replace(examples[0], rollout=rollout)
    else:
        examples[0] = replace(examples[0], **{fact: {"m": (1.0,) * examples[0].scored} if fact == "marked" else 1})
    with pytest.raises(ValueError, match="rollouts"):
        score_views(policy, live_teacher(), OPSD(), {"none": examples}, parts=tmp_path)


def test_views_of_other_completions_are_refused_and_the_place_is_named(policy, views):
    one, two = views["reference"], views["answer"]
    with pytest.raises(ValueError, match=r"example 0 of view 'answer' \(problem 'p4'\) is another completion"):
        score_views(policy, live_teacher(), OPSD(), {"reference": one, "answer": two[1:] + two[:1]})
    shorter = [*two[:-1], Example(two[-1].prompts, two[-1].rollout, two[-1].scored - 1)]
    with pytest.raises(ValueError, match="example 11 of view 'answer'"):
        score_views(policy, live_teacher(), OPSD(), {"reference": one, "answer": shorter})
    with pytest.raises(ValueError, match="view 'answer' has 3 examples, view 'reference' has 12"):
        score_views(policy, live_teacher(), OPSD(), {"reference": one, "answer": two[:3]})
    for nothing in ({}, {"reference": []}):
        with pytest.raises(ValueError, match="no examples"):
            score_views(policy, live_teacher(), OPSD(), nothing)


def test_a_text_of_someone_else_becomes_a_rollout_that_spells_it(policy, contexts, problems):
    text = "  7 + 5 = 12.\n\n🙂 é"
    rollout = text_rollout(contexts, problems[0], text)
    assert "".join(rollout.tokens) == rollout.text == text and rollout.problem_id == "p3"
    assert np.isnan(rollout.logprobs).all() and rollout.prompt_ids == tuple(contexts.student_prompt(problems[0]))
    with pytest.raises(ValueError, match="problem 'p3': the text '' has no tokens"):
        text_rollout(contexts, problems[0], "")


def test_a_rollout_of_an_unknown_problem_is_refused(contexts, problems):
    rollout = text_rollout(contexts, problems[0], "x")
    with pytest.raises(ValueError, match="'p3', which is not among the problems"):
        build_examples(contexts, problems[1:], [rollout])


def test_bfloat16_products_added_in_float32_are_the_float32_products():
    layer = nn.Linear(96, 300, bias=False).bfloat16().requires_grad_(False)
    hidden = torch.randn(40, 96).bfloat16()
    exact = hidden.double() @ layer.weight.double().T
    before = torch.backends.mkldnn.matmul.fp32_precision
    logits = LogitHead(layer)(hidden)
    assert logits.dtype == torch.float32 and torch.backends.mkldnn.matmul.fp32_precision == before
    assert (logits - exact).abs().max() < 1e-5


def test_a_policy_without_a_lora_is_scored_without_holding_all_logits(problems, contexts):
    plain = tiny_policy()
    examples = build_examples(contexts, problems, rollouts_of(plain, contexts, problems))
    batch = build_batch(examples, plain.pad_id, plain.device)
    teacher = ema_teacher(plain, 0.5)
    with torch.inference_mode(), teacher.beside(plain):
        states = score_completions(plain, batch.student.ids, batch.student.starts, batch.student.completion_mask)
        before = states.logits()
    assert states.hidden.shape == (len(batch.tokens.ids), plain.causal_lm.config.hidden_size)
    with torch.no_grad():
        plain.causal_lm.get_output_embeddings().weight.mul_(2)  # the student goes on; the teacher's head is its own
    assert torch.equal(states.logits(), before)


def test_float32_states_keep_every_digit_in_the_head():
    layer = nn.Linear(96, 300, bias=True).requires_grad_(False)
    hidden = torch.randn(40, 96)
    assert torch.equal(LogitHead(layer)(hidden), torch.nn.functional.linear(hidden, layer.weight, layer.bias))
