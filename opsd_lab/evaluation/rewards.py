"""What a rollout is worth: 1 for a correct final answer, or for the answer that most of its problem's rollouts give, else 0."""

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


@dataclass(frozen=True)
class MajorityReward:
    """Rewards without references: 1 for the answer that the largest part of a problem's rollouts gives, at least `share` of them.

    `by` says which answer of a rollout counts. Of answers that equally many give, the one that was given first is the majority's.
    """

    grader: Grader
    by: By = "final"
    share: float = 0.5

    def __call__(self, rollouts: Sequence[Rollout], problems: Sequence[Problem]) -> list[float]:
        """Return 1.0 for each rollout whose answer is the majority's, 0.0 for each other; 0.0 for all where none is."""
        groups: dict[str, list[int]] = {}
        for i, problem in enumerate(problems):
            groups.setdefault(problem.id, []).append(i)
        found = [0.0] * len(rollouts)
        for members in groups.values():
            for i in self._agreeing([rollouts[i].text for i in members]):
                found[members[i]] = 1.0
        return found

    def _agreeing(self, texts: list[str]) -> list[int]:
        """Return which texts give the majority's answer; none where no answer is common enough."""
        own = f"{self.by}_answer"
        answers = [getattr(grade, own) for grade in self.grader.grade(texts, ["0"] * len(texts))]
        best: list[int] = []
        for answer in dict.fromkeys(answer for answer in answers if answer is not None):
            grades = self.grader.grade(texts, [answer] * len(texts))
            agreeing = [i for i, grade in enumerate(grades) if getattr(grade, self.by) == "correct"]
            best = max(best, agreeing, key=len)
        return best if len(best) >= self.share * len(texts) else []


def by_majority(rewards: AnswerReward, share: float = 0.5) -> MajorityReward:
    """Return rewards by the majority, at least a `share` of the group, with the grader of `rewards`; for a Recipe."""
    return MajorityReward(rewards.grader, rewards.by, share)
