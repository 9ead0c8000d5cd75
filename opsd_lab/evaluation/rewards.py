"""What a rollout is worth: 1 for a correct final answer, else 0."""

from collections.abc import Sequence
from dataclasses import dataclass

from opsd_lab.evaluation.outcomes import By, check_references, grade_rollouts
from opsd_lab.grading import Grader
from opsd_lab.problems.problem import Problem
from opsd_lab.rollouts.base import Rollout


@dataclass(frozen=True)
class AnswerReward:
    """Rewards of rollouts by their own text; `by` says which answer counts, the final one being the box or else the last number."""

    grader: Grader
    by: By = "final"

    def check(self, problems: Sequence[Problem]) -> None:
        """Make sure, before anything is sampled, that every reference answer can be read.

        Raises:
            UnreadableAnswersError: when some cannot; it lists all of them with their problems' ids.
        """
        check_references(self.grader, problems)

    def __call__(self, rollouts: Sequence[Rollout], problems: Sequence[Problem]) -> list[float]:
        """Return 1.0 for each rollout whose answer is correct, 0.0 for each other, unverifiable ones included.

        Raises:
            ValueError, UnreadableAnswersError: as `grade_rollouts` does.
        """
        return [float(getattr(grade, self.by) == "correct") for grade in grade_rollouts(self.grader, rollouts, problems)]
