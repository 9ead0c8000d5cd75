"""Exact losses from hidden states, without logits of all tokens: they exist for a few tokens at a time, and are gone.

A block of tokens is multiplied with the head's weight, then worked through in pieces that stay in the processor's cache. The
gradient by the student's states is computed in that same pass; the backward pass only weighs it. No [N, V] tensor is ever made,
whatever the number N of tokens, and a head that does not train gets no gradient.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from opsd_lab.divergences.terms import LossTerms, Side

# Logits per block and per piece, by the kind of device. A block's three float32 tensors (both sides' logits, the slopes) are the
# memory that the loss takes; more tokens at once make the product faster only up to some hundred of them.
BLOCK = {"cpu": 2**22, "cuda": 2**26}
PIECE = {"cpu": 2**20, "cuda": 2**24}

Columns = dict[str, Tensor]
Compute = Callable[[Side, Side, Tensor, bool], tuple[LossTerms, Columns]]


class Head(Protocol):
    """Turns hidden states [n, H] into float32 logits [n, V]."""

    @property
    def size(self) -> int:
        """How many tokens the vocabulary has."""
        ...

    @property
    def is_frozen(self) -> bool:
        """Whether it is one matrix that does not train, so that `pull_back` works."""
        ...

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return the logits."""
        ...

    def pull_back(self, slopes: Tensor, logits: Tensor) -> Tensor:
        """Turn derivatives by the logits [n, V], which may be overwritten, into float32 derivatives by the states [n, H]."""
        ...


class States(Protocol):
    """One side's states at N tokens, with the head that reads them."""

    hidden: Tensor
    head: Head


def fused_losses(compute: Compute, student: States, teacher: States, token_ids: Tensor) -> tuple[Tensor, Columns]:
    """Return the losses [N] of the tokens `token_ids` [N], with their gradient, and the columns that `compute` records.

    `compute` takes both sides' logits of a few tokens, the tokens, and whether the slope is wanted. No gradient reaches the
    teacher.
    """
    if student.head.is_frozen or not torch.is_grad_enabled():
        return _Fused.apply(student.hidden, compute, student, teacher, token_ids, torch.is_grad_enabled())
    parts = [
        checkpoint(_trainable_block, compute, student.head, student.hidden[rows], teacher, rows, token_ids, use_reentrant=False)
        for rows in _cut(len(token_ids), student.head.size, BLOCK[token_ids.device.type])
    ]
    return torch.cat([loss for loss, _ in parts]), _join([columns for _, columns in parts])


@torch.no_grad()
def read_columns(compute: Compute, student: States, teachers: Mapping[str, States], token_ids: Tensor) -> dict[str, Columns]:
    """Return what `compute` records of the tokens under each teacher; the student's logits are computed once."""
    found: dict[str, list[Columns]] = {name: [] for name in teachers}
    for rows in _cut(len(token_ids), student.head.size, BLOCK[token_ids.device.type]):
        logits = student.head(student.hidden[rows])
        theirs = {name: teacher.head(teacher.hidden[rows]) for name, teacher in teachers.items()}
        for piece in _cut(len(logits), logits.shape[1], PIECE[logits.device.type]):
            ours = Side(logits[piece])
            for name in teachers:
                found[name].append(compute(ours, Side(theirs[name][piece]), token_ids[rows][piece], False)[1])
    return {name: _join(parts) for name, parts in found.items()}


def _cut(count: int, size: int, limit: int) -> Iterator[slice]:
    """Cut `count` rows of `size` entries into slices of at most `limit` entries, of one row at least."""
    rows = max(1, limit // size)
    return (slice(start, min(start + rows, count)) for start in range(0, count, rows))


def _join(parts: list[Columns]) -> Columns:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _pieces(compute: Compute, logits: Tensor, theirs: Tensor, token_ids: Tensor, slopes: Tensor | None) -> tuple[Tensor, Columns]:
    """Return a block's losses and columns, and write its slopes."""
    losses, columns = [], []
    for piece in _cut(len(logits), logits.shape[1], PIECE[logits.device.type]):
        terms, recorded = compute(Side(logits[piece]), Side(theirs[piece]), token_ids[piece], slopes is not None)
        if slopes is not None:
            slopes[piece] = terms.slope
        losses.append(terms.loss)
        columns.append(recorded)
    return torch.cat(losses), _join(columns)


class _Fused(torch.autograd.Function):
    """Losses of all tokens; the gradient by the student's states is computed on the way and weighed afterwards."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        hidden: Tensor,
        compute: Compute,
        student: States,
        teacher: States,
        token_ids: Tensor,
        wanted: bool,
    ) -> tuple[Tensor, Columns]:
        gradient = hidden.new_empty(hidden.shape, dtype=torch.float32) if wanted and hidden.requires_grad else None
        losses, columns = [], []
        for rows in _cut(len(token_ids), student.head.size, BLOCK[hidden.device.type]):
            logits, theirs = student.head(hidden[rows]), teacher.head(teacher.hidden[rows])
            slopes = None if gradient is None else torch.empty_like(logits)
            loss, recorded = _pieces(compute, logits, theirs, token_ids[rows], slopes)
            if gradient is not None:
                gradient[rows] = student.head.pull_back(slopes, logits)
            losses.append(loss)
            columns.append(recorded)
        ctx.gradient, ctx.dtype = gradient, hidden.dtype
        return torch.cat(losses), _join(columns)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, weights: Tensor, _: None) -> tuple[Tensor | None, ...]:
        return (ctx.gradient * weights[:, None]).to(ctx.dtype), None, None, None, None, None


def _trainable_block(
    compute: Compute, head: Head, hidden: Tensor, teacher: States, rows: slice, token_ids: Tensor
) -> tuple[Tensor, Columns]:
    """Return a block's losses, through which autograd reaches the states and the head, and its columns."""
    with torch.no_grad():
        theirs = teacher.head(teacher.hidden[rows])
    return _Terms.apply(head(hidden), theirs, compute, token_ids[rows])


class _Terms(torch.autograd.Function):
    """Losses of a block of logits."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, logits: Tensor, theirs: Tensor, compute: Compute, token_ids: Tensor
    ) -> tuple[Tensor, Columns]:
        slopes = torch.empty_like(logits)
        result = _pieces(compute, logits, theirs, token_ids, slopes)
        ctx.save_for_backward(slopes)
        return result

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, weights: Tensor, _: None) -> tuple[Tensor | None, ...]:
        (slopes,) = ctx.saved_tensors
        return slopes * weights[:, None], None, None, None
