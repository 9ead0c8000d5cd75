"""One step's gradient: the weighted losses' sum led back to the weights, micro-batch by micro-batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from opsd_lab.basics.interrupts import interruption_point
from opsd_lab.objectives.marks import Signal, signal_of
from opsd_lab.objectives.weights import TokenWeights, divided_out, needs_step, weigh
from opsd_lab.policies.head import LogitHead
from opsd_lab.scoring.batching import Batch, Example, build_batch, join_columns, micro_batches
from opsd_lab.scoring.pipeline import Pipeline, known_columns
from opsd_lab.training.processes import from_all, one_after_another
from opsd_lab.training.records import Columns, TrainingParams

REMEDY = (
    "the weights are those of the step before. Lower the learning rate, or look at these problems' texts and their log-probabilities"
)


class NonFiniteError(FloatingPointError):
    """A loss or gradient that is no number; the weights are those of the last good step."""


@dataclass(frozen=True)
class StepBatch:
    """What one optimiser step trains on: rollouts, and which go through together."""

    number: int
    examples: list[Example]
    groups: list[list[int]]

    @classmethod
    def of(cls, number: int, examples: list[Example], params: TrainingParams, device: torch.device) -> "StepBatch":
        """Return the batch of a step.

        `number` is the step's, `examples` its rollouts. `params.token_budget` bounds a micro-batch; where it is None, 1024 tokens do
        on a `device` that is a CPU, 16,384 on others.
        """
        budget = params.token_budget or (1024 if device.type == "cpu" else 16_384)
        return cls(number, examples, micro_batches(examples, budget))

    def marked(self, marks: Sequence[Mapping[str, Sequence[float]]]) -> "StepBatch":
        """Return the batch with more marks, by name, for each of its examples."""
        examples = [replace(e, marked={**e.marked, **more}) for e, more in zip(self.examples, marks, strict=True)]
        return replace(self, examples=examples)

    @property
    def total(self) -> float:
        """The sum of what all tokens weigh by their examples."""
        return float(sum(torch.full((e.scored,), e.weight).sum() for e in self.examples))


@dataclass(frozen=True)
class Gradients:
    """What adds up a step's gradient in the policy's trainable parameters.

    `weights` of the tokens that need the whole step, and `signals`, are made in a pass of their own, without gradient.
    """

    pipeline: Pipeline
    weights: TokenWeights | None = None
    signals: Mapping[str, Signal] = field(default_factory=dict)

    def add(self, batch: StepBatch, total: float) -> Columns:
        """Add the gradient of the weighted losses' sum over `total`; return the batch's columns [N], in the order of its examples.

        Raises:
            NonFiniteError: for a loss that is no number; it names the step and the problems.
            TypeError, ValueError: for what an objective or token weights return.
        """
        head = LogitHead.of(self.pipeline.policy)
        batch, weights = self.of_the_step(batch, head)
        columns = []
        for group in batch.groups:
            interruption_point()
            padded, chosen = self._padded(batch, group)
            found = self.pipeline.score(padded, head)
            of_group = found.readings[""]
            if weights is not None:
                chosen_weights = torch.cat([weights[i] for i in group])
                counted = of_group.get("counted", of_group["weight"])
                of_group["weight"] = of_group["weight"] * chosen_weights.to(of_group["weight"])
                of_group["counted"] = counted * chosen_weights.to(counted) if divided_out(self.weights) else counted
            _check_finite(batch.number, chosen, of_group)
            with self.pipeline.phase("train"):
                # Not through accelerate, which would divide by an accumulation, or scale by a precision, that the environment names.
                ((found.loss * of_group["weight"]).sum() / total).backward()
            columns.append(of_group | padded.tokens.marked)
        return join_columns(batch.groups, columns, batch.examples)

    def of_the_step(self, batch: StepBatch, head: LogitHead) -> tuple[StepBatch, list[Tensor] | None]:
        """Return the batch with its signals, and each example's token weights that are made of all tokens of the step, if there are.

        With several processes they are made of all processes' tokens, and every process makes them.
        """
        if not self.signals and not needs_step(self.weights):
            return batch, None
        batch = batch.marked([dict.fromkeys(self.signals, (0.0,) * e.scored) for e in batch.examples])
        columns = []
        with torch.inference_mode():
            for group in batch.groups:
                interruption_point()
                padded, _ = self._padded(batch, group)
                columns.append(self.pipeline.score(padded, head).readings[""] | known_columns(padded.tokens))
        sizes = [e.scored for e in batch.examples]
        own = {name: values.cpu() for name, values in join_columns(batch.groups, columns, batch.examples).items()}
        if own:  # rollouts are numbered over the whole step, not in each micro-batch
            own["rollout"] = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
        everything, mine = one_after_another(from_all(own))
        found = {}
        for name, signal in self.signals.items():
            everything[name] = found[name] = signal_of(signal, name, everything)
        parts = {name: values[mine].split(sizes) for name, values in found.items()} if sizes else {}
        batch = batch.marked([{name: values[i] for name, values in parts.items()} for i in range(len(sizes))])
        if not needs_step(self.weights):
            return batch, None
        return batch, list(weigh(self.weights, everything)[mine].split(sizes)) if sizes else []

    def _padded(self, batch: StepBatch, group: Sequence[int]) -> tuple[Batch, list[Example]]:
        chosen = [batch.examples[i] for i in group]
        return build_batch(chosen, self.pipeline.policy.pad_id, self.pipeline.policy.device), chosen


def _check_finite(number: int, examples: Sequence[Example], columns: Columns) -> None:
    bad = (~columns["loss"].isfinite()).nonzero()[:, 0].tolist()
    if bad:
        owners = [e.rollout.problem_id for e in examples for _ in range(e.scored)]
        names = sorted({owners[i] for i in bad})
        raise NonFiniteError(
            f"step {number}: {len(bad)} token losses are not finite, in the rollouts of problems {names[:5]}; {REMEDY}"
        )
