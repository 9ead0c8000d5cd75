"""Rollouts that know their problem, and the way back from a rollout to its problem."""

from dataclasses import replace

import pytest

from opsd_lab.contexts import ContextBuilder
from opsd_lab.policies.policy import add_lora
from opsd_lab.problems.problem import Problem
from opsd_lab.rollouts import HFSampler, Rollout, SamplingParams, sample_rollouts
from opsd_lab.rollouts.sampling import continue_prompts, problems_of
from tests.conftest import tiny_policy

PARAMS = SamplingParams(5, n=2, seed=3)


class Writing:
    """A sampler that names no policy, and notes what it is asked."""

    def __init__(self, change=lambda rollouts: rollouts):
        self.asked, self.change = [], change

    def sample(self, prompts, params):
        self.asked.append(prompts)
        return self.change([Rollout("", tuple(p), (7,), (-1.0,), "stop", "x") for p in prompts for _ in range(params.n)])

    def update(self, policy):
        raise AssertionError("sampling must not change its sampler")


def test_each_rollout_has_its_problems_id_and_is_what_the_sampler_alone_writes(policy, contexts, problems):
    sampler = HFSampler(policy, progress=False)
    rollouts = sample_rollouts(sampler, contexts, problems[:3], PARAMS)
    assert [r.problem_id for r in rollouts] == [p.id for p in problems[:3] for _ in range(2)]
    alone = sampler.sample([contexts.student_prompt(p) for p in problems[:3]], PARAMS)
    assert [replace(r, problem_id="") for r in rollouts] == alone


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_the_named_sides_prompt_is_continued(contexts, problems, side):
    sampler = Writing()
    rollouts = sample_rollouts(sampler, contexts, problems, PARAMS, side=side)
    prompts = [getattr(contexts.build(problem), f"{side}_ids") for problem in problems]
    assert sampler.asked == [[list(prompt) for prompt in prompts]]
    assert [r.prompt_ids for r in rollouts] == [prompt for prompt in prompts for _ in range(2)]


def test_another_side_is_refused(contexts, problems):
    with pytest.raises(ValueError, match="sample_rollouts: side is out of range: 'expert'; it is 'student' or 'teacher'"):
        sample_rollouts(Writing(), contexts, problems, PARAMS, side="expert")


def test_no_problems_are_no_rollouts(policy, contexts):
    assert sample_rollouts(HFSampler(policy, progress=False), contexts, [], PARAMS) == []


def test_problems_with_one_id_are_refused_before_anything_is_sampled(contexts, problems):
    sampler = Writing()
    with pytest.raises(ValueError, match="same id: 'p3'"):
        sample_rollouts(sampler, contexts, [*problems, problems[0]], PARAMS)
    assert sampler.asked == []


def test_a_prompt_that_leaves_no_room_is_refused_before_anything_is_sampled_and_names_its_problem():
    policy = add_lora(tiny_policy(context=400), rank=4)
    contexts = ContextBuilder(policy.tokenizer)
    short, long = Problem("short", "?", "1"), Problem("long", "What? " * 30, "1")
    sampler = HFSampler(policy, progress=False)
    fitting = SamplingParams(400 - len(contexts.student_prompt(long)))
    with pytest.raises(ValueError, match=r"problem 'long': the student's prompt has \d+ tokens and its completion up to \d+"):
        sample_rollouts(sampler, contexts, [short, long], replace(fitting, max_new_tokens=fitting.max_new_tokens + 1))
    assert [r.problem_id for r in sample_rollouts(sampler, contexts, [short, long], fitting)] == ["short", "long"]


@pytest.mark.parametrize("change", [lambda found: found[1:], lambda found: found[::-1], lambda found: [*found, found[-1]]])
def test_a_sampler_that_loses_or_moves_rollouts_is_noticed(contexts, problems, change):
    with pytest.raises(RuntimeError, match="Writing did not return 2 rollouts per prompt, prompt by prompt"):
        sample_rollouts(Writing(change), contexts, problems, PARAMS)


def test_one_problem_may_have_several_prompts(problems):
    rollouts = continue_prompts(Writing(), [problems[0], problems[1], problems[0]], [[1], [2], [3]], SamplingParams(5))
    assert [(r.problem_id, r.prompt_ids) for r in rollouts] == [("p3", (1,)), ("p4", (2,)), ("p3", (3,))]


def test_prompts_without_a_problem_are_refused_before_anything_is_sampled(problems):
    sampler = Writing()
    with pytest.raises(ValueError, match="2 prompts of 1 problems"):
        continue_prompts(sampler, problems[:1], [[1], [2]], PARAMS)
    assert sampler.asked == []


def test_every_rollout_finds_its_problem_in_any_order(problems):
    rollouts = [Rollout(f"p{i}", (1,), (2,), (-1.0,), "stop", "x") for i in (5, 3, 5)]
    assert problems_of(rollouts, problems) == [problems[2], problems[0], problems[2]]
    assert problems_of(rollouts, [problems[2], problems[0], replace(problems[2])]) == [problems[2], problems[0], problems[2]]


@pytest.mark.parametrize(
    ("problem_id", "more", "message"),
    [
        ("", [], "rollout 1 does not know its problem; draw rollouts with sample_rollouts"),
        ("p99", [], "rollout 1 is of problem 'p99', which is not among the problems given"),
        ("p3", [Problem("p3", "another question", "1")], "two problems have the id 'p3'"),
    ],
)
def test_a_rollout_without_one_problem_is_refused_with_its_number(problems, problem_id, more, message):
    rollouts = [Rollout(name, (1,), (2,), (-1.0,), "stop", "x") for name in ("p3", problem_id)]
    with pytest.raises(ValueError, match=message):
        problems_of(rollouts, [*problems, *more])
