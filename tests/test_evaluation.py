import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from opsd_lab.evaluation.estimate import ESTIMATE, Estimate
from opsd_lab.evaluation.evaluate import COLUMNS, Evaluation, evaluate, graded, paired_difference
from opsd_lab.evaluation.outcomes import grade_rollouts
from opsd_lab.evaluation.paired import paired_interval, tango_bounds
from opsd_lab.evaluation.rewards import AnswerReward
from opsd_lab.evaluation.statistics import avg_at_k, maj_at_k, mean_interval, pass_at_k, share_interval
from opsd_lab.grading import Grader, UnreadableAnswersError
from opsd_lab.problems.problem import Problem
from opsd_lab.rollouts.base import Rollout, SamplingParams


class Recital:
    """A sampler that recites prepared texts: the prompt's first token chooses the list, the sample its entry."""

    def __init__(self, texts):
        self.texts = texts

    def sample(self, prompts, params):
        return [self.recite(tuple(prompt), text) for prompt in prompts for text in self.texts[prompt[0]][: params.n]]

    def recite(self, prompt, text):
        ids = tuple(text.encode()) or (0,)
        finish = "length" if text.endswith("...") else "stop"
        return Rollout("", prompt, ids, (0.0,) * len(ids), finish, text)

    def update(self, policy):
        raise AssertionError("an evaluation must not change its sampler")


PROBLEMS = [Problem("a", "What is 6 times 7?", "42"), Problem("b", "What is a half?", "1/2")]
TEXTS = {0: [r"\boxed{42}", "42", r"\boxed{41} not 42", "I ..."], 1: ["0.5", r"\boxed{9^{9^{9^{9}}}}", "2", "0.5"]}


@pytest.fixture(scope="module")
def grader():
    with Grader(seconds=1.0) as grader:
        yield grader


def run(grader, n=4, texts=TEXTS, temperature=1.0, name="model"):
    params = SamplingParams(max_new_tokens=99, temperature=temperature, n=n)
    ids = {problem.id: [i, 7] for i, problem in enumerate(PROBLEMS)}
    return evaluate(Recital(texts), PROBLEMS, lambda problem: ids[problem.id], params, grader, name=name)


def table(*correct, name="model"):
    rows = [
        (f"p{p}", s, v, v, v, "1", False, 3, "text")
        for p, row in enumerate(correct)
        for s, v in enumerate("correct" if c else "incorrect" for c in row)
    ]
    return Evaluation(name, pd.DataFrame(rows, columns=list(COLUMNS)))


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (27, 100), (0, 50), (50, 50)])
def test_the_interval_of_a_share_adds_successes_and_failures_as_agresti_and_coull_do(successes, n):
    interval = share_interval(successes, n)
    z = stats.norm.ppf(0.975)
    more = n + z**2
    share = (successes + z**2 / 2) / more
    half = z * math.sqrt(share * (1 - share) / more)
    assert (interval.low, interval.high) == pytest.approx((max(0, share - half), min(1, share + half)), abs=1e-12)
    assert (interval.mean, interval.n, interval.unit) == (successes / n, n, "problems")


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (2, 1), (-1, 3)])
def test_impossible_proportions_are_an_error(successes, n):
    with pytest.raises(ValueError, match="proportion"):
        share_interval(successes, n)


def test_an_estimate_prints_and_converts_to_a_dictionary():
    estimate = Estimate(0.274, 0.2, 0.35, 128)
    assert str(estimate) == "0.27 [0.20, 0.35]"
    assert estimate.as_dict() == {"mean": 0.274, "low": 0.2, "high": 0.35, "n": 128, "unit": "problems", "note": ""}
    assert list(estimate.as_dict())[:5] == list(ESTIMATE)


def test_estimates_over_few_problems_say_so():
    assert avg_at_k(np.ones((29, 1))).note == mean_interval(np.ones(29), 58).note == "rough bounds: 29 problems"
    assert avg_at_k(np.ones((30, 1))).note == "" and mean_interval(np.ones(1), 2).note == "too few problems for bounds"


def test_the_interval_of_a_mean_is_the_normal_one_on_many_problems():
    values = np.random.default_rng(1).beta(2, 3, size=400)
    interval = mean_interval(values, 10_000)
    half = stats.norm.ppf(0.975) * values.std() / math.sqrt(400)
    assert interval.mean == pytest.approx(values.mean())
    assert (interval.low, interval.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.003)


def test_an_interval_is_narrower_at_lower_confidence():
    values = np.random.default_rng(2).random(30)
    wide, narrow = mean_interval(values, 120), mean_interval(values, 120, confidence=0.5)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_one_problem_gives_a_mean_without_bounds():
    interval = mean_interval(np.array([0.25]), 4)
    assert interval.mean == 0.25
    assert math.isnan(interval.low) and math.isnan(interval.high)


@pytest.mark.parametrize("values", [[], [[0.5]], [0.5, math.nan], [0.5, 1.5]])
def test_an_interval_of_missing_or_impossible_values_is_an_error(values):
    with pytest.raises(ValueError, match=r"one value in \[0, 1\] per problem"):
        mean_interval(np.array(values), 2)


def test_more_samples_of_the_same_verdict_are_never_surer_than_one_of_each_problem():
    for verdict in (0, 1):
        one = avg_at_k(np.full((30, 1), verdict))
        for k in (2, 4, 64):
            many = avg_at_k(np.full((30, k), verdict))
            assert many.mean == verdict and many.high - many.low == pytest.approx(one.high - one.low, rel=0.2)
        assert pass_at_k(np.full((30, 4), verdict), 2).high - pass_at_k(np.full((30, 4), verdict), 2).low > 0.05


def test_equal_answers_before_and_after_are_no_proof_of_equal_accuracy():
    solved = np.array([1.0] * 10 + [0.0] * 20)
    same = paired_interval(solved, solved, 30)
    assert same.mean == 0 and same.low < -0.02 and same.high > 0.02
    for verdict in (0.0, 1.0):
        found = paired_interval(np.full(30, verdict), np.full(30, verdict), 30)
        assert found.low < -0.05 and found.high > 0.05


def test_a_difference_is_paired_problem_by_problem():
    rng = np.random.default_rng(3)
    easy = rng.beta(1, 1, 200)
    better = np.clip(easy + rng.normal(0.05, 0.1, 200), 0, 1)
    paired = paired_interval(easy, better, 10_000)
    half = stats.t.ppf(0.975, 199) * (better - easy).std(ddof=1) / math.sqrt(200)
    assert paired.low > 0 and paired.high - paired.low == pytest.approx(2 * half, rel=0.02)


def test_single_verdicts_have_the_bounds_that_the_score_test_does_not_refuse():
    gains, losses = np.array([21, 12, 3, 0, 50]), np.array([9, 3, 3, 0, 0])
    low, high = tango_bounds(gains, losses, 50)
    assert ((gains - losses) / 50 >= low).all() and ((gains - losses) / 50 <= high).all()
    z = stats.norm.ppf(0.975)
    # That the sides are equal is refused where McNemar's test refuses it.
    assert (low > 0).tolist() == ((gains - losses) / np.sqrt(np.maximum(gains + losses, 1)) > z).tolist()
    # Where the sides always agree, the bounds are those of the score test of a share of 0 (Wilson 1927).
    assert (low[3], high[3]) == pytest.approx((-(z**2) / (50 + z**2), z**2 / (50 + z**2)), abs=1e-6)
    swapped = tango_bounds(losses, gains, 50)
    assert swapped[0] == pytest.approx(-high) and swapped[1] == pytest.approx(-low)


def test_a_difference_on_few_problems_is_said_to_be_rough():
    first = np.tile([0.0, 0.5, 1.0], 20)
    second = first.copy()
    second[:6] = 0.5
    found = paired_interval(first, second, 120)
    assert found.note == "rough bounds: the sides differ on 4 of 60 problems" and found.low < 0 < found.high


def test_the_interval_of_a_rare_failure_holds_the_truth():
    rng = np.random.default_rng(7)
    found = [avg_at_k(rng.random((30, 4)) < 0.995) for _ in range(300)]
    assert np.mean([i.low <= 0.995 <= i.high for i in found]) >= 0.92 and min(i.high - i.low for i in found) > 0.01


def test_avg_at_1_has_the_interval_of_a_share_and_avg_at_k_counts_problems_not_samples():
    assert avg_at_k(np.array([[1], [0], [0], [0]])) == share_interval(1, 4)
    same = avg_at_k(np.repeat([[1], [0], [0], [0]], 50, axis=1))
    assert same.mean == 0.25
    # Fifty equal samples of a problem are no more evidence than one.
    assert same.high - same.low > 0.5


def test_a_table_that_is_not_of_truths_is_an_error():
    for bad in (np.array([1, 0]), np.array([[0.5]]), np.zeros((0, 3))):
        with pytest.raises(ValueError, match="problems, samples"):
            avg_at_k(bad)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_pass_at_k_equals_the_fraction_of_subsets_that_hold_a_correct_sample(k):
    correct = np.random.default_rng(3).random((6, 5)) < [[0.0], [0.1], [0.3], [0.5], [0.8], [1.0]]
    brute = [np.mean([any(row[list(s)]) for s in itertools.combinations(range(5), k)]) for row in correct]
    assert pass_at_k(correct, k).mean == pytest.approx(np.mean(brute), abs=1e-12)


def test_pass_at_k_beyond_the_samples_is_an_error():
    for k in (0, 3):
        with pytest.raises(ValueError, match=f"pass@{k}"):
            pass_at_k(np.array([[1, 0]]), k)


def test_the_majority_counts_equal_numbers_together_and_ignores_missing_answers():
    answers = [["0.5", "2", "1/2", None], [None, None, None, "7"], [None] * 4, ["1", "2", "2", "1"], ["x  y"] * 4]
    correct = np.array([[1, 0, 1, 0], [0, 0, 0, 1], [0] * 4, [0, 1, 1, 0], [1] * 4])
    assert maj_at_k(answers, correct) == share_interval(3, 5)


def test_a_majority_vote_of_another_shape_is_an_error():
    with pytest.raises(ValueError, match="shape"):
        maj_at_k([["1"]], np.array([[1, 0]]))


def test_an_evaluation_holds_every_rollout_with_its_verdicts(grader):
    result = run(grader, name="base")
    assert result.problem_ids == ["a", "b"]
    assert (result.name, result.k) == ("base", 4)
    assert result.rows["final"].tolist()[:4] == ["correct", "correct", "incorrect", "missing"]
    assert result.rows["final"].tolist()[4:] == ["correct", "unverifiable", "incorrect", "correct"]
    assert result.correct().tolist() == [[True, True, False, False], [True, False, False, True]]
    assert result.accuracy().mean == 0.5
    assert result.accuracy("boxed").mean == 1 / 8
    assert result.accuracy("last_number").mean == 5 / 8
    assert result.pass_at_k(2).mean == pytest.approx(5 / 6)
    assert result.maj_at_k().mean == 1.0
    assert result.truncation_rate == 1 / 8
    assert result.mean_length == np.mean([len(text) for texts in TEXTS.values() for text in texts])
    assert result.rows["text"].tolist() == TEXTS[0] + TEXTS[1]


def test_wrong_missing_and_unverifiable_answers_are_counted_apart(grader):
    counts = run(grader).counts()
    assert counts["final"].to_dict() == {"correct": 4, "incorrect": 2, "missing": 1, "unverifiable": 1}
    assert counts["boxed"].to_dict() == {"correct": 1, "incorrect": 1, "missing": 5, "unverifiable": 1}
    assert counts.sum().tolist() == [8, 8, 8]


def test_greedy_evaluation_uses_one_sample_per_problem(grader):
    assert run(grader, n=1, temperature=0).accuracy() == share_interval(2, 2)
    with pytest.raises(ValueError, match="greedy"):
        run(grader, n=2, temperature=0)


def test_problems_must_be_there_and_be_distinct(grader):
    params = SamplingParams(max_new_tokens=9)
    with pytest.raises(ValueError, match="no problems"):
        evaluate(Recital(TEXTS), [], lambda problem: [0], params, grader)
    with pytest.raises(ValueError, match="same id: 'a'"):
        evaluate(Recital(TEXTS), PROBLEMS[:1] * 2, lambda problem: [0], params, grader)


def test_a_sampler_that_returns_too_little_is_an_error(grader):
    with pytest.raises(RuntimeError, match="4 rollouts per prompt"):
        run(grader, texts={0: ["42"] * 3, 1: ["1"] * 4})


def test_rows_out_of_order_are_an_error():
    rows = table([1, 0], [0, 1]).rows
    for bad in (rows[::-1], rows[:3], rows[:0], rows.assign(sample=0), rows.assign(problem_id="p")):
        with pytest.raises(ValueError, match="problem by problem"):
            Evaluation("x", bad)
    with pytest.raises(ValueError, match="missing columns \\['text'\\]"):
        Evaluation("x", rows.drop(columns="text"))


def test_the_paired_difference_is_that_of_the_means_and_ignores_order():
    before, after = table([0, 0], [1, 0], [1, 1]), table([1, 0], [1, 1], [1, 1])
    difference = paired_difference(before, after)
    assert difference.mean == pytest.approx(1 / 3)
    assert paired_difference(after, before).mean == pytest.approx(-1 / 3)
    shuffled = Evaluation("after", after.rows.iloc[[4, 5, 0, 1, 2, 3]])
    assert paired_difference(before, shuffled) == difference


def test_pairing_removes_the_spread_between_problems():
    hard, easy = [[0] * 10] * 20, [[1] * 9 + [0]] * 20
    better = [[1] + [0] * 9] * 20, [[1] * 10] * 20
    difference = paired_difference(table(*hard, *easy), table(*better[0], *better[1]))
    assert 0.08 < difference.low < 0.1 < difference.high < 0.12


def test_a_difference_over_other_problems_names_them():
    with pytest.raises(ValueError, match="'p2'"):
        paired_difference(table([1], [0]), table([1], [0], [1]))


def test_unreadable_references_are_listed_before_anything_is_sampled(grader):
    class Untouched(Recital):
        def sample(self, prompts, params):
            raise AssertionError("sampled before the references were checked")

    problems = [Problem("a", "?", "42"), Problem("b", "?", "7:15q.."), Problem("c", "?", "2 +")]
    with pytest.raises(UnreadableAnswersError, match=r"problem 'b': '7:15q\.\.'\nproblem 'c': '2 \+'"):
        evaluate(Untouched(TEXTS), problems, lambda problem: [0], SamplingParams(max_new_tokens=9), grader)


def rollouts_of(*texts):
    return [Rollout(name, (1,), (2,), (-1.0,), "stop", text) for name, text in texts]


def test_rollouts_are_graded_against_their_own_problems_in_any_order(grader):
    rollouts = rollouts_of(("b", "a half, 0.5"), ("a", r"\boxed{42} or 7"), ("b", "none"), ("a", r"\boxed{1/2}"))
    grades = grade_rollouts(grader, rollouts, PROBLEMS)
    assert [grade.final for grade in grades] == ["correct", "correct", "missing", "incorrect"]
    assert [grade.last_number for grade in grades] == ["correct", "incorrect", "missing", "incorrect"]
    assert [grade.final_answer for grade in grades] == ["0.5", "42", None, "1/2"]
    assert grade_rollouts(grader, [], PROBLEMS) == []


def test_a_rollout_of_an_unknown_problem_is_named(grader):
    with pytest.raises(ValueError, match="rollout 1 is of problem 'c', which is not among the problems given"):
        grade_rollouts(grader, rollouts_of(("a", "1"), ("c", "1")), PROBLEMS)


def test_unreadable_references_of_graded_rollouts_are_listed_once_and_those_of_others_do_not_matter(grader):
    problems = [*PROBLEMS, Problem("c", "?", "2 +")]
    assert grade_rollouts(grader, rollouts_of(("a", "42")), problems)[0].final == "correct"
    with pytest.raises(UnreadableAnswersError, match=r"1 reference answer.*\n.*problem 'c': '2 \+'$"):
        grade_rollouts(grader, rollouts_of(("c", "2"), ("a", "42"), ("c", "3")), problems)


@pytest.mark.parametrize(
    ("by", "expected"), [("final", [1.0, 0.0, 0.0]), ("boxed", [1.0, 0.0, 0.0]), ("last_number", [0.0, 1.0, 0.0])]
)
def test_a_right_answer_is_worth_one_and_any_other_nothing(grader, by, expected):
    rollouts = rollouts_of(("a", r"\boxed{42} or 7"), ("a", r"\boxed{41} or 42"), ("b", "none"))
    assert AnswerReward(grader, by)(rollouts, [PROBLEMS[0], PROBLEMS[0], PROBLEMS[1]]) == expected


def test_the_reward_of_answers_checks_all_problems_at_once(grader):
    reward = AnswerReward(grader)
    reward.check(PROBLEMS)
    with pytest.raises(UnreadableAnswersError, match="problem 'b'"):
        reward.check([*PROBLEMS, Problem("b", "?", "at least 3")])


def test_rollouts_that_are_written_are_graded_as_many_of_each_problem():
    problems = [Problem("a", "1+1?", "2"), Problem("b", "1+2?", "3")]
    with Grader() as grader:
        found = graded(rollouts_of(("a", "2"), ("a", "7"), ("b", "3"), ("b", "3")), problems, grader)
        assert found.correct().tolist() == [[True, False], [True, True]] and found.k == 2
        with pytest.raises(ValueError, match="3 rollouts of 2 problems; give the same number of each problem"):
            graded(rollouts_of(("a", "2"), ("a", "7"), ("b", "3")), problems, grader)
        with pytest.raises(ValueError, match="not problem by problem with the same samples"):
            graded(rollouts_of(("a", "2"), ("a", "7"), ("a", "2"), ("b", "3")), problems, grader)
        with pytest.raises(ValueError, match="0 rollouts of 0 problems"):
            graded([], [], grader)
