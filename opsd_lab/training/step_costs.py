"""What a step's rollouts cost, in tokens and operations."""

from collections.abc import Sequence
from dataclasses import dataclass

from opsd_lab.objectives import Objective
from opsd_lab.policies.policy import Policy
from opsd_lab.policies.teachers import Teacher
from opsd_lab.rollouts.sources import Written
from opsd_lab.scoring.batching import Example
from opsd_lab.training.costs import CostModel
from opsd_lab.training.ledger import Ledger


@dataclass(frozen=True)
class StepCosts:
    """The cost models of student and teacher."""

    student: CostModel
    teacher: CostModel

    @classmethod
    def of(cls, policy: Policy, teacher: Teacher) -> "StepCosts":
        """Read the shapes of both."""
        own = CostModel.of(policy)
        with teacher.beside(policy) as theirs:
            return cls(own, CostModel.of(theirs))

    def writing(self, written: Written) -> Ledger:
        """Return what sampling took, what was not kept included; rollouts that nobody sampled are free."""
        sampled = [(self.student, rollout) for rollout in written.by_student]
        sampled += [(self.teacher, rollout) for rollout in written.by_teacher]
        return Ledger(
            tokens_generated=sum(len(rollout.completion_ids) for _, rollout in sampled),
            flops_generate=sum(costs.generation(len(r.prompt_ids), len(r.completion_ids)) for costs, r in sampled),
        )

    def learning(self, examples: Sequence[Example], objective: Objective, *, twice: bool = False) -> Ledger:
        """Return what scoring and training took; `twice` counts the pass without gradient before that which has one."""
        tokens = sum(e.scored for e in examples)
        train = sum(self.student.training(len(e.prompts.student_ids), e.scored) for e in examples)
        seen = [(len(ids), e.scored) for e in examples for ids in e.prompts.teachers.values() if ids is not None]
        seen = seen * (1 + twice) if objective.needs_teacher else []
        score = sum(self.teacher.scoring(*lengths) for lengths in seen)
        score += sum(self.student.scoring(len(e.prompts.student_ids), e.scored) for e in examples) if twice else 0
        return Ledger(
            tokens_scored=sum(scored for _, scored in seen),
            tokens_trained=tokens,
            flops_score=score,
            flops_train=train,
        )
