"""One step's gradient: both sides' scores of the same tokens, their weighted losses, and the sum of these led back to the weights."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from opsd_lab.basics.interrupts import interruption_point
from opsd_lab.divergences import Tokens
from opsd_lab.objectives.opsd import Objective
from opsd_lab.policies.head import LogitHead
from opsd_lab.policies.policy import Policy
from opsd_lab.policies.teachers import Teacher
from opsd_lab.scoring.batching import DistillBatch, Example, build_batch, join_columns, micro_batches
from opsd_lab.scoring.forward import CompletionStates, score_completions
from opsd_lab.training.ledger import Stopwatch
from opsd_lab.training.records import Columns, TrainingParams, sampled_logprobs

REMEDY = (
    "the weights are those of the step before. Lower the learning rate, or look at these problems' texts and their log-probabilities"
)


class NonFiniteError(FloatingPointError):
    """A loss or gradient that is no number; the weights are those of the last good step."""


@dataclass(frozen=True)
class StepBatch:
    """What one optimiser step trains on: rollouts, the weights of each one's tokens [scored], and which go through together."""

    number: int
    examples: list[Example]
    weights: list[Tensor]
    groups: list[list[int]]

    @classmethod
    def of(cls, number: int, examples: list[Example], params: TrainingParams, device: torch.device) -> "StepBatch":
        """Return the batch of a step: a token weighs 1, or 1 over its rollout's tokens, so that every rollout weighs the same."""
        budget = params.token_budget or (1024 if device.type == "cpu" else 16_384)
        weights = [torch.full((e.scored,), 1.0 if params.normalisation == "token" else 1.0 / e.scored) for e in examples]
        return cls(number, examples, weights, micro_batches(examples, budget))

    @property
    def total(self) -> float:
        """The sum of all weights."""
        return float(sum(w.sum() for w in self.weights))


@dataclass(frozen=True)
class Gradients:
    """What adds up a step's gradient in the policy's trainable parameters, micro-batch by micro-batch.

    `importance_cap` is that of `TrainingParams`.
    """

    policy: Policy
    teacher: Teacher
    objective: Objective
    importance_cap: float | None = None

    def add(self, batch: StepBatch, total: float, watch: Stopwatch) -> Columns:
        """Add the gradient of the weighted losses' sum over `total`; return the batch's columns [N], in the order of its examples.

        Raises:
            NonFiniteError: for a loss that is no number; it names the step and the problems.
        """
        head = LogitHead.of(self.policy)
        columns = []
        for group in batch.groups:
            interruption_point()
            chosen = [batch.examples[i] for i in group]
            columns.append(self._add_group(chosen, [batch.weights[i] for i in group], total, head, watch))
            _check_finite(batch.number, chosen, columns[-1])
        return join_columns(batch.groups, columns, batch.examples)

    def _add_group(self, examples: list[Example], weights: list[Tensor], total: float, head: LogitHead, watch: Stopwatch) -> Columns:
        batch = build_batch(examples, self.policy.pad_id).to(self.policy.device)
        teacher = self._taught(batch, head, watch) if self.objective.needs_teacher else None
        with watch.phase("train"):
            student = score_completions(self.policy, batch.student_ids, batch.student_starts, batch.completion_mask, head)
            sampled = sampled_logprobs(examples).to(self.policy.device)
            advantage = torch.cat([torch.full((e.scored,), e.advantage, device=self.policy.device) for e in examples])
            loss, columns = self.objective(student, teacher or student, Tokens(batch.tokens, advantage, sampled))
            weight = torch.cat(weights).to(loss)
            if self.importance_cap is not None:
                ratio = (columns["student_logprob"] - sampled.to(weight)).exp()
                weight = weight * ratio.clamp(max=self.importance_cap)
            # Not through accelerate, which would divide by an accumulation, or scale by a precision, that the environment names.
            ((loss * weight).sum() / total).backward()
        return columns | {"weight": weight}

    def _taught(self, batch: DistillBatch, head: LogitHead, watch: Stopwatch) -> CompletionStates:
        """Return the teacher's states of a micro-batch."""
        with watch.phase("score"), torch.inference_mode(), self.teacher.beside(self.policy) as policy:
            theirs = head if policy is self.policy else None
            return score_completions(policy, batch.teacher_ids, batch.teacher_starts, batch.completion_mask, theirs)


def _check_finite(number: int, examples: Sequence[Example], columns: Columns) -> None:
    bad = (~columns["loss"].isfinite()).nonzero()[:, 0].tolist()
    if bad:
        owners = [e.rollout.problem_id for e in examples for _ in range(e.scored)]
        names = sorted({owners[i] for i in bad})
        raise NonFiniteError(
            f"step {number}: {len(bad)} token losses are not finite, in the rollouts of problems {names[:5]}; {REMEDY}"
        )
