import dataclasses
from itertools import combinations, pairwise

import pytest
import torch

from opsd_lab.contexts import Prompts
from opsd_lab.policies.architecture import UNLIMITED, context_limit, trunk_of
from opsd_lab.policies.head import LogitHead, check_head
from opsd_lab.policies.policy import load_policy
from opsd_lab.rollouts import HFSampler, Rollout, SamplingParams
from opsd_lab.scoring.batching import Example, Sequences, build_batch, micro_batches, padding_share
from opsd_lab.scoring.forward import score_completions
from tests.architectures import build
from tests.conftest import tiny_policy


def example(student=(5, 6, 7), teacher=(5, 6, 8, 9, 7), completion=(10, 11), scored=None) -> Example:
    rollout = Rollout("p", tuple(student), tuple(completion), (-1.0,) * len(completion), "stop", "x")
    return Example(Prompts(tuple(student), {"teacher": tuple(teacher)}), rollout, len(completion) if scored is None else scored)


@pytest.fixture
def examples(policy, problems, contexts) -> list[Example]:
    pairs = [contexts.build(p) for p in problems[:8]]
    rollouts = HFSampler(policy, progress=False).sample([list(p.student_ids) for p in pairs], SamplingParams(9, n=1))
    cut = [
        dataclasses.replace(r, completion_ids=r.completion_ids[: 1 + i], logprobs=r.logprobs[: 1 + i], tokens=())
        for i, r in enumerate(rollouts)
    ]
    return [Example(p, r, len(r.completion_ids)) for p, r in zip(pairs, cut, strict=True)]


def side_of(batch, side) -> Sequences:
    return batch.student if side == "student" else batch.teachers[side]


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_a_batch_of_eight_equals_one_by_one(policy, examples, side):
    of = side_of(build_batch(examples, policy.pad_id, policy.device), side)
    states = score_completions(policy, of.ids, of.starts, of.completion_mask)
    alone = []
    for e in examples:
        prompt = getattr(e.prompts, f"{side}_ids")
        logits = policy.model(input_ids=torch.tensor([prompt + e.rollout.completion_ids], device=policy.device)).logits[0]
        alone.append(logits[len(prompt) - 1 : -1])
    torch.testing.assert_close(states.logits(), torch.cat(alone), atol=1e-5, rtol=0)


def test_student_and_teacher_score_the_same_completion_ids(policy, examples):
    batch = build_batch(examples, policy.pad_id)
    assert batch.tokens.ids.tolist() == [t for e in examples for t in e.rollout.completion_ids]
    for row, e in enumerate(examples):
        for side in ("student", "teacher"):
            of = side_of(batch, side)
            start = int(of.starts[row])
            ids = of.ids[row, start : start + e.scored].tolist()
            assert ids == list(e.rollout.completion_ids)


def test_a_batch_whose_sides_disagree_cannot_be_built(policy, examples):
    teacher = build_batch(examples, policy.pad_id).teachers["teacher"]
    ids = teacher.ids.clone()
    ids[0, teacher.starts[0]] += 1
    with pytest.raises(AssertionError, match="a side would be scored on other tokens"):
        dataclasses.replace(teacher, ids=ids)


def test_an_end_token_that_doubles_as_padding_is_scored():
    batch = build_batch([example(completion=(10, 2)), example(completion=(10, 11, 2))], pad_id=2)
    assert batch.student.completion_mask.tolist() == [[True, True, False], [True, True, True]]
    assert batch.tokens.ids.tolist() == [10, 2, 10, 11, 2]


def test_a_token_equal_to_padding_inside_a_completion_is_scored():
    assert build_batch([example(completion=(2, 2, 2)), example(completion=(2,))], pad_id=2).tokens.ids.tolist() == [2, 2, 2, 2]


def test_only_the_scored_tokens_enter_the_batch():
    batch = build_batch([example(completion=(10, 11, 12), scored=2)], pad_id=0)
    assert batch.tokens.ids.tolist() == [10, 11] and batch.student.ids.shape[1] == 5


def test_a_rollout_of_another_prompt_is_refused():
    good = example()
    with pytest.raises(ValueError, match="'p' continues another prompt"):
        Example(Prompts((1, 2), good.prompts.teachers), good.rollout, 2)


@pytest.mark.parametrize("scored", [0, 3])
def test_scoring_no_token_or_more_than_there_are_is_refused(scored):
    with pytest.raises(ValueError, match="out of range"):
        example(scored=scored)


@pytest.mark.parametrize("budget", [1, 20, 64, 10_000])
def test_micro_batches_hold_every_example_once_within_the_budget(examples, budget):
    groups = micro_batches(examples, budget)
    assert sorted(i for g in groups for i in g) == list(range(len(examples)))
    for group in groups:
        assert len(group) == 1 or len(group) * max(examples[i].width for i in group) <= budget


@pytest.mark.parametrize("budget", [30, 45, 60, 90])
def test_there_are_as_few_micro_batches_as_fit_and_the_largest_is_as_small_as_can_be(budget):
    examples = [example(tuple(range(width)), (1, 2), (7,)) for width in (4, 4, 5, 6, 9, 11, 12, 20)]
    widths = sorted((e.width for e in examples), reverse=True)

    def sizes(cuts):
        ends = [0, *cuts, len(widths)]
        return [(b - a) * widths[a] for a, b in pairwise(ends)]

    ways = [sizes(cuts) for count in range(len(widths)) for cuts in combinations(range(1, len(widths)), count)]
    fitting = [way for way in ways if max(way) <= budget]
    fewest = min(map(len, fitting))
    groups = micro_batches(examples, budget)
    assert len(groups) == fewest
    assert max(len(g) * max(examples[i].width for i in g) for g in groups) == min(max(way) for way in fitting if len(way) == fewest)


def test_the_padding_share_is_counted_over_both_sides_of_every_batch(examples):
    for groups in ([[0, 1, 2], [3]], [[i] for i in range(len(examples))]):
        chosen = [[examples[i] for i in group] for group in groups]
        padding = positions = 0
        for group in chosen:
            batch = build_batch(group, pad_id=-1)
            for ids in (batch.student.ids, batch.teachers["teacher"].ids):
                padding, positions = padding + int((ids == -1).sum()), positions + ids.numel()
        assert padding_share(examples, groups) == (pytest.approx(padding / positions), positions)
    assert padding == 0  # one by one there is none


def test_the_head_is_float32_for_a_bfloat16_model():
    smollm2 = load_policy(dtype=torch.bfloat16)
    ids = torch.tensor([[1, 504, 3575, 282]])
    hidden = smollm2.causal_lm.get_decoder()(input_ids=ids).last_hidden_state
    logits = LogitHead.of(smollm2)(hidden)
    assert logits.dtype == torch.float32
    exact = hidden.float() @ smollm2.causal_lm.lm_head.weight.float().T
    torch.testing.assert_close(logits, exact, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("logit_scale", 0.5, lambda x: 0.5 * x),
        ("logits_scaling", 4.0, lambda x: x / 4),
        ("lm_head_multiplier", 3.0, lambda x: 3 * x),
        ("final_logit_softcapping", 2.0, lambda x: 2 * torch.tanh(x / 2)),
        ("logits_soft_cap", 2.0, lambda x: 2 * torch.tanh(x / 2)),
    ],
)
def test_the_head_follows_the_configs_scale_and_soft_cap(field, value, expected):
    policy = tiny_policy()
    hidden = torch.randn(3, 32).to(policy.device)
    plain = LogitHead.of(policy)(hidden)
    setattr(policy.causal_lm.config, field, value)
    torch.testing.assert_close(LogitHead.of(policy)(hidden), expected(plain))


def test_a_model_that_changes_its_logits_in_an_unknown_way_is_refused():
    policy = tiny_policy()
    check_head(policy)
    policy.causal_lm.config.final_logit_softcapping = 0.5  # this architecture does not cap, so head and model now disagree
    with pytest.raises(NotImplementedError, match="add the rule to LogitHead"):
        check_head(policy)


def test_a_layer_in_training_mode_is_put_back_before_anything_is_compared():
    policy = build("GPT-2")  # whose dropout is on by default
    policy.causal_lm.transformer.h[1].train()
    check_head(policy)
    assert not any(module.training for module in policy.causal_lm.modules())


def test_a_model_that_sees_what_stands_behind_a_token_is_refused():
    policy = build("Llama")
    norm = policy.causal_lm.model.norm
    norm.register_forward_hook(lambda module, given, found: found + found.sum(1, keepdim=True))
    with pytest.raises(NotImplementedError, match="from what stands behind or beside it"):
        check_head(policy)


def test_a_model_that_cannot_compute_a_sequence_says_what_it_objects_to():
    policy = build("Llama")
    policy.causal_lm.model.norm.register_forward_hook(lambda module, given, found: found.no_such_thing)
    with pytest.raises(
        NotImplementedError, match=r"cannot compute a short sequence: AttributeError: .*no_such_thing.*target modules"
    ):
        check_head(policy)


def test_the_decoder_is_found_where_transformers_returns_the_whole_model():
    model = build("Llama 4").causal_lm
    assert model.get_decoder() is model and trunk_of(model) is model.model


@pytest.mark.parametrize(
    ("name", "tokens"), [("Mamba", UNLIMITED), ("Bloom", UNLIMITED), ("MPT", 2048), ("GPT-2", 256), ("Gemma 4", 256)]
)
def test_the_longest_sequence_is_read_under_whatever_name_the_config_has(name, tokens):
    assert build(name).context_length == tokens


def test_a_scaling_for_some_layers_alone_limits_the_sequence_and_is_named():
    config = build("Llama").causal_lm.config
    config.rope_parameters = {
        "full_attention": {"rope_type": "longrope", "original_max_position_embeddings": 48, "rope_theta": 1e4},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    limit = context_limit(config)
    assert limit.tokens == 48 and "'longrope'" in str(limit)
    with pytest.raises(ValueError, match="the teacher's prompt has 49 tokens, more than the 48 tokens up to which"):
        limit.check(49, "the teacher's prompt")
    config.index_topk = 16
    assert context_limit(config).tokens == 16 and "index_topk" in str(context_limit(config))


def test_a_head_first_used_in_inference_mode_can_train(policy):
    head = LogitHead.of(policy)
    with torch.inference_mode():
        head(torch.randn(2, 32, device=policy.device))
    hidden = torch.randn(2, 32, device=policy.device, requires_grad=True)
    head(hidden).sum().backward()
    assert hidden.grad is not None
