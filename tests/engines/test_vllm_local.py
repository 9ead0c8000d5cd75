import multiprocessing
import os
import signal
import sys
from dataclasses import replace

import pytest
import torch

from opsd_lab.policies.policy import add_lora
from opsd_lab.rollouts import HFSampler, SamplingParams, VLLMSampler
from opsd_lab.rollouts.agreement import agreement
from opsd_lab.rollouts.vllm_local import engine_options
from tests.engines.serving import perturb, require_vllm, save_tiny, tiny

PROMPTS = [list(b"What is 3 + 4?"), list(b"abc"), list(b"Tom has 12 shells and finds 5 more.")]
PARAMS = SamplingParams(max_new_tokens=24, n=2, seed=3)
ROUNDING = 1e-4  # nats a token; both sides compute in float32


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def sampler(folder):
    require_vllm()
    with VLLMSampler(tiny(folder), options={"enforce_eager": True, "kv_cache_memory_bytes": 2**27}, progress=False) as made:
        yield made


def test_rollouts_are_the_policys_own_and_follow_every_update(sampler, folder):
    policy = tiny(folder)
    drawn = []
    for seed in range(3):  # the fresh LoRA first, then two updates
        if seed:
            perturb(policy, seed)
        sampler.update(policy)
        rollouts = sampler.sample(PROMPTS, PARAMS)
        assert [list(r.prompt_ids) for r in rollouts] == [p for p in PROMPTS for _ in range(2)]
        assert max(agreement(policy, r).largest for r in rollouts) < ROUNDING
        drawn.append([r.completion_ids for r in rollouts])
    assert drawn[0] != drawn[1] != drawn[2]


def test_the_same_seed_gives_the_same_rollouts_whatever_they_are_batched_with(sampler, folder):
    sampler.update(tiny(folder))
    together = sampler.sample(PROMPTS, PARAMS)
    assert sampler.sample(PROMPTS, PARAMS) == together
    alone = [r for prompt in PROMPTS for r in sampler.sample([prompt], PARAMS)]
    assert [r.completion_ids for r in alone] == [r.completion_ids for r in together]
    assert len({r.completion_ids for r in together}) == len(together)  # two of a prompt are two draws
    other = sampler.sample(PROMPTS, replace(PARAMS, seed=4))
    assert [r.completion_ids for r in other] != [r.completion_ids for r in together]


def test_greedy_rollouts_are_those_of_transformers(sampler, folder):
    policy = tiny(folder)
    perturb(policy, 5)
    sampler.update(policy)
    greedy = SamplingParams(max_new_tokens=24, temperature=0)
    theirs = HFSampler(policy, progress=False).sample(PROMPTS, greedy)
    for mine, other in zip(sampler.sample(PROMPTS, greedy), theirs, strict=True):
        assert mine.completion_ids == other.completion_ids and mine.text == other.text
        assert mine.finish_reason == other.finish_reason and mine.tokens == other.tokens


def test_an_interrupted_call_leaves_nothing_behind_in_the_engine(sampler, folder, monkeypatch):
    sampler.update(tiny(folder))
    expected = sampler.sample(PROMPTS, PARAMS)
    engine, step, steps = sampler._engine.llm_engine, sampler._engine.llm_engine.step, []

    def step_and_press_ctrl_c():
        steps.append(engine.get_num_unfinished_requests())
        found = step()
        if len(steps) == 3:
            for process in multiprocessing.active_children():  # a terminal presses it for all that it runs
                os.kill(process.pid, signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return found

    monkeypatch.setattr(engine, "step", step_and_press_ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        sampler.sample(PROMPTS, SamplingParams(max_new_tokens=150, n=8, seed=9))
    assert multiprocessing.active_children() and steps == [24, 24, 24], "the engine was to be interrupted at work"
    monkeypatch.undo()
    assert engine.get_num_unfinished_requests() == 0
    assert sampler.sample(PROMPTS, PARAMS) == expected


def test_log_probabilities_are_the_models_own_whatever_the_sampling_options(sampler, folder):
    policy = tiny(folder)
    sampler.update(policy)
    for rollout in sampler.sample(PROMPTS, replace(PARAMS, temperature=0.6, top_k=5, top_p=0.8)):
        assert agreement(policy, rollout).largest < ROUNDING


def test_the_end_token_belongs_to_the_completion(sampler, folder):
    policy = tiny(folder)
    sampler.update(policy)
    rollouts = sampler.sample(PROMPTS, SamplingParams(max_new_tokens=200, n=12, temperature=1.5))
    ended = [r for r in rollouts if r.finish_reason == "stop"]
    assert ended
    for rollout in rollouts:
        assert [i for i, token in enumerate(rollout.completion_ids) if token in policy.eos_ids] == (
            [len(rollout.completion_ids) - 1] if rollout in ended else []
        )
        assert rollout in ended or len(rollout.completion_ids) == 200


def test_an_engine_that_serves_other_weights_is_named(sampler, folder, tmp_path):
    sampler.update(tiny(save_tiny(tmp_path, seed=1)))  # the engine keeps the first model under it
    with pytest.raises(RuntimeError, match=r"vLLM does not sample from .* nats a token"):
        sampler.sample(PROMPTS[:1], PARAMS)


def test_a_prompt_that_does_not_fit_is_named(sampler):
    with pytest.raises(ValueError, match="prompt 1 has 240 tokens"):
        sampler.sample([[1], [1] * 240], PARAMS)
    assert sampler.sample([], PARAMS) == []


def test_the_fresh_lora_of_another_run_comes_after_a_trained_one(sampler, folder):
    trained, fresh = tiny(folder), tiny(folder)
    perturb(trained, 7)
    for policy in (trained, fresh, fresh):
        sampler.update(policy)
        assert max(agreement(policy, r).largest for r in sampler.sample(PROMPTS, PARAMS)) < ROUNDING


def test_adapters_follow_every_update_and_refuse_what_they_cannot_hold(folder):
    require_vllm()
    policy = tiny(folder)
    options = {"enforce_eager": True, "kv_cache_memory_bytes": 2**27}
    with VLLMSampler(policy, handover="adapter", options=options, progress=False) as sampler:
        for seed in range(3):
            if seed:
                perturb(policy, seed)
            sampler.update(policy)
            assert max(agreement(policy, r).largest for r in sampler.sample(PROMPTS, PARAMS)) < ROUNDING
        policy.causal_lm.get_input_embeddings().weight.requires_grad_()
        with pytest.raises(ValueError, match=r"embed_tokens.weight trains beside the LoRA"):
            sampler.update(policy)


def test_a_lora_that_cannot_be_folded_is_refused_where_folding_was_asked_for(sampler, folder):
    policy = tiny(folder)
    policy.causal_lm.to(torch.bfloat16)
    with pytest.raises(ValueError, match=r"cannot be folded.*handover='adapter'"):
        sampler.update(policy)


@pytest.mark.parametrize("tied", [False, True])
def test_all_weights_go_over_where_there_is_no_lora(tied, tmp_path):
    require_vllm()
    policy = tiny(save_tiny(tmp_path, tied=tied), lora=False)
    perturb(policy, 2)  # what was loaded is no longer what the policy is
    with VLLMSampler(policy, options={"enforce_eager": True, "kv_cache_memory_bytes": 2**27}, progress=False) as sampler:
        first = sampler.sample(PROMPTS, PARAMS)
        perturb(policy, 1)
        sampler.update(policy)
        second = sampler.sample(PROMPTS, PARAMS)
        assert [r.completion_ids for r in first] != [r.completion_ids for r in second]
        assert max(agreement(policy, r).largest for r in second) < ROUNDING
    with pytest.raises(RuntimeError, match="was closed"):
        sampler.sample(PROMPTS, PARAMS)


def test_the_environment_of_other_processes_is_left_alone(sampler):
    assert "libgomp" not in os.environ.get("LD_PRELOAD", "")


def test_a_missing_vllm_is_named_with_the_remedy(monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ImportError, match="make vllm"):
        VLLMSampler(tiny(folder))


def test_the_engine_gets_the_policys_precision_and_room_for_its_lora(folder):
    policy = tiny(folder)
    options = engine_options(policy)
    assert options["dtype"] == str(policy.causal_lm.dtype).removeprefix("torch.")
    assert options["max_lora_rank"] == 8 and options["model"] == str(folder)
    with pytest.raises(ValueError, match="rank 1000 is larger than vLLM allows"):
        engine_options(add_lora(tiny(folder, lora=False), rank=1000))
    assert "enable_lora" not in engine_options(tiny(folder, lora=False))
