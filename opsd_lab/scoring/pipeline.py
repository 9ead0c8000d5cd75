"""From examples to losses and columns: the student once, the teacher once per view, the objective at every token.

Training and supervision stand on this one function, `Pipeline.score`; the former leads the losses back, the latter does not.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from opsd_lab.divergences import Computed, Side, fused_losses
from opsd_lab.objectives import Objective, Teachers, Tokens, TokenWeights, compute_losses
from opsd_lab.objectives.weights import divided_out, weigh
from opsd_lab.policies.head import LogitHead
from opsd_lab.policies.policy import Policy
from opsd_lab.policies.teachers import LiveTeacher, Teacher
from opsd_lab.scoring.batching import Batch, Sequences
from opsd_lab.scoring.columns import token_columns, top_columns
from opsd_lab.scoring.forward import CompletionStates, score_completions

Columns = dict[str, Tensor]
KNOWN = ("ids", "rollout", "position", "length", "advantage", "outcome", "pass_rate", "sampled_logprob", "source")


class Scored(NamedTuple):
    """The losses [N] of a batch's tokens, which carry the gradient, and for each reading its columns [N, ...], which carry none."""

    loss: Tensor
    readings: dict[str, Columns]


@dataclass(frozen=True)
class Pipeline:
    """How a batch is scored.

    `student` says whose weights the student has; the policy's present ones, if left out. `readings` are the sets of views that the
    objective is asked about, each on its own; left out, it is asked once about all views. `top_k` > 0 adds the arrays of `TopTokens`.
    `weights` make a token's weight of the columns, beside what its example weighs. `importance_cap` c multiplies it by min(p / q, c),
    p being the student's probability of the token and q the sampler's. `phase` counts the time of "score" and "train".
    """

    policy: Policy
    teacher: Teacher
    objective: Objective
    student: Teacher = field(default_factory=LiveTeacher)
    readings: Mapping[str, tuple[str, ...]] | None = None
    top_k: int = 0
    weights: TokenWeights | None = None
    importance_cap: float | None = None
    phase: Callable[[str], AbstractContextManager] = nullcontext

    def score(self, batch: Batch, head: LogitHead) -> Scored:
        """Return the losses of a batch and its columns, `weight` among them.

        `head` is the policy's own, one for all batches: it keeps the float32 copy of a frozen weight.

        Raises:
            TypeError, ValueError: for what an objective or token weights return.
        """
        teachers = self._taught(batch, head) if self.objective.needs_teacher else {}
        with self.phase("train"):
            with self.student.beside(self.policy) as ours:
                student = _states(ours, batch.student, head if ours is self.policy else None)
            scored = token_losses(self.objective, student, teachers, batch.tokens, readings=self.readings, top_k=self.top_k)
            return scored._replace(readings={name: c | self._weights(batch, c) for name, c in scored.readings.items()})

    def _taught(self, batch: Batch, head: LogitHead) -> dict[str, CompletionStates]:
        with self.phase("score"), torch.inference_mode(), self.teacher.beside(self.policy) as theirs:
            own = head if theirs is self.policy else None
            found = {name: _states(theirs, sequences, own) for name, sequences in batch.teachers.items()}
        return {name: _spread(states, batch.tokens.seen[name]) for name, states in found.items()}

    def _weights(self, batch: Batch, columns: Columns) -> Columns:
        """Return the tokens' weights and, where the losses' sum is divided by other ones, `counted`, what it is divided by."""
        counted = weight = batch.weight.to(columns["loss"])
        counts = self.objective.counts(batch.tokens)
        if not bool(counts.all()):
            counted = weight = weight * counts
        if self.weights is not None:
            weight = weight * weigh(self.weights, columns | known_columns(batch.tokens)).to(weight)
            counted = weight if divided_out(self.weights) else counted
        if self.importance_cap is not None:
            ratio = (columns["student_logprob"] - batch.tokens.sampled_logprob.to(weight)).exp()
            weight = weight * ratio.clamp(max=self.importance_cap)
        return {"weight": weight} if counted is weight else {"weight": weight, "counted": counted}


def token_losses(
    objective: Objective,
    student: CompletionStates,
    teachers: Mapping[str, CompletionStates],
    tokens: Tokens,
    *,
    readings: Mapping[str, tuple[str, ...]] | None = None,
    top_k: int = 0,
) -> Scored:
    """Return the losses [N] of tokens from both sides' states, and their columns, a few tokens at a time.

    Args:
        objective: what is asked about every token. student: the student's states at the N tokens; the gradient reaches them.
        teachers: the teachers' states, by view; a view that `tokens` know and that is missing here is one that no token has.
        tokens: the tokens that were written. readings: the sets of views that the objective is asked about, each on its own; left
        out, all views at once, as the reading "". top_k: how many of each side's most probable tokens to keep.

    Raises:
        TypeError, ValueError: for what the objective returns.
    """
    views = dict.fromkeys([*teachers, *tokens.seen]) if objective.needs_teacher else {}

    def compute(ours: Side, theirs: dict[str, Side], some: Tokens, slope: bool) -> Computed:
        sides = Teachers({name: theirs.get(name, ours) for name in views})  # a token without the view does not count
        columns, losses = {}, None
        for reading, names in ({"": tuple(views)} if readings is None else readings).items():
            shown = Teachers({name: sides[name] for name in names if name in sides}, some.seen)
            asked = some.of_views(names)
            losses = compute_losses(objective, ours, shown, asked, slope=slope)
            with torch.no_grad():
                found = token_columns(ours, shown, asked, losses.loss)
                if top_k:
                    found |= top_columns(ours, next(iter(shown.values()), ours), top_k)
            columns |= {(reading, name): values for name, values in found.items()}
        return Computed(*losses, columns)

    loss, kept = fused_losses(compute, student, teachers if views else {}, tokens)
    found: dict[str, Columns] = {}
    for (reading, name), values in kept.items():
        found.setdefault(reading, {})[name] = values
    return Scored(loss, found)


def known_columns(tokens: Tokens) -> Columns:
    """Return what is known of tokens beside their scores, each [N], marks and signals among it."""
    known = {name: values for name in KNOWN if (values := getattr(tokens, name)) is not None}
    return known | {f"seen {view}": seen for view, seen in tokens.seen.items()} | tokens.marked


def _states(policy: Policy, of: Sequences, head: LogitHead | None) -> CompletionStates:
    return score_completions(policy, of.ids, of.starts, of.completion_mask, head, of.shared)


def _spread(states: CompletionStates, seen: Tensor) -> CompletionStates:
    """Return states for all tokens [N] from those of the tokens that have the view; the others' are 0, and do not count."""
    if len(states.hidden) == len(seen):
        return states
    hidden = states.hidden.new_zeros(len(seen), states.hidden.shape[1])
    hidden[seen] = states.hidden
    return CompletionStates(hidden, states.head)
