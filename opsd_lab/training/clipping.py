"""Whether a point-wise clip leaves the gradient its direction: clipped against unclipped, by the logits and by the weights.

With a small clip the gradient of forward KL may point away from the teacher; docs/results.md has the cosines for two models.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from opsd_lab.divergences import Side
from opsd_lab.objectives import OPSD, Losses, Objective, Teachers, Tokens, compute_losses
from opsd_lab.policies.policy import Policy
from opsd_lab.policies.teachers import Teacher
from opsd_lab.scoring.batching import Example
from opsd_lab.scoring.pipeline import Pipeline
from opsd_lab.training.gradients import Gradients, StepBatch
from opsd_lab.training.processes import Part
from opsd_lab.training.records import Columns, TrainingParams

COSINE = "clip_cosine"


@dataclass(frozen=True)
class ClipMeasured(Objective):
    """An OPSD objective that also records, in the same pass, each token's `clip_cosine`.

    It is the cosine between the derivatives by the student's logits of the clipped and of the unclipped loss; NaN where either is 0.

    Raises:
        TypeError: for another objective than OPSD.
        ValueError: for one without a clip.
    """

    objective: OPSD

    def __post_init__(self) -> None:
        if not isinstance(self.objective, OPSD):
            raise TypeError(f"{type(self.objective).__name__} has no point-wise clip to measure; take OPSD(pointwise_clip=...)")
        if self.objective.pointwise_clip is None:
            raise ValueError("OPSD without pointwise_clip has no clip to measure; give it one, or do not measure it")

    def counts(self, tokens: Tokens) -> Tensor:
        """Return which of the tokens [n] count: those that count for the objective."""
        return self.objective.counts(tokens)

    def loss(self, student: Side, teachers: Teachers, tokens: Tokens) -> Tensor:
        """Return the clipped losses of a few tokens [n]."""
        return self.losses_and_slopes(student, teachers, tokens).loss

    def losses_and_slopes(self, student: Side, teachers: Teachers, tokens: Tokens) -> Losses:
        """Return the clipped losses of a few tokens [n] and their slopes."""
        found = compute_losses(self.objective, student, teachers, tokens, slope=True)
        whole = compute_losses(
            replace(self.objective, pointwise_clip=None), student, teachers, tokens.of_views(tokens.seen), slope=True
        )
        tokens.record(**{COSINE: _cosines(found.slope, whole.slope)})
        return found


def clip_cosine_of_weights(
    policy: Policy, teacher: Teacher, objective: OPSD, examples: Sequence[Example], *, token_budget: int | None = None
) -> float:
    """Return the cosine between clipped and unclipped gradient in the policy's trainable parameters; NaN where either is 0.

    It takes two backward passes over the same rollouts, all of whose scored tokens weigh the same. The parameters keep the gradients
    that they had. `teacher` is whose weights the teacher has, `objective` the one whose clip is looked at. `token_budget` is that of
    `TrainingParams`.

    Raises:
        TypeError, ValueError: as `ClipMeasured` does; for no examples.
        NonFiniteError: for a loss that is no number.
    """
    ClipMeasured(objective)
    if not examples:
        raise ValueError("clip_cosine_of_weights: there are no examples to take a gradient of")
    batch = StepBatch.of(0, list(examples), TrainingParams(token_budget=token_budget), policy.device)
    trainable = list(policy.trainable().values())
    own, found = [p.grad for p in trainable], []
    try:
        for one in (objective, replace(objective, pointwise_clip=None)):
            for p in trainable:
                p.grad = None
            Gradients(Pipeline(policy, teacher, one)).add(batch, batch.total)
            found.append(torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten().double() for p in trainable]))
    finally:
        for p, gradient in zip(trainable, own, strict=True):
            p.grad = gradient
    return float(_cosines(*(gradient[None] for gradient in found)))


def mean_cosine(columns: Columns) -> Part:
    """Return the mean of the tokens' cosines, NaN without any, and of how many."""
    if COSINE not in columns:
        return Part(math.nan, 0)
    return Part(float(columns[COSINE].nanmean()), float(columns[COSINE].isfinite().sum()))


def warn_of_clip(cosine: float, clip: float) -> None:
    """Say that a clip turns the gradient against the teacher."""
    warnings.warn(
        f"pointwise_clip = {clip:g} turns the gradient round: its mean cosine with the unclipped gradient is {cosine:.2f}, so that "
        "the student moves away from the teacher. Raise the clip (0.05 and more kept the direction on SmolLM2), or leave it out",
        stacklevel=3,
    )


def _cosines(a: Tensor, b: Tensor) -> Tensor:
    """Return the cosine of each row [n]; NaN where a row is 0."""
    # By their largest entry first: squares of what a small clip leaves would vanish.
    a, b = (x / x.abs().amax(-1, keepdim=True) for x in (a, b))
    return (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))
