"""The only place that pads, masks and aligns.

Masks come from lengths, never from token values, so an end-of-sequence token that doubles as padding is scored like any
other. Both sides hold the very same completion ids.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from opsd_lab.contexts import ContextPair
from opsd_lab.rollouts.base import Rollout


@dataclass(frozen=True)
class Example:
    """One rollout with its two prompts; `scored` is how many of its tokens count, from the first on; `advantage` is the rollout's.

    Raises:
        ValueError: when the rollout continues another prompt than the student's, or no token or more than all are scored.
    """

    pair: ContextPair
    rollout: Rollout
    scored: int
    advantage: float = 0.0

    def __post_init__(self) -> None:
        if self.rollout.prompt_ids != self.pair.student_ids:
            raise ValueError(f"the rollout of problem {self.rollout.problem_id!r} continues another prompt than its student's")
        if not 1 <= self.scored <= len(self.rollout.completion_ids):
            raise ValueError(f"the rollout of problem {self.rollout.problem_id!r}: {self.scored} scored tokens are out of range")

    @property
    def width(self) -> int:
        """Tokens of the longer side, prompt and scored completion."""
        return max(len(self.pair.student_ids), len(self.pair.teacher_ids)) + self.scored


@dataclass(frozen=True)
class DistillBatch:
    """Padded tensors of several examples.

    `student_ids` [B, S] and `teacher_ids` [B, U]: prompt, then completion, then padding. `student_starts`, `teacher_starts` [B]:
    prompt lengths. `completion_ids`, `completion_mask` [B, T]: the tokens to score, the same for both sides.

    Raises:
        AssertionError: when a side's completion is not the one to score.
    """

    student_ids: Tensor
    student_starts: Tensor
    teacher_ids: Tensor
    teacher_starts: Tensor
    completion_ids: Tensor
    completion_mask: Tensor

    def __post_init__(self) -> None:
        for name, ids, starts in (
            ("student", self.student_ids, self.student_starts),
            ("teacher", self.teacher_ids, self.teacher_starts),
        ):
            for row, start, completion, mask in zip(ids, starts.tolist(), self.completion_ids, self.completion_mask, strict=True):
                length = int(mask.sum())
                if not torch.equal(row[start : start + length], completion[:length]):
                    raise AssertionError(f"DistillBatch: the {name} would be scored on other tokens than the rollout's")

    @property
    def tokens(self) -> Tensor:
        """The completion tokens without padding [N], row by row: the order of `CompletionStates.hidden`."""
        return self.completion_ids[self.completion_mask]

    def to(self, device: torch.device) -> "DistillBatch":
        """Return the batch on a device."""
        return DistillBatch(**{name: value.to(device) for name, value in vars(self).items()})


def build_batch(examples: Sequence[Example], pad_id: int) -> DistillBatch:
    """Pad examples on the right into one batch."""
    completions = [e.rollout.completion_ids[: e.scored] for e in examples]
    lengths = torch.tensor([e.scored for e in examples])
    return DistillBatch(
        student_ids=_pad([e.pair.student_ids + c for e, c in zip(examples, completions, strict=True)], pad_id),
        student_starts=torch.tensor([len(e.pair.student_ids) for e in examples]),
        teacher_ids=_pad([e.pair.teacher_ids + c for e, c in zip(examples, completions, strict=True)], pad_id),
        teacher_starts=torch.tensor([len(e.pair.teacher_ids) for e in examples]),
        completion_ids=_pad(completions, pad_id),
        completion_mask=torch.arange(int(lengths.max())) < lengths[:, None],
    )


def micro_batches(examples: Sequence[Example], token_budget: int) -> list[list[int]]:
    """Group example indices, longest first, so that rows times the longest width stays within the budget.

    An example longer than the budget gets a batch of its own.
    """
    order = sorted(range(len(examples)), key=lambda i: -examples[i].width)
    groups: list[list[int]] = []
    for index in order:
        if groups and (len(groups[-1]) + 1) * examples[groups[-1][0]].width <= token_budget:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def padding_share(examples: Sequence[Example], groups: Sequence[Sequence[int]]) -> float:
    """Return which share of both sides' positions is padding when the examples are scored in these groups; 0 for none."""
    real = padded = 0
    for group in groups:
        for side in ("student_ids", "teacher_ids"):
            lengths = [len(getattr(examples[i].pair, side)) + examples[i].scored for i in group]
            real, padded = real + sum(lengths), padded + len(lengths) * max(lengths)
    return 1 - real / padded if padded else 0.0


def join_columns(
    groups: Sequence[Sequence[int]], columns: Sequence[dict[str, Tensor]], examples: Sequence[Example]
) -> dict[str, Tensor]:
    """Put the per-token columns of micro-batches [n] together in the order of the examples [N]; none for no examples."""
    parts: list[dict[str, Tensor]] = [{} for _ in examples]
    for group, of_group in zip(groups, columns, strict=True):
        for name, values in of_group.items():
            for i, part in zip(group, values.split([examples[i].scored for i in group]), strict=True):
                parts[i][name] = part
    return {name: torch.cat([part[name] for part in parts]) for name in (parts[0] if parts else ())}


def _pad(rows: Sequence[Sequence[int]], pad_id: int) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in rows])
