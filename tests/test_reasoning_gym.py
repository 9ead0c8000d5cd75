"""Problems of reasoning-gym: the same for a seed, with solutions whose every line holds and whose answer is the package's."""

import sys

import pytest

from opsd_lab.grading import Grader
from opsd_lab.problems.opening import open_problems
from opsd_lab.problems.reasoning_gym import TASKS, reasoning_gym_problems, written_out
from opsd_lab.steps.arithmetic import arithmetic_steps


@pytest.mark.parametrize(
    ("expression", "lines"),
    [
        ("4 - 1 - 7", ["4 - 1 = 3", "3 - 7 = -4"]),
        ("1 + 2 * 3", ["2 * 3 = 6", "1 + 6 = 7"]),
        ("( 56 + -33 ) - 84", ["56 + (-33) = 23", "23 - 84 = -61"]),
        ("-( 2 + 3 ) * 2", ["2 + 3 = 5", "-1 * 5 = -5", "-5 * 2 = -10"]),
        ("7 / 2 / 2", ["7 / 2 = 7/2", "7/2 / 2 = 7/4"]),
        ("5", []),
    ],
)
def test_a_calculation_is_written_out_in_the_order_of_its_operations(expression, lines):
    assert written_out(expression) == lines


@pytest.mark.parametrize("expression", ["2 ** 3", "x + 1", "__import__('os')", "1 if 2 else 3", "'a' + 'b'"])
def test_what_is_no_calculation_is_refused(expression):
    with pytest.raises(ValueError, match="is no calculation of numbers"):
        written_out(expression)


def test_a_task_without_solutions_or_a_missing_package_is_told_with_the_remedy(monkeypatch):
    with pytest.raises(
        ValueError, match=r"reasoning-gym's 'rubiks_cube' gives no steps to show a teacher; there are gsm_symbolic, .*"
    ):
        reasoning_gym_problems("rubiks_cube", 3)
    with pytest.raises(ValueError, match=r"write task, seed and number, such as gym:chain_sum/0/500"):
        open_problems("gym:chain_sum")
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'opsd-lab\[reasoning-gym\]'"):
        reasoning_gym_problems("chain_sum", 3)


@pytest.mark.parametrize("task", TASKS)
def test_every_solution_holds_line_by_line_and_ends_in_the_packages_answer(task):
    pytest.importorskip("reasoning_gym")
    problems = reasoning_gym_problems(task, 100, seed=3)
    assert len({problem.question for problem in problems}) > 50
    with Grader() as grader:
        grades = grader.grade([problem.solution for problem in problems], [problem.answer for problem in problems])
    assert {grade.boxed for grade in grades} == {"correct"}
    labels = [step.label for problem in problems for step in arithmetic_steps(problem.solution)]
    assert labels.count("incorrect") <= (3 if task == "gsm_symbolic" else 0) and labels.count("correct") > 0.9 * len(labels)


def test_the_same_seed_gives_the_same_problems_also_by_name_and_another_seed_others():
    pytest.importorskip("reasoning_gym")
    first = reasoning_gym_problems("leg_counting", 5, seed=1)
    assert reasoning_gym_problems("leg_counting", 5, seed=1) == first == open_problems("gym:leg_counting/1/5").problems
    assert reasoning_gym_problems("leg_counting", 5, seed=2) != first
    assert {problem.meta["task"] for problem in first} == {"leg_counting"}
    harder = reasoning_gym_problems("chain_sum", 5, min_terms=7, max_terms=8)
    assert all(len(problem.solution.splitlines()) >= 7 for problem in harder)
