"""What a run starts from, and the pieces that are made only then: of the policy, or of the training problems."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

from opsd_lab.contexts import ContextBuilder
from opsd_lab.policies.policy import Policy
from opsd_lab.problems.problem import Problem
from opsd_lab.rollouts.base import Rollout, Sampler, SamplingParams
from opsd_lab.rollouts.gates import Rewards
from opsd_lab.scoring.batching import Example
from opsd_lab.training.costs import CostModel
from opsd_lab.training.ledger import Ledger
from opsd_lab.training.records import TrainingParams

Piece = TypeVar("Piece")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Start:
    """The initial policy, the training problems, the student's prompts, how rollouts are drawn and judged, and how it is optimised.

    `bills` is what pieces spent before the first step; the run's ledger begins with it.
    """

    policy: Policy
    problems: Sequence[Problem]
    contexts: ContextBuilder
    sampler: Sampler
    sampling: SamplingParams
    rewards: Rewards
    params: TrainingParams = field(default_factory=TrainingParams)
    bills: list[Ledger] = field(default_factory=list)
    kept: dict[str, Any] = field(default_factory=dict)

    def once(self, name: str, make: Callable[[], Made]) -> Made:
        """Return what `make` returns, made once for all pieces that ask for this name."""
        if name not in self.kept:
            self.kept[name] = make()
        return self.kept[name]

    def bill_scoring(self, rollouts: Sequence[Rollout], examples: Sequence[Example]) -> None:
        """Bill what the student wrote, and one pass of both sides over what was scored of it."""
        costs = CostModel.of(self.policy)
        written = [(len(rollout.prompt_ids), len(rollout.completion_ids)) for rollout in rollouts]
        scored = [(length, e.scored) for e in examples for length in e.prompt_lengths]
        self.bills.append(
            Ledger(
                tokens_generated=sum(new for _, new in written),
                tokens_scored=sum(e.scored for e in examples),
                flops_generate=sum(costs.generation(*lengths) for lengths in written),
                flops_score=sum(costs.scoring(*lengths) for lengths in scored),
            )
        )


@runtime_checkable
class Unbegun(Protocol):
    """A piece of a Recipe that is made when the run starts."""

    def begin(self, start: Start) -> object:
        """Return the piece that the run has."""
        ...


def begun(piece: Piece, start: Start) -> Piece:
    """Return a piece with everything in it begun; dataclasses, tuples and dictionaries are looked through."""
    if isinstance(piece, Unbegun) and not isinstance(piece, type):
        return piece.begin(start)
    if type(piece) is tuple:
        found = tuple(begun(part, start) for part in piece)
        return piece if all(a is b for a, b in zip(found, piece, strict=True)) else found
    if isinstance(piece, dict):
        return {name: begun(part, start) for name, part in piece.items()}
    if not is_dataclass(piece) or isinstance(piece, type):
        return piece
    held = {f.name: getattr(piece, f.name) for f in fields(piece) if f.init}
    changed = {name: now for name, value in held.items() if (now := begun(value, start)) is not value}
    return replace(piece, **changed) if changed else piece
