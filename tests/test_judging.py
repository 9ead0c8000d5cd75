import numpy as np
import pytest
import torch

from opsd_lab.rollouts import Rollout
from opsd_lab.training.judging import judged, let_through
from tests.conftest import PROBLEMS

TWO = PROBLEMS[:2]
ROLLOUTS = [Rollout(p.id, (1,), (2,), (-1.0,), "stop", "x") for p in TWO]


@pytest.mark.parametrize(
    "found",
    [
        [1.0, 0.5],
        (1, 0.5),
        np.array([1.0, 0.5]),
        torch.tensor([1.0, 0.5]),
        [np.float32(1), torch.tensor(0.5)],
        [np.int64(1), np.array(0.5)],
    ],
    ids=["list", "tuple", "array", "tensor", "scalars", "no dimensions"],
)
def test_numbers_of_every_kind_are_rewards(found):
    rewards = judged(lambda rollouts, problems: found, ROLLOUTS, TWO)
    assert rewards == [1.0, 0.5] and all(type(value) is float for value in rewards)


def by_length(found):
    def answer_length(rollouts, problems):
        return found

    return answer_length


@pytest.mark.parametrize(
    ("found", "error", "words"),
    [
        ([1.0], ValueError, "returned 1 rewards for 2 rollouts"),
        ([1.0, 0.0, 0.0], ValueError, "returned 3 rewards for 2 rollouts"),
        ([1.0, float("nan")], ValueError, r"returned nan for rollout 1, of problem 'p4'; return a finite number"),
        (np.array([np.inf, 0.0]), ValueError, r"returned inf for rollout 0, of problem 'p3'"),
        ([1.0, None], TypeError, r"returned None \(NoneType\) for rollout 1, of problem 'p4'; return a number"),
        ([True, 0.0], TypeError, r"returned True \(bool\) for rollout 0, of problem 'p3'"),
        (np.array([True, False]), TypeError, r"returned True \(bool\)"),
        ([1.0, "1"], TypeError, r"returned '1' \(str\)"),
        ([[1.0], [0.0]], TypeError, r"returned \[1\.0\] \(list\)"),
        (1.0, TypeError, "returned a float; return a list of numbers, one for each of the 2 rollouts"),
        (None, TypeError, "returned a NoneType"),
        (np.ones((2, 1)), TypeError, r"returned an array of shape \(2, 1\)"),
    ],
    ids=str,
)
def test_what_is_no_reward_names_the_function_the_problem_and_the_remedy(found, error, words):
    with pytest.raises(error, match=f"the rewards function answer_length {words}"):
        judged(by_length(found), ROLLOUTS, TWO)


def test_a_gate_chooses_or_weighs_and_without_one_all_are_chosen():
    assert let_through(None, [0.0, 1.0], [3, 3]) == [True, True]
    assert let_through(lambda rewards, groups: rewards > 0, [0.0, 1.0], [3, 3]) == [False, True]
    assert let_through(lambda rewards, groups: rewards * 0.5, [0.0, 1.0], [3, 3]) == [0.0, 0.5]


@pytest.mark.parametrize(
    ("found", "error", "words"),
    [
        (
            [True, False],
            TypeError,
            "returned a list; return an array of Booleans, or of floats to weigh by, one for each rollout, such as `rewards > 0`",
        ),
        (None, TypeError, "returned a NoneType"),
        (np.array([1.0, -0.5]), ValueError, r"returned -0.5 for rollout 1, of problem 'b'; a weight is a number of at least 0"),
        (np.array([float("nan"), 1.0]), ValueError, "returned nan for rollout 0"),
        (np.array([0, 1]), TypeError, "returned an array of int64"),
        (np.array([True]), ValueError, r"returned an array \(1,\) for 2 rollouts"),
        (np.array([[True, False]]), ValueError, r"returned an array \(1, 2\)"),
    ],
    ids=str,
)
def test_what_is_no_choice_names_the_gate_and_the_remedy(found, error, words):
    def solved(rewards, groups):
        return found

    with pytest.raises(error, match=f"the gate solved {words}"):
        let_through(solved, [0.0, 1.0], ["a", "b"])
