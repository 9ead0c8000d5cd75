"""Whatever adapter a policy has: sampler, trainer, teacher, files for engines and the model itself compute one function."""

import copy

import pytest
import torch
from transformers import LlamaForCausalLM

from opsd_lab.policies.policy import Policy, has_fresh_lora
from opsd_lab.policies.teachers import AdapterOffTeacher, AveragedTeacher, fixed_teacher
from opsd_lab.rollouts import HFSampler, SamplingParams
from opsd_lab.rollouts.agreement import own_logprobs
from opsd_lab.rollouts.base import Rollout
from opsd_lab.sandbox import load_sandbox
from opsd_lab.scoring.forward import score_completions
from tests.adapters import ADAPTERS, MORE_ADAPTERS, lora_config, shake, with_config
from tests.conftest import DEVICE, tiny_policy

ALL = ADAPTERS | MORE_ADAPTERS
PROMPTS = [[5, 6, 7, 8], [9, 10], [11, 12, 13]]
TOLERANCE = 1e-4  # nats, float32


def base(dtype: torch.dtype = torch.float32, *, tied: bool = True) -> Policy:
    """A random model whose linear layers have biases, which some adapters train."""
    policy = tiny_policy()
    config = copy.deepcopy(policy.model.config)
    config.attention_bias = config.mlp_bias = True
    config.tie_word_embeddings = tied
    torch.manual_seed(0)
    return Policy("biased", LlamaForCausalLM(config).to(DEVICE, dtype), policy.tokenizer)


def rollouts(policy: Policy, tokens: int = 8) -> list[Rollout]:
    return HFSampler(policy, progress=False).sample(PROMPTS, SamplingParams(tokens, seed=1))


@torch.no_grad()
def by_the_model(policy: Policy, rollout: Rollout) -> torch.Tensor:
    """The log-probability of each completion token from the logits of the model as a whole."""
    ids = torch.tensor([rollout.prompt_ids + rollout.completion_ids], device=policy.device)
    logprobs = policy.model(input_ids=ids, use_cache=False).logits[0, :-1].float().log_softmax(-1)
    return logprobs.gather(-1, ids[0, 1:, None])[len(rollout.prompt_ids) - 1 :, 0].cpu()


def by_the_trainer(policy: Policy, rollout: Rollout) -> torch.Tensor:
    ids = torch.tensor([rollout.prompt_ids + rollout.completion_ids], device=policy.device)
    length = len(rollout.completion_ids)
    states = score_completions(policy, ids, torch.tensor([len(rollout.prompt_ids)]).to(ids), torch.ones_like(ids[:, :length]).bool())
    return states.logits().log_softmax(-1)[torch.arange(length), list(rollout.completion_ids)].detach().cpu()


def largest_difference(policy: Policy) -> float:
    """The largest difference between any two of sampler, trainer, the check of engines, and the model."""
    found = 0.0
    for rollout in rollouts(policy):
        ways = [torch.tensor(rollout.logprobs), by_the_trainer(policy, rollout), own_logprobs(policy, rollout)]
        found = max([found, *(float((way - by_the_model(policy, rollout)).abs().max()) for way in ways)])
    return found


@pytest.mark.parametrize("name", ALL)
def test_sampler_trainer_and_model_agree_in_float32(name):
    plain, policy = base(), ALL[name](base())
    assert max((by_the_model(plain, r) - by_the_model(policy, r)).abs().max() for r in rollouts(policy)) > 0.1
    assert largest_difference(policy) < TOLERANCE


@pytest.mark.parametrize("name", ALL)
def test_sampler_trainer_and_model_agree_in_bfloat16_within_its_rounding(name):
    policy = ALL[name](base(torch.bfloat16))
    assert policy.causal_lm.dtype == torch.bfloat16
    # The model as a whole rounds its logits, of up to 12 here, to 8 bits: by up to .03 each. The others keep them in float32.
    assert largest_difference(policy) < 0.06


@pytest.mark.parametrize("name", ADAPTERS)
def test_they_agree_on_a_trained_model_with_an_adapter(name):
    assert largest_difference(ADAPTERS[name](load_sandbox(device=DEVICE))) < TOLERANCE


def few(policy: Policy) -> torch.Tensor:
    with torch.no_grad():
        return policy.model(input_ids=torch.arange(1, 12, device=policy.device)[None], use_cache=False).logits


@pytest.mark.parametrize("name", [name for name in ALL if name != "merged"])
def test_the_fixed_teacher_stays_what_the_policy_was_whatever_trains(name):
    policy = ALL[name](base())
    before, teacher = few(policy), fixed_teacher(policy)
    assert isinstance(teacher, AveragedTeacher) and not has_fresh_lora(policy)
    shake(policy, seed=5)
    student = few(policy)
    assert (student - before).abs().max() > 0.1
    with teacher.beside(policy):
        torch.testing.assert_close(few(policy), before, atol=1e-5, rtol=0)
    torch.testing.assert_close(few(policy), student, atol=0, rtol=0)


# Why a fresh adapter of these kinds is no switch to the initial policy: something else trains, or it is not plain LoRA.
NOT_THE_INITIAL_POLICY = {
    "dora": {"use_dora": True},
    "modules_to_save": {"modules_to_save": ["norm"]},
    "bias": {"bias": "all"},
    "trainable tokens": {"trainable_token_indices": [3]},
    "pissa": {"init_lora_weights": "pissa"},
}


@pytest.mark.parametrize("name", NOT_THE_INITIAL_POLICY)
def test_only_a_plain_fresh_lora_is_switched_off_for_the_initial_policy(name):
    policy = with_config(base(), lora_config(**NOT_THE_INITIAL_POLICY[name]))
    assert not has_fresh_lora(policy)
    with pytest.raises(ValueError, match="no fresh LoRA"):
        AdapterOffTeacher(policy)


@pytest.mark.parametrize("name", ["lora", "plain model", "lora on the embeddings", "beside a trained one that is off"])
def test_a_fresh_lora_switched_off_is_the_initial_policy_and_changes_nothing_that_trains(name):
    policy, initial = base(), few(base())
    if name == "plain model":
        policy.model.add_adapter(lora_config())
    elif name == "beside a trained one that is off":
        policy = ADAPTERS["lora"](policy)
        policy.model.add_adapter("second", lora_config(r=2))
        policy.model.set_adapter("second")
    else:
        policy = with_config(policy, lora_config(**({} if name == "lora" else {"target_modules": ["embed_tokens", "q_proj"]})))
    next(iter(policy.trainable().values())).requires_grad_(False)  # a choice of the user's
    trainable, teacher = list(policy.trainable()), AdapterOffTeacher(policy)
    shake(policy)
    student = few(policy)
    with teacher.beside(policy):
        torch.testing.assert_close(few(policy), initial, atol=0, rtol=0)
    assert torch.equal(few(policy), student) and list(policy.trainable()) == trainable


def test_a_fresh_lora_beside_a_trained_one_that_computes_is_not_taken_for_the_initial_policy():
    policy = ADAPTERS["lora"](base())
    policy.model.add_adapter("second", lora_config(r=2))
    policy.model.base_model.set_adapter(["default", "second"])
    policy.model.set_requires_grad("default", False)
    assert not has_fresh_lora(policy)
