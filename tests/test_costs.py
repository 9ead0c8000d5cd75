import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from opsd_lab.baselines import SFT
from opsd_lab.contexts import ContextBuilder, reference_solution
from opsd_lab.costs import CostModel
from opsd_lab.folding import folded_lora
from opsd_lab.policies import Policy, add_lora
from opsd_lab.rollouts import HFSampler, SamplingParams
from opsd_lab.trainer import Trainer, TrainingParams
from tests.conftest import PROBLEMS, tiny_policy

POLICIES = {
    "LoRA": lambda: add_lora(tiny_policy(), rank=4, alpha=8),
    "all weights": tiny_policy,
    "the trunk": lambda: trunk_only(tiny_policy()),
}


def counted_whole(policy: Policy) -> Policy:
    """Compute attention by plain products, since torch does not count those inside the processor's own kernel."""
    policy.causal_lm.set_attn_implementation("eager")
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
    with FlopCounterMode(display=False) as counted:
        (record,) = trainer.train(1, progress=False)
    assert record.ledger.flops == pytest.approx(counted.get_total_flops() - folding(policy), rel=0.02)
    assert min(record.ledger.flops_generate, record.ledger.flops_score, record.ledger.flops_train) > 0


@pytest.mark.parametrize("name", POLICIES)
def test_each_phase_costs_what_torch_counts(name):
    policy = counted_whole(POLICIES[name]())
    costs, prompt, new = CostModel.of(policy), list(range(40)), 12
    with FlopCounterMode(display=False) as counted:
        (rollout,) = HFSampler(policy, progress=False).sample([prompt], SamplingParams(new))
    found = counted.get_total_flops() - folding(policy)
    assert costs.generation(40, len(rollout.completion_ids)) == pytest.approx(found, rel=0.02)


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
