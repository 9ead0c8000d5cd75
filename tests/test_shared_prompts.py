"""Completions of one prompt, with the prompt computed once: the same losses and gradients, for every architecture that allows it."""

from itertools import groupby

import pytest
import torch

from opsd_lab.contexts import Prompts
from opsd_lab.objectives import OPSD
from opsd_lab.policies.head import LogitHead
from opsd_lab.policies.policy import add_lora
from opsd_lab.policies.teachers import ema_teacher
from opsd_lab.rollouts import HFSampler, Rollout, SamplingParams
from opsd_lab.scoring import forward
from opsd_lab.scoring.batching import Example, build_batch, micro_batches
from opsd_lab.scoring.pipeline import Pipeline
from opsd_lab.scoring.shared_prompts import SharedPrompts, shares_prompts
from tests.architectures import ARCHITECTURES, build
from tests.conftest import tiny_policy
from tests.test_agreement_matrix import MISFITS

# Those whose cache holds more than keys and values, or is another function; their sequences are computed whole.
WHOLE = {
    *("Bamba", "Falcon-H1", "Falcon-Mamba", "Granite 4", "Jamba", "LFM2", "Mamba", "Mamba 2", "Qwen3-Next", "Qwen3.5", "RWKV"),
    "Zamba 2",
}


def examples(prompts=4, n=3, seed=0, *, teachers=1):
    """Rollouts of prompts of several lengths, n of each, each of a length of its own."""
    generator = torch.Generator().manual_seed(seed)

    def ids(length):
        return tuple(torch.randint(20, 250, (length,), generator=generator).tolist())

    found = []
    for number in range(prompts):
        student, length = ids(9 + 4 * number), 12 + 5 * number
        shown = {f"view {view}": student[:-2] + ids(length) + student[-2:] for view in range(teachers)}
        for _ in range(n):
            completion = ids(1 + int(torch.randint(1, 9, (1,), generator=generator)))
            rollout = Rollout(f"p{number}", student, completion, (-1.0,) * len(completion), "stop", "x")
            found.append(Example(Prompts(student, shown), rollout, len(completion)))
    return found


def step(policy, batch, *, shared):
    """Return a batch's columns, and the gradients of the summed losses, with and without sharing."""
    pipeline = Pipeline(policy, ema_teacher(policy, 0.9), OPSD())
    policy.model.zero_grad()
    with pytest.MonkeyPatch.context() as patched:
        if not shared:
            patched.setattr(forward, "shares_prompts", lambda policy: False)
        found = pipeline.score(batch, LogitHead.of(policy))
    found.loss.sum().backward()
    return found, {name: p.grad.clone() for name, p in policy.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("adapter", ["all weights", "lora"])
@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name not in WHOLE])
def test_losses_and_gradients_are_those_of_whole_sequences(architecture, adapter):
    policy = build(architecture)
    if adapter == "lora":
        if (architecture, "lora") in MISFITS:
            pytest.skip("no LoRA fits it")
        policy = add_lora(policy, rank=2, alpha=4)
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.05)
    else:
        policy.model.requires_grad_(True)
    batch = build_batch(examples(), policy.pad_id, policy.device)
    assert batch.student.shared is not None and batch.teachers["view 0"].shared is not None
    assert shares_prompts(policy)
    own, own_gradients = step(policy, batch, shared=False)
    found, gradients = step(policy, batch, shared=True)
    for name, values in own.readings[""].items():
        if values.is_floating_point():
            torch.testing.assert_close(found.readings[""][name], values, atol=1e-5, rtol=1e-5, msg=name)
    assert gradients.keys() == own_gradients.keys()
    scale = max(float(gradient.abs().max()) for gradient in own_gradients.values())
    for name, gradient in own_gradients.items():
        assert float((gradients[name] - gradient).abs().max()) <= 1e-5 * scale, name


@pytest.mark.parametrize("architecture", sorted(WHOLE))
def test_what_keeps_more_than_keys_and_values_is_computed_whole(architecture):
    policy = build(architecture)
    assert not shares_prompts(policy)


def test_a_model_whose_cache_gives_other_numbers_is_computed_whole(monkeypatch):
    from opsd_lab.scoring import shared_prompts

    real, policy = shared_prompts.shared_states, tiny_policy()
    monkeypatch.setattr(shared_prompts, "shared_states", lambda *args: real(*args) + 0.01)
    assert not shares_prompts(policy)
    assert shares_prompts(tiny_policy(seed=1)) is False
    monkeypatch.undo()
    assert shares_prompts(tiny_policy(seed=2))


def test_gradient_checkpointing_computes_sequences_whole():
    policy = tiny_policy()
    policy.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert not shares_prompts(policy)
    policy.model.gradient_checkpointing_disable()
    assert shares_prompts(policy)


def test_prompts_are_shared_only_where_it_saves_enough():
    alone = [(1, 2, 3), (4, 5, 6), (7, 8, 9)]
    completions = torch.ones(3, 4, dtype=torch.long)
    assert SharedPrompts.of(alone, completions, 0, 7) is None
    assert SharedPrompts.of([alone[0]] * 3, torch.ones(3, 200, dtype=torch.long), 0, 203) is None
    found = SharedPrompts.of([(1, 2, 3, 4), (5, 6), (1, 2, 3, 4)], completions, 0, 8)
    assert found.ids.tolist() == [[1, 2, 3, 4], [0, 0, 5, 6]] and found.owners.tolist() == [0, 1, 0]
    assert found.mask.tolist() == [[True] * 4, [False, False, True, True]]


def test_micro_batches_keep_the_rollouts_of_a_prompt_together_within_the_budget():
    shuffled = examples(prompts=6, n=4)[::5] + [e for i, e in enumerate(examples(prompts=6, n=4)) if i % 5]
    for budget in (40, 150, 1000):
        groups = micro_batches(shuffled, budget)
        assert sorted(i for group in groups for i in group) == list(range(len(shuffled)))
        order = [shuffled[i].rollout.problem_id for group in groups for i in group]
        assert len(list(groupby(order))) == 6
        for group in groups:
            assert len(group) == 1 or len(group) * max(shuffled[i].width for i in group) <= budget


def test_a_view_that_only_some_rollouts_have_is_shared_among_those():
    found = examples(prompts=2, n=4)
    kept = [
        e if i % 2 else Example(Prompts(e.prompts.student_ids, {"view 0": None}), e.rollout, e.scored) for i, e in enumerate(found)
    ]
    policy = tiny_policy()
    policy.model.requires_grad_(True)
    batch = build_batch(kept, policy.pad_id, policy.device)
    assert batch.teachers["view 0"].shared.owners.tolist() == [0, 0, 1, 1]
    own, _ = step(policy, batch, shared=False)
    shared, _ = step(policy, batch, shared=True)
    torch.testing.assert_close(shared.loss, own.loss, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", ["Llama", "Mistral", "Gemma 2", "GPT-2", "Mamba", "Qwen3-Next"])
def test_several_rollouts_of_a_prompt_are_those_that_are_drawn_one_by_one(architecture):
    policy = build(architecture)
    prompts = [list(range(30, 30 + length)) for length in (3, 11, 17)]
    together = HFSampler(policy, progress=False).sample(prompts, SamplingParams(10, n=4, temperature=1.0, seed=3))
    one_by_one = HFSampler(policy, token_budget=1, progress=False).sample(prompts, SamplingParams(10, n=4, temperature=1.0, seed=3))
    assert [r.completion_ids for r in together] == [r.completion_ids for r in one_by_one]
    for a, b in zip(together, one_by_one, strict=True):
        torch.testing.assert_close(torch.tensor(a.logprobs), torch.tensor(b.logprobs), atol=2e-5, rtol=0)


def test_rows_that_would_be_wider_together_than_the_context_are_computed_whole(monkeypatch):
    generator = torch.Generator().manual_seed(0)

    def group(number, prompt, completion):
        ids = tuple(torch.randint(20, 250, (prompt,), generator=generator).tolist())
        texts = [tuple(torch.randint(20, 250, (completion,), generator=generator).tolist()) for _ in range(4)]
        rollouts = [Rollout(f"p{number}", ids, text, (-1.0,) * completion, "stop", "x") for text in texts]
        return [Example(Prompts(ids, {"view 0": ids}), rollout, completion) for rollout in rollouts]

    found = group(0, 24, 6) + group(1, 20, 10)
    policy = tiny_policy(context=31)
    policy.model.requires_grad_(True)
    batch = build_batch(found, policy.pad_id, policy.device)
    assert batch.student.ids.shape[1] == 30 and batch.student.shared.width == 33 > policy.context_limit.tokens
    calls = []
    monkeypatch.setattr(forward, "shared_states", lambda *args: calls.append(args))
    step(policy, batch, shared=True)
    assert not calls


def test_prompts_of_very_different_lengths_are_not_shared_where_that_is_more_work():
    long, short = tuple(range(100)), (1, 2, 3)
    completions = torch.ones(8, 90, dtype=torch.long)
    # whole: 8 rows of 103 tokens; shared: 2 prompts of 100 and 8 completions of 89
    assert SharedPrompts.of([long] * 4 + [short] * 4, completions, 0, 103) is None
