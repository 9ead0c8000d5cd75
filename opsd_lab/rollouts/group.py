"""A problem's rollouts of one step, with what became of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from opsd_lab.problems.problem import Problem
from opsd_lab.rollouts.base import Rollout
from opsd_lab.rollouts.sampling import problems_of


@dataclass(frozen=True)
class Group:
    """The rollouts of one problem, and their rewards; None where nobody judged them.

    Raises:
        ValueError: for another number of rewards than of rollouts.
    """

    problem: Problem
    rollouts: tuple[Rollout, ...]
    rewards: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.rewards is not None and len(self.rewards) != len(self.rollouts):
            raise ValueError(f"problem {self.problem.id!r}: {len(self.rewards)} rewards for {len(self.rollouts)} rollouts")

    def peers(self, rollout: Rollout) -> Iterator[tuple[Rollout, float]]:
        """Yield the other rollouts of the problem with their rewards.

        Raises:
            ValueError: when nobody judged them; it names the remedy.
        """
        if self.rewards is None:
            raise ValueError(
                "the rollouts were not judged, so no peer is known to be right; give `rewards`, such as AnswerReward(grader)"
            )
        for peer, reward in zip(self.rollouts, self.rewards, strict=True):
            if peer is not rollout:
                yield peer, reward

    @property
    def pass_rate(self) -> float | None:
        """The share of rollouts with a positive reward; None where nobody judged them."""
        return None if self.rewards is None else sum(reward > 0 for reward in self.rewards) / len(self.rewards)


def groups_of(problems: Sequence[Problem], rollouts: Sequence[Rollout], rewards: Sequence[float] | None = None) -> list[Group]:
    """Return the group of each rollout; rollouts of one problem share theirs.

    Raises:
        ValueError: for a rollout of a problem that is not among the problems.
    """
    members: dict[str, list[int]] = {}
    for i, rollout in enumerate(rollouts):
        members.setdefault(rollout.problem_id, []).append(i)
    owners, made = problems_of(rollouts, problems), {}
    for name, of in members.items():
        judged = None if rewards is None else tuple(rewards[i] for i in of)
        made[name] = Group(owners[of[0]], tuple(rollouts[i] for i in of), judged)
    return [made[rollout.problem_id] for rollout in rollouts]
