"""Rollouts of a later checkpoint of the same run."""

from dataclasses import dataclass, field, replace

from torch import no_grad

from opsd_lab.basics.options import whole
from opsd_lab.objectives import GRPO, Objective
from opsd_lab.problems.problem import Problem
from opsd_lab.rollouts import Stored, sample_rollouts
from opsd_lab.training.start import Start
from opsd_lab.training.trainer import Trainer


@dataclass(frozen=True)
class LaterCheckpoint:
    """The source of right rollouts that the policy writes once it has trained `steps` steps by `objective`; then it goes back.

    Both are done before the first step, and billed. `problems` are written once each, those that the run meets first.

    Raises:
        TypeError, ValueError: for a number of steps or problems that is none.
    """

    objective: Objective = field(default_factory=GRPO)
    steps: int = 20
    problems: int = 256

    def __post_init__(self) -> None:
        whole("LaterCheckpoint: steps", self.steps, least=1)
        whole("LaterCheckpoint: problems", self.problems, least=1)

    def begin(self, start: Start) -> Stored:
        """Return the stored rollouts.

        Raises:
            ValueError: when none of them is right.
        """
        weights = start.policy.trainable()
        initial = {name: p.detach().clone() for name, p in weights.items()}
        ahead = Trainer(
            start.policy,
            start.problems,
            start.contexts,
            start.sampler,
            start.sampling,
            objective=self.objective,
            params=start.params,
            rewards=start.rewards,
        )
        try:
            for _ in ahead.train(self.steps, progress=False):
                pass
            chosen = self._met_first(start)
            drawn = sample_rollouts(start.sampler, start.contexts, chosen, replace(start.sampling, n=1, seed=start.params.seed))
        finally:
            with no_grad():
                for name, p in weights.items():
                    p.copy_(initial[name])
            start.sampler.update(start.policy)
        start.bills.append(ahead.ledger)
        start.bill_scoring(drawn, [])
        kept = tuple(rollout for rollout, reward in zip(drawn, start.rewards(drawn, chosen), strict=True) if reward > 0)
        if not kept:
            raise ValueError(f"LaterCheckpoint: after {self.steps} steps none of {len(drawn)} rollouts is right; take more of both")
        return Stored(kept, some=True)

    def _met_first(self, start: Start) -> list[Problem]:
        size, order = len(start.problems), {}
        number = 1
        while len(order) < min(self.problems, size):
            order |= dict.fromkeys(start.params.problems_of_step(number, size))
            number += 1
        return [start.problems[i] for i in list(order)[: self.problems]]
