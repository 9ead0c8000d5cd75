"""Whether rollouts are right: each is graded by its own text against its own problem's answer."""

from collections.abc import Sequence
from typing import Literal

from opsd_lab.grading import Grade, Grader
from opsd_lab.problems.problem import Problem
from opsd_lab.rollouts.base import Rollout
from opsd_lab.rollouts.sampling import problems_of

By = Literal["final", "boxed", "last_number"]
"""Which answer of a rollout counts: its box, its last number, or the final one, which is the box or else the last number."""


def grade_rollouts(grader: Grader, rollouts: Sequence[Rollout], problems: Sequence[Problem]) -> list[Grade]:
    """Return the grade of each rollout: the verdicts on its box, its last number and its final answer, with the answers' texts.

    A rollout finds its problem among `problems` by its id.

    Raises:
        ValueError: for a rollout that has no problem or one that is not among those given; for two problems with the same id.
        UnreadableAnswersError: before anything is graded, when the reference answers of some rollouts cannot be read; it lists all.
        RuntimeError: when no worker process can be started.
    """
    asked = problems_of(rollouts, problems)
    check_references(grader, asked)
    return grader.grade([rollout.text for rollout in rollouts], [problem.answer for problem in asked])


def check_references(grader: Grader, problems: Sequence[Problem]) -> None:
    """Make sure that every problem's reference answer can be read; a problem may come more than once.

    Raises:
        UnreadableAnswersError: when some cannot; it lists each of them once, with its problem's id.
        RuntimeError: when no worker process can be started.
    """
    answers = {problem.id: problem.answer for problem in problems}
    grader.check(list(answers), list(answers.values()))
