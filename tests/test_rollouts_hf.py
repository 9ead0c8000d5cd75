import dataclasses
import gc
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from opsd_lab.policies.policy import load_policy
from opsd_lab.rollouts import HFSampler, Rollout, SamplingParams
from opsd_lab.rollouts.exported import WeightFolders, memory_folder
from opsd_lab.rollouts.hf import _invert
from opsd_lab.scoring.forward import score_completions
from tests.conftest import tiny_policy

PARAMS = SamplingParams(max_new_tokens=12, temperature=1.0, seed=3)


@pytest.fixture
def prompts(policy):
    return [policy.tokenizer(text)["input_ids"] for text in ("one", "a longer prompt", "x", "the longest prompt of them all", "five")]


def sampler(policy, **options) -> HFSampler:
    return HFSampler(policy, progress=False, **options)


def rescored(policy, rollout: Rollout) -> torch.Tensor:
    ids = torch.tensor([rollout.prompt_ids + rollout.completion_ids], device=policy.device)
    length = len(rollout.completion_ids)
    states = score_completions(policy, ids, torch.tensor([len(rollout.prompt_ids)]).to(ids), torch.ones_like(ids[:, :length]).bool())
    return states.logits().log_softmax(-1)[torch.arange(length), list(rollout.completion_ids)].cpu()


def test_the_samplers_log_probabilities_equal_rescored_ones(policy, prompts):
    for rollout in sampler(policy).sample(prompts, PARAMS):
        torch.testing.assert_close(torch.tensor(rollout.logprobs), rescored(policy, rollout).detach(), atol=1e-5, rtol=0)


def test_log_probabilities_are_the_models_own_whatever_the_sampling_options(policy, prompts):
    params = dataclasses.replace(PARAMS, temperature=0.6, top_k=20, top_p=0.9)
    for rollout in sampler(policy).sample(prompts, params):
        torch.testing.assert_close(torch.tensor(rollout.logprobs), rescored(policy, rollout).detach(), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
def test_the_real_models_log_probabilities_equal_rescored_ones_within_its_precision(dtype, tolerance):
    policy = load_policy(dtype=dtype)
    prompts = [policy.tokenizer(text)["input_ids"] for text in ("Two plus two is", "The capital of France is the city of")]
    for rollout in sampler(policy).sample(prompts, PARAMS):
        difference = torch.tensor(rollout.logprobs) - rescored(policy, rollout).detach()
        assert difference.abs().mean() < tolerance


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), vocabulary=st.sampled_from([2, 37, 256, 257, 1000]), scale=st.sampled_from([0.1, 3.0, 200.0]))
def test_the_token_drawn_is_where_the_whole_cumulative_sum_passes_the_uniform_number(seed, vocabulary, scale):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(6, vocabulary, generator=generator) * scale
    logits[:, : vocabulary // 3] = -torch.inf
    probabilities = logits.softmax(-1)
    uniforms = torch.rand(6, generator=generator, dtype=torch.float64)
    uniforms[:2] = torch.tensor([0.0, 1.0 - 1e-16])  # the ends
    tokens = _invert(probabilities, uniforms)
    cumulative = probabilities.double().cumsum(-1)
    reached = cumulative.gather(-1, tokens[:, None])[:, 0]
    share = probabilities.double().gather(-1, tokens[:, None])[:, 0]
    target, slack = uniforms * cumulative[:, -1], 1e-12
    assert (share > 0).all()
    assert (reached >= target - slack).all() and (reached - share <= target + slack).all()


def test_the_same_seed_gives_the_same_rollouts_and_another_seed_others(policy, prompts):
    first, second = (sampler(policy).sample(prompts, PARAMS) for _ in range(2))
    assert first == second
    other = sampler(policy).sample(prompts, dataclasses.replace(PARAMS, seed=4))
    assert [r.completion_ids for r in other] != [r.completion_ids for r in first]


def test_a_rollout_does_not_depend_on_what_it_is_batched_with(policy, prompts):
    together = sampler(policy).sample(prompts, PARAMS)
    alone = [sampler(policy).sample([prompt], PARAMS)[0] for prompt in prompts]
    small_batches = sampler(policy, token_budget=1).sample(prompts, PARAMS)
    assert [r.completion_ids for r in together] == [r.completion_ids for r in alone]
    assert small_batches == alone


def test_the_global_random_state_is_left_alone(policy, prompts):
    before = torch.random.get_rng_state()
    sampler(policy).sample(prompts, PARAMS)
    assert torch.equal(before, torch.random.get_rng_state())


def test_n_rollouts_stand_together_and_differ(policy, prompts):
    rollouts = sampler(policy).sample(prompts, dataclasses.replace(PARAMS, n=3))
    assert [r.prompt_ids for r in rollouts] == [tuple(p) for p in prompts for _ in range(3)]
    assert len({r.completion_ids for r in rollouts}) > len(prompts)


def test_a_prompt_given_twice_gets_two_different_rollouts(policy, prompts):
    first, second = sampler(policy).sample([prompts[3], prompts[3]], PARAMS)
    assert first.completion_ids != second.completion_ids


def test_greedy_decoding_takes_the_most_probable_token(policy, prompts):
    for rollout in sampler(policy).sample(prompts, dataclasses.replace(PARAMS, temperature=0.0)):
        ids = torch.tensor([rollout.prompt_ids + rollout.completion_ids], device=policy.device)
        logits = policy.model(input_ids=ids).logits[0, len(rollout.prompt_ids) - 1 : -1]
        assert logits.argmax(-1).tolist() == list(rollout.completion_ids)


def test_drawn_tokens_follow_the_models_distribution(policy):
    prompt = policy.tokenizer("a")["input_ids"]
    n = 4000
    rollouts = sampler(policy, token_budget=10**6).sample([prompt], SamplingParams(1, temperature=0.7, n=n))
    logits = policy.model(input_ids=torch.tensor([prompt], device=policy.device)).logits[0, -1].cpu() / 0.7
    expected = logits.softmax(-1)
    counts = torch.bincount(torch.tensor([r.completion_ids[0] for r in rollouts]), minlength=len(expected)) / n
    assert ((counts - expected).abs() < 5 * (expected * (1 - expected) / n).sqrt() + 1e-3).all()


def test_top_k_and_top_p_keep_to_their_tokens(policy):
    prompt = policy.tokenizer("a")["input_ids"]
    order = policy.model(input_ids=torch.tensor([prompt], device=policy.device)).logits[0, -1].argsort(descending=True).tolist()
    drawn = sampler(policy).sample([prompt], SamplingParams(1, top_k=3, n=200))
    assert {r.completion_ids[0] for r in drawn} <= set(order[:3])
    drawn = sampler(policy).sample([prompt], SamplingParams(1, top_p=1e-6, n=50))
    assert {r.completion_ids[0] for r in drawn} == {order[0]}


def flat_policy():
    """A policy whose tokens are all about equally likely, so that about one in 258 is the end token."""
    policy = tiny_policy()
    policy.model.get_input_embeddings().weight.data *= 1e-3
    return policy


def test_the_end_token_that_the_model_wrote_is_kept_and_truncation_is_reported(prompts):
    policy = flat_policy()
    rollouts = sampler(policy).sample(prompts, SamplingParams(300, seed=1, n=6))
    eos = policy.tokenizer.eos_token_id
    stopped = [r for r in rollouts if r.finish_reason == "stop"]
    cut = [r for r in rollouts if r.truncated]
    assert stopped and cut, "the test needs both kinds"
    for rollout in stopped:
        assert rollout.completion_ids[-1] == eos and eos not in rollout.completion_ids[:-1]
        assert "<|im_end|>" not in rollout.text and rollout.tokens[-1] == "<|im_end|>"
    for rollout in cut:
        assert len(rollout.completion_ids) == 300 and eos not in rollout.completion_ids


def test_token_texts_join_to_the_text(smollm2):
    prompts = [smollm2.tokenizer("Draw three emoji: 🙂 é 漢字")["input_ids"]]
    for rollout in sampler(smollm2).sample(prompts, SamplingParams(24, temperature=1.5, n=3)):
        whole = smollm2.tokenizer.decode(rollout.completion_ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        assert "".join(rollout.tokens) == whole


def test_a_hub_models_generation_config_does_not_leak_in(policy, prompts):
    plain = sampler(policy).sample(prompts, PARAMS)
    policy.causal_lm.generation_config.update(repetition_penalty=5.0, top_k=1, temperature=0.01)
    assert sampler(policy).sample(prompts, PARAMS) == plain


@pytest.mark.parametrize(
    ("length", "message"),
    [(0, "prompt 1 has 0 tokens"), (505, "prompt 1 has 505 tokens and max_new_tokens = 12, together more than the 512 tokens")],
)
def test_a_prompt_that_does_not_fit_the_context_is_named(policy, prompts, length, message):
    with pytest.raises(ValueError, match=message):
        sampler(policy).sample([prompts[0], [5] * length], PARAMS)


def test_no_prompts_give_no_rollouts(policy):
    assert sampler(policy).sample([], PARAMS) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_new_tokens", 0), ("temperature", -1), ("top_p", 0), ("top_p", 1.1), ("top_k", -1), ("n", 0), ("seed", -1)],
)
def test_a_sampling_parameter_out_of_range_is_named(field, value):
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(PARAMS, **{field: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"completion_ids": (), "logprobs": ()}, "the completion has no tokens"),
        ({"prompt_ids": ()}, "the prompt has no tokens"),
        ({"logprobs": (0.0,)}, "2 tokens but 1 log-probabilities"),
        ({"finish_reason": "eos"}, "not 'stop' or 'length'"),
        ({"tokens": ("a",)}, "2 token ids but 1 token texts"),
    ],
)
def test_an_inconsistent_rollout_is_refused_with_its_problem(change, message):
    good = Rollout("p7", (1,), (2, 3), (-0.1, -0.2), "stop", "ab", ("a", "b"))
    with pytest.raises(ValueError, match="'p7'.*" + message):
        dataclasses.replace(good, **change)


def test_weights_that_have_diverged_are_named_before_anything_is_drawn():
    policy = tiny_policy()
    with torch.no_grad():
        policy.causal_lm.get_input_embeddings().weight.fill_(float("nan"))
    for temperature in (0.0, 1.0):
        with pytest.raises(FloatingPointError, match="logits are not finite"):
            HFSampler(policy, progress=False).sample([[1, 2, 3]], SamplingParams(4, temperature=temperature))


def test_weights_for_an_engine_are_kept_in_memory_only_where_there_is_room(tmp_path, monkeypatch):
    policy = tiny_policy()
    assert memory_folder(policy, tmp_path) == tmp_path and memory_folder(policy, tmp_path / "none") is None
    usage = shutil.disk_usage(tmp_path)._replace(free=3 * sum(p.numel() * 4 for p in policy.model.parameters()))
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
    assert memory_folder(policy, tmp_path) is None


def test_weights_for_an_engine_do_not_outlive_what_wrote_them(tmp_path):
    folders = WeightFolders(tmp_path)
    assert folders.write(tiny_policy()).folder.exists() and list(tmp_path.iterdir())
    with pytest.warns(ResourceWarning, match="cleaning up"):
        del folders
        gc.collect()
    assert not list(tmp_path.iterdir())
