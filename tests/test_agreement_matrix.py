"""Sampler, trainer and the model itself give one and the same number: architectures x adapters x precisions, small random models.

Whatever cannot be made to agree is refused; the refusals are listed here, so that a new one is a failure.
"""

import re
import warnings

import pytest
import torch

from opsd_lab.contexts import Prompts
from opsd_lab.policies.head import check_head
from opsd_lab.policies.policy import Policy
from opsd_lab.rollouts import HFSampler, Rollout, SamplingParams
from opsd_lab.rollouts.decoding import CachedSteps, OneTokenSteps, WholeSequences, steps_for
from opsd_lab.scoring.batching import Example, build_batch, micro_batches
from opsd_lab.scoring.forward import score_completions
from tests.adapters import ADAPTERS
from tests.architectures import ARCHITECTURES, DYNAMIC_SWITCH, LONGROPE_SWITCH, PADDED, build

LENGTHS = (1, 2, 4, 9, 14, 22, 31)  # of the prompts: across windows of 8 and chunks of 16 tokens
NEW = 14
# The largest difference of a log-probability allowed, in nats. In bfloat16 the same sums, added up in another order, round to other
# hidden states, and a router whose best experts are close may choose another one: seldom, so that the mean says more.
LARGEST = {torch.float32: 1e-4, torch.bfloat16: 0.6}
MEAN = {torch.float32: 1e-5, torch.bfloat16: 0.02}

# What does not fit together, by what refuses it: peft has no such LoRA on stacked experts, none at all on a Mamba's output layer, and
# Llama 4's router returns a pair where peft expects a tensor.
LORAS = [name for name in ADAPTERS if name != "all weights"]
STACKED = ("Mixtral", "Qwen3-MoE", "OLMoE", "DeepSeek-V3", "Qwen3-Next")
MISFITS = {
    **{(name, "dora"): "ParamWrapper does not work with use_dora" for name in STACKED},
    **{(name, "lora bias"): "ParamWrapper does not work with lora_bias" for name in STACKED},
    **{(name, lora): "incompatible with Mamba" for name in ("Falcon-H1", "Mamba", "Mamba 2", "Falcon-Mamba") for lora in LORAS},
    **{("Llama 4", lora): "routers, for instance, return more than one tensor" for lora in LORAS},
}
# Architectures whose cache is not the same function, so that every token is computed from the whole sequence.
WITHOUT_CACHE = {"RWKV": "takes no cache", "Zamba 2": "its logits are others than without"}
# Those whose new tokens are computed without transformers' own forward pass.
OF_LLAMAS_FORM = {"Llama", "Llama, tied", "Llama, padded vocabulary", "Llama, dynamic NTK", "Llama, yarn", "Qwen2", "Qwen3"}
# Every architecture with all weights and with a LoRA, in both precisions; these with every adapter as well.
BY_EVERY_ADAPTER = (
    *("Llama", "Llama, tied", "Llama, padded vocabulary", "Qwen2", "Qwen3", "Mistral", "Phi-3, longrope", "GPT-2", "GPT-NeoX"),
    *("Gemma 2", "Gemma 4", "Cohere 2", "Granite", "Qwen3-MoE", "Mixtral", "GPT-OSS", "DeepSeek-V3", "Qwen3.5", "LFM2", "Granite 4"),
    *("Mamba", "Bloom", "Llama 4"),
)
CELLS = [
    (architecture, adapter, dtype)
    for dtype in (torch.float32, torch.bfloat16)
    for architecture in ARCHITECTURES
    for adapter in ADAPTERS
    if adapter in ("all weights", "lora") or (dtype == torch.float32 and architecture in BY_EVERY_ADAPTER)
]


def prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(20, 250, (length,), generator=generator).tolist() for length in LENGTHS]


def own_logprobs(policy: Policy, rollout: Rollout) -> torch.Tensor:
    """What the model itself says, asked as its own documentation asks it: one sequence, with its attention mask."""
    ids = torch.tensor([rollout.prompt_ids + rollout.completion_ids], device=policy.device)
    logits = policy.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0].float()
    return logits.log_softmax(-1)[len(rollout.prompt_ids) - 1 : -1].gather(-1, ids[0, len(rollout.prompt_ids) :, None])[:, 0].cpu()


def trainers_logprobs(policy: Policy, rollouts: list[Rollout]) -> list[torch.Tensor]:
    """What the trainer computes, in micro-batches with padding."""
    examples = [Example(Prompts(r.prompt_ids, {"teacher": r.prompt_ids}), r, len(r.completion_ids)) for r in rollouts]
    found: dict[int, torch.Tensor] = {}
    for group in micro_batches(examples, 150):
        batch = build_batch([examples[i] for i in group], policy.pad_id, policy.device)
        states = score_completions(policy, batch.student.ids, batch.student.starts, batch.student.completion_mask)
        chosen = states.logits().log_softmax(-1).gather(-1, batch.tokens.ids[:, None])[:, 0].cpu()
        found |= dict(zip(group, chosen.split([examples[i].scored for i in group]), strict=True))
    return [found[i] for i in range(len(rollouts))]


@torch.no_grad()
def differences(policy: Policy, given: list[list[int]] | None = None, new: int = NEW) -> tuple[float, float, list[Rollout]]:
    """Return the largest differences of sampler and trainer from the model itself, and the rollouts."""
    check_head(policy)
    rollouts = HFSampler(policy, progress=False).sample(given or prompts(), SamplingParams(new))
    sampler = trainer = 0.0
    for rollout, scored in zip(rollouts, trainers_logprobs(policy, rollouts), strict=True):
        own = own_logprobs(policy, rollout)
        sampler = max(sampler, float((torch.tensor(rollout.logprobs) - own).abs().max()))
        trainer = max(trainer, float((scored - own).abs().max()))
    return sampler, trainer, rollouts


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:.*sampled without a cache:RuntimeWarning")
@pytest.mark.parametrize(("architecture", "adapter", "dtype"), CELLS, ids=lambda part: str(part).removeprefix("torch."))
def test_sampler_trainer_and_model_agree_or_the_combination_is_refused(architecture, adapter, dtype):
    if misfit := MISFITS.get((architecture, adapter)):
        with pytest.raises((ValueError, NotImplementedError), match=misfit):
            differences(ADAPTERS[adapter](build(architecture, dtype)))
        return
    policy = ADAPTERS[adapter](build(architecture, dtype))
    sampler, trainer, rollouts = differences(policy)
    assert len({len(r.completion_ids) for r in rollouts}) > 1, "the rows should end at different times"
    assert max(sampler, trainer) <= LARGEST[dtype]
    found = torch.cat([torch.tensor(r.logprobs) - own_logprobs(policy, r) for r in rollouts])
    assert found.abs().mean() <= MEAN[dtype]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_cache_is_used_wherever_it_is_the_same_function(architecture):
    policy = build(architecture)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        kind = steps_for(policy)
    told = [str(w.message) for w in caught if "sampled without a cache" in str(w.message)]
    if architecture in WITHOUT_CACHE:
        assert kind is WholeSequences and re.search(WITHOUT_CACHE[architecture], told[0])
    else:
        assert kind is (OneTokenSteps if architecture in OF_LLAMAS_FORM else CachedSteps) and not told


@pytest.mark.parametrize("architecture", ["Llama", "Mistral", "Llama 4", "Qwen3.5", "Mamba", "Granite 4"])
def test_long_prompts_of_unequal_length_agree_too(architecture):
    generator = torch.Generator().manual_seed(2)
    given = [torch.randint(20, 250, (length,), generator=generator).tolist() for length in (3, 70, 131)]
    sampler, trainer, _ = differences(build(architecture), given, 6)
    assert max(sampler, trainer) <= LARGEST[torch.float32]


@pytest.mark.parametrize(
    ("architecture", "switch", "kind"),
    [("Phi-3, longrope", LONGROPE_SWITCH, "longrope"), ("Llama, dynamic NTK", DYNAMIC_SWITCH, "dynamic")],
)
def test_sequences_past_the_length_that_switches_the_rotary_scaling_are_refused(architecture, switch, kind):
    policy, message = build(architecture), rf"the {switch} tokens up to which its rotary scaling \('{kind}'\)"
    sampler, trainer, _ = differences(policy, [[30] * 2, [40] * (switch - 8)], 8)
    assert max(sampler, trainer) <= LARGEST[torch.float32]
    assert policy.context_length == switch
    with pytest.raises(ValueError, match=f"prompt 1 has {switch} tokens.*{message}.*lower max_new_tokens"):
        HFSampler(policy, progress=False).sample([[30], [40] * switch], SamplingParams(8))
    with pytest.raises(ValueError, match=message):
        score_completions(policy, torch.zeros(1, switch + 1, device=policy.device).long(), torch.tensor([3]), torch.ones(1, 2).bool())


@torch.no_grad()
def test_a_token_that_the_tokenizer_does_not_know_is_a_token_like_any_other():
    policy = build("Llama, padded vocabulary")
    rollouts = HFSampler(policy, progress=False).sample([[30, 40]] * 20, SamplingParams(12))
    unknown = [(r, i) for r in rollouts for i, token in enumerate(r.completion_ids) if len(policy.tokenizer) <= token < PADDED]
    assert unknown
    for rollout, i in unknown:
        assert rollout.tokens[i] == f"<unused {rollout.completion_ids[i]}>" and rollout.tokens[i] in rollout.text
    for rollout, scored in zip(rollouts, trainers_logprobs(policy, rollouts), strict=True):
        torch.testing.assert_close(torch.tensor(rollout.logprobs), scored, atol=1e-4, rtol=0)
