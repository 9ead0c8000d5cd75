"""Exact losses from hidden states, without logits of all tokens: they exist for a few tokens at a time, and are gone.

A block of tokens is multiplied with the head's weight, then worked through in pieces that stay in the processor's cache. The
gradient by the student's states is computed in that same pass; the backward pass only weighs it. No [N, V] tensor is ever made,
whatever the number N of tokens, and a head that does not train gets no gradient.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from opsd_lab.divergences.side import Side

# Logits per block and per piece, by the kind of device. A block's two float32 tensors (both sides' logits; the slopes take the
# student's place) are most of the memory that the loss takes; more tokens at once make the product faster only up to some
# hundred of them.
BLOCK = {"cpu": 2**22, "cuda": 2**26}
ROWS = 128  # tokens per block at least, however large the vocabulary: with fewer the product is slow
PIECE = {"cpu": 2**19, "cuda": 2**24}
LOSS = "the loss itself"  # among the columns that are kept

Columns = dict[str, Tensor]
Undo = Callable[[Tensor, Tensor], Tensor]


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

    def write(self, hidden: Tensor, out: Tensor) -> Tensor:
        """Write the logits into `out` [n, V] and return it."""
        ...

    def before_cap(self, slopes: Tensor, logits: Tensor) -> Tensor:
        """Turn derivatives by the logits [n, V], which may be overwritten, into derivatives by the head's matrix product."""
        ...

    def pull_back(self, slopes: Tensor) -> Tensor:
        """Turn derivatives by the matrix product [n, V] into float32 derivatives by the states [n, H]."""
        ...


class States(Protocol):
    """One side's states at N tokens, with the head that reads them."""

    hidden: Tensor
    head: Head


class Tokens(Protocol):
    """The N tokens that were written, with what is known of each."""

    ids: Tensor

    def rows(self, rows: slice) -> "Tokens":
        """Return some of the tokens."""
        ...


class Computed(NamedTuple):
    """The losses of a few tokens [n], their slope [n, V] by the student's logits where it was wanted, and columns to keep."""

    loss: Tensor
    slope: Tensor | None
    columns: Columns


Compute = Callable[[Side, dict[str, Side], Tokens, bool], Computed]


def fused_losses(compute: Compute, student: States, teachers: Mapping[str, States], tokens: Tokens) -> tuple[Tensor, Columns]:
    """Return the losses [N] of the tokens, with their gradient, and the columns that `compute` keeps.

    `compute` takes the student's side of a few tokens, the teachers' by name, the tokens, and whether the slope is wanted. No
    gradient reaches a teacher. Logits are computed once for each side; a teacher that is the student itself has the student's.
    """
    teachers = {name: states for name, states in teachers.items() if states is not student}
    if student.head.is_frozen or not torch.is_grad_enabled():
        return _Fused.apply(student.hidden, compute, student, teachers, tokens, torch.is_grad_enabled())
    parts = [
        checkpoint(
            _trainable_block, compute, student.head, student.hidden[rows], teachers, rows, tokens.rows(rows), use_reentrant=False
        )
        for rows in _cut(len(tokens.ids), student.head.size, BLOCK[tokens.ids.device.type], ROWS)
    ]
    return torch.cat([loss for loss, _ in parts]), {name: torch.cat([columns[name] for _, columns in parts]) for name in parts[0][1]}


def _blocks(student: States, teachers: Mapping[str, States], count: int) -> Iterator[tuple[slice, Tensor, dict[str, Tensor]]]:
    """Yield the rows of each block with every side's logits, in buffers that the next block overwrites."""
    # Made once: blocks allocated anew each time would leave the process several times their size, in gaps of its heap.
    buffers: list[Tensor] = []
    sides = [student, *teachers.values()]
    for rows in _cut(count, student.head.size, BLOCK[student.hidden.device.type], ROWS):
        if not buffers:
            buffers = [side.hidden.new_empty(rows.stop, side.head.size, dtype=torch.float32) for side in sides]
        size = rows.stop - rows.start
        logits, *theirs = [side.head.write(side.hidden[rows], buffer[:size]) for side, buffer in zip(sides, buffers, strict=True)]
        yield rows, logits, dict(zip(teachers, theirs, strict=True))


def _cut(count: int, size: int, limit: int, least: int = 1) -> Iterator[slice]:
    """Cut `count` rows of `size` entries into slices of at most `limit` entries, but of `least` rows, if there are as many."""
    rows = max(least, limit // size)
    return (slice(start, min(start + rows, count)) for start in range(0, count, rows))


def _keep(kept: Columns, part: Columns, start: int, count: int) -> None:
    """Copy the values of some tokens, from `start` on, into the columns of all `count` tokens."""
    # Not lists of parts to be joined: small tensors that stay would keep the heap from closing the gaps of large ones that go.
    for name, values in part.items():
        if name not in kept:
            kept[name] = values.new_empty(count, *values.shape[1:])
        kept[name][start : start + len(values)] = values


def _pieces(
    compute: Compute,
    logits: Tensor,
    theirs: Mapping[str, Tensor],
    tokens: Tokens,
    kept: Columns,
    start: int = 0,
    slopes: Tensor | None = None,
    undo: Undo | None = None,
) -> None:
    """Keep a block's losses and columns, from row `start` of all tokens on; write its slopes, led back through `undo`.

    The slopes may take the logits' place.
    """
    count = len(tokens.ids)
    for piece in _cut(len(logits), logits.shape[1], PIECE[logits.device.type]):
        chosen = tokens.rows(slice(start + piece.start, start + piece.stop))
        teachers = {name: Side(of_teacher[piece]) for name, of_teacher in theirs.items()}
        found = compute(Side(logits[piece]), teachers, chosen, slopes is not None)
        _keep(kept, found.columns | {LOSS: found.loss}, start + piece.start, count)
        if slopes is not None:  # last, since what is kept may be read from the logits
            slopes[piece] = undo(found.slope, logits[piece]) if undo else found.slope


class _Fused(torch.autograd.Function):
    """Losses of all tokens; the gradient by the student's states is computed on the way and weighed afterwards."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        hidden: Tensor,
        compute: Compute,
        student: States,
        teachers: Mapping[str, States],
        tokens: Tokens,
        wanted: bool,
    ) -> tuple[Tensor, Columns]:
        gradient = hidden.new_empty(hidden.shape, dtype=torch.float32) if wanted and hidden.requires_grad else None
        kept: Columns = {}
        for rows, logits, theirs in _blocks(student, teachers, len(tokens.ids)):
            slopes = None if gradient is None else logits
            _pieces(compute, logits, theirs, tokens, kept, rows.start, slopes, student.head.before_cap)
            if gradient is not None:
                gradient[rows] = student.head.pull_back(slopes)
        ctx.gradient, ctx.dtype = gradient, hidden.dtype
        return kept.pop(LOSS), kept

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, weights: Tensor, _: None) -> tuple[Tensor | None, ...]:
        return (ctx.gradient * weights[:, None]).to(ctx.dtype), None, None, None, None, None


def _trainable_block(
    compute: Compute, head: Head, hidden: Tensor, teachers: Mapping[str, States], rows: slice, tokens: Tokens
) -> tuple[Tensor, Columns]:
    """Return a block's losses, through which autograd reaches the states and the head, and its columns."""
    with torch.no_grad():
        theirs = {name: teacher.head(teacher.hidden[rows]) for name, teacher in teachers.items()}
    return _Terms.apply(head(hidden), theirs, compute, tokens)


class _Terms(torch.autograd.Function):
    """Losses of a block of logits."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, logits: Tensor, theirs: Mapping[str, Tensor], compute: Compute, tokens: Tokens
    ) -> tuple[Tensor, Columns]:
        slopes, kept = torch.empty_like(logits), {}
        _pieces(compute, logits, theirs, tokens, kept, slopes=slopes)
        ctx.save_for_backward(slopes)
        return kept.pop(LOSS), kept

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, weights: Tensor, _: None) -> tuple[Tensor | None, ...]:
        (slopes,) = ctx.saved_tensors
        return slopes * weights[:, None], None, None, None
