import math

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode

from opsd_lab.contexts import ContextBuilder, reference_solution
from opsd_lab.objectives import SFT
from opsd_lab.policies.architecture import trunk_of
from opsd_lab.policies.folding import folded_lora
from opsd_lab.policies.policy import Policy, add_lora
from opsd_lab.rollouts import HFSampler, SamplingParams
from opsd_lab.rollouts.decoding import steps_for
from opsd_lab.training.costs import CostModel
from opsd_lab.training.trainer import Trainer, TrainingParams
from tests.architectures import build
from tests.conftest import PROBLEMS, tiny_policy

POLICIES = {
    "LoRA": lambda: add_lora(tiny_policy(), rank=4, alpha=8),
    "all weights": tiny_policy,
    "the trunk": lambda: trunk_only(tiny_policy()),
}


def counted_whole(policy: Policy) -> Policy:
    """Compute attention by plain products, since torch does not count those inside the processor's own kernel."""
    policy.causal_lm.set_attn_implementation("eager")
    steps_for(policy)  # tries the cache on a few tokens, once, before anything is counted
    return policy


def folding(policy: Policy) -> int:
    with FlopCounterMode(display=False) as counted, folded_lora(policy):
        pass
    return counted.get_total_flops()


def trunk_only(policy: Policy) -> Policy:
    policy.causal_lm.get_input_embeddings().requires_grad_(False)  # tied with the head
    return policy


@pytest.mark.parametrize("name", POLICIES)
def test_a_steps_operations_are_those_that_torch_counts_within_two_percent(name):
    policy = counted_whole(POLICIES[name]())
    contexts = ContextBuilder(policy.tokenizer, reference_solution)
    sampler, params = HFSampler(policy, progress=False), TrainingParams(batch_size=1)
    trainer = Trainer(policy, PROBLEMS[:1], contexts, sampler, SamplingParams(9), params=params)
    folded = folding(policy)  # before the step, as for the sampler: a LoRA that changes nothing needs no proof
    with FlopCounterMode(display=False) as counted:
        (record,) = trainer.train(1, progress=False)
    assert record.ledger.flops == pytest.approx(counted.get_total_flops() - folded, rel=0.02)
    assert min(record.ledger.flops_generate, record.ledger.flops_score, record.ledger.flops_train) > 0


@pytest.mark.parametrize("name", POLICIES)
def test_each_phase_costs_what_torch_counts(name):
    policy = counted_whole(POLICIES[name]())
    costs, prompt, new = CostModel.of(policy), list(range(40)), 12
    with FlopCounterMode(display=False) as counted:
        (rollout,) = HFSampler(policy, progress=False).sample([prompt], SamplingParams(new))
    found = counted.get_total_flops() - folding(policy)
    assert costs.generation(40, len(rollout.completion_ids)) == pytest.approx(found, rel=0.02)


COUNTED = {
    *("Llama", "GPT-2", "GPT-NeoX", "Gemma 2", "Gemma 4", "Mixtral", "Qwen3-MoE", "Qwen2-MoE", "GPT-OSS", "DeepSeek-V3"),
    *("LFM2", "Bloom", "MPT", "Phi-3, longrope", "OPT"),
}
# Their implementations compute recurrences in chunks, or every expert: more or fewer products than the definition has.
COUNTED_BY_DEFINITION = {"Qwen3.5", "Qwen3-Next", "Granite 4", "Falcon-H1", "Jamba", "Mamba", "Mamba 2", "Zamba 2", "Llama 4"}


@pytest.mark.parametrize("name", sorted(COUNTED | COUNTED_BY_DEFINITION))
def test_an_architectures_forward_pass_costs_what_torch_counts(name):
    policy, length = build(name), 64
    policy.causal_lm.set_attn_implementation("eager")
    if hasattr(policy.causal_lm, "set_experts_implementation"):
        policy.causal_lm.set_experts_implementation("eager")  # torch does not count the grouped products
    costs, trunk = CostModel.of(policy), trunk_of(policy.causal_lm)
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        trunk(input_ids=torch.arange(length, device=policy.device)[None] % 200 + 20, use_cache=False)
    ratio = (costs.linear * length + costs.pair * length**2) / counted.get_total_flops()
    assert ratio == pytest.approx(1, rel=0.005 if name in COUNTED else 0.4)


def test_of_a_mixture_only_the_experts_that_a_token_is_sent_to_count():
    costs = CostModel.of(build("Qwen3-MoE"))
    attention, router, experts = 2 * (2 * 32 * 32 + 2 * 32 * 16), 2 * 32 * 4, 2 * 3 * 32 * 32 * 2
    assert costs.linear == 2 * (attention + router + experts)


def adapted(name: str, **options: object) -> Policy:
    policy = build(name)
    return Policy(name, get_peft_model(policy.model, LoraConfig(r=4, **options)).eval(), policy.tokenizer)


def test_a_lora_counts_on_layers_that_are_not_nn_linear():
    whole, lora = CostModel.of(build("GPT-2")), CostModel.of(adapted("GPT-2", target_modules=["c_attn"]))
    products = 2 * 2 * 4 * (32 + 96)  # two layers, rank 4
    assert (lora.merged, lora.linear, lora.trained) == (whole.linear, whole.linear + products, products)
    off = adapted("GPT-2", target_modules=["c_attn"])
    with off.model.disable_adapter():
        assert CostModel.of(off).linear == whole.linear


@pytest.mark.parametrize(
    ("make", "layer"),
    [
        (lambda: build("RWKV"), "RwkvSelfAttention"),
        (lambda: adapted("Llama", target_modules=["q_proj"], use_dora=True), "DoraLinearVariant"),
        (lambda: adapted("Mixtral", target_modules=[], target_parameters=["experts.down_proj"]), "ParamWrapper"),
    ],
)
def test_operations_that_cannot_be_counted_are_no_number_and_the_layer_is_named(make, layer):
    policy = make()
    with pytest.warns(RuntimeWarning, match=f"operations of .*{layer}.* cannot be counted.*by tokens or seconds"):
        costs = CostModel.of(policy)
    assert math.isnan(costs.generation(3, 4)) and math.isnan(costs.scoring(3, 4)) and math.isnan(costs.training(3, 4))


def test_a_run_whose_operations_cannot_be_counted_trains_and_its_ledger_says_so():
    policy = adapted("Llama", target_modules=["q_proj"], use_dora=True)
    contexts, sampler = ContextBuilder(policy.tokenizer, reference_solution), HFSampler(policy, progress=False)
    with pytest.warns(RuntimeWarning, match="cannot be counted"):
        trainer = Trainer(policy, PROBLEMS[:1], contexts, sampler, SamplingParams(4), params=TrainingParams(batch_size=1))
    (record,) = trainer.train(1, progress=False)
    assert math.isnan(record.ledger.flops) and record.ledger.tokens_trained > 0


def test_the_load_balancing_loss_that_is_left_out_is_mentioned():
    policy = build("Mixtral")
    policy.causal_lm.config.output_router_logits = True
    contexts = ContextBuilder(policy.tokenizer, reference_solution)
    with pytest.warns(RuntimeWarning, match="mixtral: its load-balancing loss .* is not added"):
        Trainer(policy, PROBLEMS[:1], contexts, HFSampler(policy), SamplingParams(4), params=TrainingParams(batch_size=1))


def test_an_objective_without_a_teacher_pays_for_none():
    policy = add_lora(tiny_policy(), rank=4, alpha=8)
    contexts = ContextBuilder(policy.tokenizer)
    sampler = HFSampler(policy, progress=False)
    trainer = Trainer(policy, PROBLEMS, contexts, sampler, SamplingParams(5), objective=SFT(), params=TrainingParams(batch_size=3))
    (record,) = trainer.train(1, progress=False)
    assert record.ledger.flops_score == record.ledger.tokens_scored == 0 < record.ledger.flops_train


def test_the_ledgers_counts_are_those_of_the_rollouts():
    policy = add_lora(tiny_policy(), rank=4, alpha=8)
    sampler = HFSampler(policy, progress=False)
    params = TrainingParams(batch_size=3, truncated="keep_without_last_token")
    trainer = Trainer(
        policy, PROBLEMS, ContextBuilder(policy.tokenizer, reference_solution), sampler, SamplingParams(5), params=params
    )
    written, calls = [], sampler.sample

    def watched(prompts, sampling):
        written.extend(rollouts := calls(prompts, sampling))
        return rollouts

    sampler.sample = watched
    records = list(trainer.train(3, progress=False))
    ledger = records[-1].ledger
    assert ledger.tokens_generated == sum(len(r.completion_ids) for r in written)
    trained = sum(len(r.completion_ids) - r.truncated for r in written)
    assert ledger.tokens_scored == ledger.tokens_trained == trained == sum(len(r.table) for r in records)
    costs = CostModel.of(policy)
    assert ledger.flops_generate == pytest.approx(sum(costs.generation(len(r.prompt_ids), len(r.completion_ids)) for r in written))
    assert torch.isfinite(torch.tensor(ledger.flops))
