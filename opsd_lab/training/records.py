"""What training is told and what it reports: parameters in, one record per step out."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from opsd_lab.basics.options import flag, one_of, real, whole
from opsd_lab.rollouts.base import Rollout
from opsd_lab.rollouts.sources import Written
from opsd_lab.scoring.batching import Example, sampled_logprobs
from opsd_lab.tokens.table import TokenTable
from opsd_lab.training.ledger import Ledger
from opsd_lab.training.processes import Part

Truncated = Literal["keep", "keep_without_last_token", "drop"]
Normalisation = Literal["token", "sequence"]
Columns = dict[str, Tensor]
COUNTS = {"batch_size": 1, "warmup_steps": 0, "token_budget": 1, "passes": 1, "seed": 0, "top_k": 0}  # with the least of each


@dataclass(frozen=True)
class TrainingParams:
    """How the student is optimised.

    `batch_size` problems make one optimiser step, over all processes. `token_budget` bounds rows times width of one micro-batch and
    changes speed and memory, not the result; None takes 1,024 on a processor, which more tokens at once make no faster, and 16,384
    elsewhere. `normalisation` "token" averages over all tokens of the step, "sequence" over each rollout's tokens first (the
    paper's 1/|y|). `truncated` says what becomes of rollouts that the length limit cut. The learning rate rises linearly over
    `warmup_steps`, then stays. `importance_cap` c weighs each token by min(p / q, c), p being the trainer's probability of the
    token and q the sampler's (truncated importance sampling), for samplers whose numbers differ from the trainer's; None leaves the
    weights alone. `passes` optimiser steps are taken on the same rollouts, which are scored anew each time. `seed` fixes the order
    of problems and every rollout. `measure_clip` records how far a point-wise clip turns the gradient: the tokens' mean cosine of
    clipped and unclipped gradient by the logits, as `clip_cosine`, with a warning once where it is negative. `top_k` > 0 keeps that
    many of each side's most probable tokens in the step's table.

    Raises:
        TypeError: for a value of another kind than the field's; the message names the field.
        ValueError: for a value outside its range; the message names the field.
    """

    batch_size: int = 16
    learning_rate: float = 1e-3
    warmup_steps: int = 0
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    token_budget: int | None = None
    normalisation: Normalisation = "token"
    truncated: Truncated = "keep"
    importance_cap: float | None = None
    passes: int = 1
    seed: int = 0
    measure_clip: bool = False
    top_k: int = 0

    def __post_init__(self) -> None:
        checked: dict[str, object] = {
            name: whole(f"TrainingParams.{name}", getattr(self, name), least=least)
            for name, least in COUNTS.items()
            if not (name == "token_budget" and self.token_budget is None)
        }
        for name in ("learning_rate", "weight_decay"):
            checked[name] = real(f"TrainingParams.{name}", getattr(self, name), least=0)
        checked["max_grad_norm"] = real("TrainingParams.max_grad_norm", self.max_grad_norm, above=0, finite=False)
        if self.importance_cap is not None:
            checked["importance_cap"] = real("TrainingParams.importance_cap", self.importance_cap, above=0)
        flag("TrainingParams.measure_clip", self.measure_clip)
        one_of("TrainingParams.normalisation", self.normalisation, get_args(Normalisation))
        one_of("TrainingParams.truncated", self.truncated, get_args(Truncated))
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def problems_of_step(self, number: int, size: int) -> list[int]:
        """Return the indices of a step's problems among `size`: seeded shuffles of all, one after the other, cut into batches."""
        chosen: list[int] = []
        start = (number - 1) * self.batch_size
        while len(chosen) < self.batch_size:
            epoch, offset = divmod(start + len(chosen), size)
            order = np.random.default_rng([self.seed, epoch]).permutation(size)
            chosen += order[offset : offset + self.batch_size - len(chosen)].tolist()
        return chosen


class Judged(NamedTuple):
    """All rollouts of a step, what each earned (None where nobody judged), and what each weighs (0: it does not count)."""

    rollouts: tuple[Rollout, ...]
    rewards: tuple[float, ...] | None
    weights: tuple[float, ...]


@dataclass(frozen=True)
class StepRecord:
    """What one optimiser step did.

    `step` counts from 1. `loss` is the value that was minimised. `metrics` are plain numbers by name. `ledger` holds the totals
    so far. These are of all processes. `table`, `rollouts` and `drawn` are this process's own; `table.frame.rollout` numbers the
    entries of `rollouts`, those that were learnt from. `drawn` has all.
    """

    step: int
    loss: float
    metrics: dict[str, float]
    ledger: Ledger
    table: TokenTable
    rollouts: tuple[Rollout, ...]
    drawn: Judged | None = None

    def as_row(self) -> dict[str, float]:
        """Return step, loss, metrics and ledger as one flat row."""
        return {"step": self.step, "loss": self.loss, **self.metrics, **asdict(self.ledger)}


def step_metrics(written: Written, examples: Sequence[Example], columns: Columns, top_k: int = 0) -> dict[str, Part]:
    """Return this process's part in a step's averages and in how far the sampler's log-probabilities are from the trainer's.

    `written` is all that was written; `examples` are learnt from, and `columns` hold their tokens' numbers. With `top_k` the share
    of the most probable tokens that both sides have is among them. How far the sampler is from the trainer is of what the student
    wrote. The names are the same for every step; what no token was trained on for is NaN.
    """
    rollouts, tokens = written.rollouts, float(sum(e.scored for e in examples))
    metrics = {
        "completion_length": _mean([float(len(r.completion_ids)) for r in rollouts]),
        "truncated": _mean([float(r.truncated) for r in rollouts]),
        "dropped": Part(float(len(rollouts) - len(examples)), len(rollouts)),
    }
    for name in ("divergence", "gap", "student_entropy", "teacher_entropy"):
        metrics[name] = Part(float(columns[name].mean()) if columns else math.nan, tokens)
    metrics["clip_fraction"] = Part(float((columns["clipped"] > 0).float().mean()) if columns else math.nan, tokens)
    if top_k:
        metrics["top_overlap"] = Part(_overlap(columns) if columns else math.nan, tokens)
    own = {id(rollout) for rollout in written.by_student}
    mine = torch.tensor([id(e.rollout) in own for e in examples for _ in range(e.scored)], dtype=torch.bool)
    if columns and mine.any():
        difference = (sampled_logprobs(examples) - columns["student_logprob"].cpu().float())[mine]
    else:
        difference = torch.tensor([math.nan])
    count = float(mine.sum())
    return metrics | {
        "mismatch_mean": Part(float(difference.abs().mean()), count),
        "mismatch_max": Part(float(difference.abs().max()), count),
        "mismatch_kl": Part(float(difference.mean()), count),
    }


def _overlap(columns: Columns) -> float:
    """Return the share of the student's most probable tokens that are among the teacher's."""
    student, teacher = columns["student_top_ids"], columns["teacher_top_ids"]
    shared = torch.zeros_like(student, dtype=torch.bool)
    for i in range(teacher.shape[1]):  # [N, k] at a time, not [N, k, k]
        shared |= student == teacher[:, i : i + 1]
    return float(shared.float().mean())


def reward_metrics(rewards: Sequence[float] | None) -> dict[str, Part]:
    """Return this process's part in the means of the rewards and of their squares; none where nobody judged the rollouts."""
    powers = {} if rewards is None else {"reward": 1, "reward_square": 2}
    return {name: _mean([reward**power for reward in rewards]) for name, power in powers.items()}


def _mean(values: Sequence[float]) -> Part:
    """Return the mean as a part; NaN of no values, since nothing may have been written."""
    return Part(sum(values) / len(values) if values else math.nan, len(values))
