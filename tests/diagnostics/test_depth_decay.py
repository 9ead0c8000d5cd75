import numpy as np
import pytest

from opsd_lab.contexts import ContextBuilder
from opsd_lab.diagnostics import depth_decay
from opsd_lab.grading import Grader
from opsd_lab.problems.problem import Problem
from opsd_lab.rollouts import HFSampler, sample_rollouts
from opsd_lab.rollouts.base import Rollout, SamplingParams
from tests.diagnostics.tables import row

PARAMS = SamplingParams(5)
TEACHER = 99  # the first token of the teacher's prompt
PROBLEMS = [Problem("p0", "?", "10"), Problem("p1", "?", "20")]


class Answering:
    """Writes " 10" behind a teacher's prompt, whatever follows; behind a student's only while at most two tokens are kept."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def sample(self, prompts, params):
        self.asked += prompts
        texts = [" 10" if p[0] == TEACHER or len(p) <= 3 else " 11" for p in prompts]
        return [Rollout("", tuple(p), (7,), (-1.0,), "stop", t) for p, t in zip(prompts, texts, strict=True) for _ in range(params.n)]


def rollout(problem_id: str = "p0", finish: str = "stop", length: int = 4) -> Rollout:
    tokens = tuple(f" w{i}" for i in range(length))
    return Rollout(problem_id, (1,), tuple(range(10, 10 + length)), (-1.0,) * length, finish, "".join(tokens) + " so 10", tokens)


def decay(rollouts, sampler=None, params=PARAMS, **options):
    with Grader() as grader:
        return depth_decay(rollouts, PROBLEMS, lambda problem: [TEACHER, 2], sampler or Answering(), params, grader, **options)


def test_both_sides_continue_the_kept_tokens_behind_their_own_prompts():
    sampler = Answering()
    result = decay([rollout(), rollout("p1")], sampler, depths=(0, 0.25, 0.5, 0.75))
    assert sampler.asked[:4] == [[1], [1], [TEACHER, 2], [TEACHER, 2]]
    assert sampler.asked[-4:] == [[1, 10, 11, 12], [1, 10, 11, 12], [TEACHER, 2, 10, 11, 12], [TEACHER, 2, 10, 11, 12]]
    assert result[["depth", "who"]].to_numpy().tolist() == [
        [depth, who] for depth in (0, 0.25, 0.5, 0.75) for who in ("student", "teacher", "teacher - student")
    ]
    assert [row(result, depth, "student")["mean"] for depth in (0, 0.25, 0.5, 0.75)] == [0.5, 0.5, 0.5, 0]  # p1's answer is another
    assert [row(result, depth, "teacher")["mean"] for depth in (0, 0.25, 0.5, 0.75)] == [0.5] * 4
    last = row(result, 0.75, "teacher - student")
    assert (last["mean"], last["n"], last["n_rollouts"]) == (0.5, 2, 2) and last["low"] < 0 < 0.5 < last["high"]
    first = row(result, 0, "teacher - student")
    assert first["mean"] == 0 and first["low"] < 0 < first["high"]  # that two problems agree does not make the sides equal


def test_a_rollout_that_ended_by_itself_is_graded_whole_and_a_cut_one_continued():
    sampler = Answering()
    result = decay([rollout(), rollout(finish="length")], sampler, depths=(1,))
    assert sampler.asked == [[1, 10, 11, 12, 13], [TEACHER, 2, 10, 11, 12, 13]]
    assert row(result, 1, "student")["mean"] == 0.5 and row(result, 1, "teacher")["mean"] == 1


def test_when_nothing_is_left_to_continue_the_sampler_is_not_asked():
    result = decay([rollout()], sampler=object(), depths=(1,))
    assert result["mean"].tolist() == [1, 1, 0] and result["low"].isna().all()


def test_the_kept_text_is_graded_with_its_continuation():
    class Silent(Answering):
        def sample(self, prompts, params):
            return [Rollout("", tuple(p), (7,), (-1.0,), "stop", "") for p in prompts]

    said = Rollout("p0", (1,), (5, 6, 7, 8), (-1.0,) * 4, "stop", " 10 or 3", (" 1", "0", " or", " 3"))
    result = decay([said], Silent(), depths=(0, 0.25, 0.5, 0.75))
    assert [row(result, depth, "student")["mean"] for depth in (0, 0.25, 0.5, 0.75)] == [0, 0, 1, 1]


def test_several_continuations_of_a_rollout_are_averaged_and_it_counts_once():
    class Alternating(Answering):
        def sample(self, prompts, params):
            return [Rollout("", tuple(p), (7,), (-1.0,), "stop", t) for p in prompts for t in (" 10", " 11")]

    result = decay([rollout()], Alternating(), SamplingParams(5, n=2), depths=(0.5,))
    assert row(result, 0.5, "teacher")["mean"] == 0.5 and row(result, 0.5, "teacher")["n_rollouts"] == 1


@pytest.mark.parametrize(
    ("rollouts", "options", "message"),
    [
        ([], {}, "no rollouts to continue"),
        ([rollout()], {"depths": ()}, "no depths"),
        ([rollout()], {"depths": (0, 1.5)}, "in .0, 1."),
        ([rollout()], {"depths": (0, 0)}, "none repeats"),
        ([rollout(), rollout("p7")], {}, "rollout 1 is of problem 'p7'"),
        ([Rollout("p0", (1,), (5,), (-1.0,), "stop", "10")], {}, "rollout 0 has no token texts"),
        ([rollout()], {"params": SamplingParams(5, temperature=0, n=2)}, "greedy decoding writes the same 2 times"),
    ],
)
def test_what_cannot_be_continued_is_refused(rollouts, options, message):
    with pytest.raises(ValueError, match=message):
        decay(rollouts, **options)


def test_a_sampler_that_loses_prompts_is_noticed():
    class Losing(Answering):
        def sample(self, prompts, params):
            return super().sample(prompts, params)[1:]

    with pytest.raises(RuntimeError, match="did not return 1 rollouts per prompt"):
        decay([rollout()], Losing())


def test_greedy_continuation_of_a_real_model_leads_to_the_rollouts_own_answer(policy, problems):
    contexts = ContextBuilder(policy.tokenizer)
    greedy = SamplingParams(8, temperature=0)
    sampler = HFSampler(policy, progress=False)
    shortened = [r for r in sample_rollouts(sampler, contexts, problems[:3], greedy) if r.truncated]
    assert len(shortened) >= 2, "the tiny model seldom ends by itself"
    asked = []

    class Watched(HFSampler):
        def sample(self, prompts, params):
            found = super().sample(prompts, params)
            asked.extend(found)
            return found

    with Grader() as grader:
        result = depth_decay(
            shortened,
            problems,
            lambda p: list(contexts.build(p).teacher_ids),
            Watched(policy, progress=False),
            greedy,
            grader,
            depths=(0, 0.5),
        )
    n = len(shortened)
    for whole, again, half in zip(shortened, asked[:n], asked[2 * n : 3 * n], strict=True):
        assert again.completion_ids == whole.completion_ids, "from depth 0 the student writes its rollout again"
        assert half.completion_ids[:4] == whole.completion_ids[4:], "from depth 1/2 its second half"
    assert [tuple(r.prompt_ids) for r in asked[n : 2 * n]] == [contexts.build(p).teacher_ids for p in problems[:n]]
    assert np.isfinite(result["mean"]).all() and (result["n_rollouts"] == n).all()
