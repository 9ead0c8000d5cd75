"""Numbers that change during training: any number of an objective, of training or of sampling may be one of these."""

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

Piece = TypeVar("Piece")


class Varying:
    """A number that is not the same at every step: a `Schedule`, or a `Controller`, which sees the records of the steps."""

    def __float__(self) -> float:
        raise TypeError(f"{self!r} changes with the step; the Trainer puts its value in place, `at_step` does elsewhere")

    __lt__ = __le__ = __gt__ = __ge__ = __add__ = __mul__ = __rmul__ = __truediv__ = __index__ = lambda self, *_: float(self)


class Schedule(Varying, ABC):
    """A number that follows from the step."""

    @abstractmethod
    def at(self, step: int) -> float:
        """Return the number at a step; steps count from 1."""


class Controller(Varying, ABC):
    """A number that follows from what happened so far.

    The state is made of plain values (numbers, texts, lists, dictionaries with text keys), which the Trainer keeps and checkpoints
    hold. The controller itself never changes.
    """

    @abstractmethod
    def start(self) -> Any:
        """Return the state before the first step."""

    @abstractmethod
    def see(self, state: Any, record: Any) -> Any:
        """Return the state after a step, given its `StepRecord`."""

    @abstractmethod
    def value(self, state: Any) -> float:
        """Return the number in a state."""


@dataclass(frozen=True)
class Linear(Schedule):
    """From `start` to `end` in a straight line: `start` until step `after`, `end` from `steps` steps later on.

    Raises:
        ValueError: for fewer than one step, or a negative start of the line.
    """

    start: float
    end: float
    steps: int
    after: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.after < 0:
            raise ValueError(f"{type(self).__name__}: steps is {self.steps} and after {self.after}; they are at least 1 and 0")

    def at(self, step: int) -> float:
        """Return the number at a step."""
        return self.start + (self.end - self.start) * self._share(step)

    def _share(self, step: int) -> float:
        return min(max((step - self.after) / self.steps, 0.0), 1.0)


@dataclass(frozen=True)
class Cosine(Linear):
    """From `start` to `end` along half a cosine in the place of the line."""

    def at(self, step: int) -> float:
        """Return the number at a step."""
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * self._share(step))) / 2


@dataclass(frozen=True)
class Stairs(Schedule):
    """One number after another: `values[i]` up to step `until[i]`, the last one from then on.

    Raises:
        ValueError: unless there is one value more than steps, and the steps rise.
    """

    values: tuple[float, ...]
    until: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.values) != len(self.until) + 1 or list(self.until) != sorted(set(self.until)):
            raise ValueError(f"Stairs: {len(self.values)} values need {len(self.values) - 1} rising steps, not {self.until}")

    def at(self, step: int) -> float:
        """Return the number at a step."""
        return self.values[sum(step > last for last in self.until)]


def at_step(piece: Piece, step: int, states: Mapping[Controller, Any] | None = None) -> Piece:
    """Return a piece with the numbers of a step in place of its schedules and controllers; the piece itself where it has none.

    Dataclasses, tuples and dictionaries are looked through. A controller without an entry in `states` is at its start.

    Raises:
        TypeError, ValueError: for a number that the piece refuses; it names the step.
    """
    if isinstance(piece, Schedule):
        return piece.at(step)
    if isinstance(piece, Controller):
        return piece.value((states or {}).get(piece, piece.start()))
    if isinstance(piece, tuple) and type(piece) is tuple:
        found = tuple(at_step(part, step, states) for part in piece)
        return piece if all(a is b for a, b in zip(found, piece, strict=True)) else found
    if isinstance(piece, dict):
        found = {name: at_step(part, step, states) for name, part in piece.items()}
        return piece if all(found[name] is piece[name] for name in piece) else found
    if not is_dataclass(piece) or isinstance(piece, type):
        return piece
    changed = {}
    for field in fields(piece):
        if field.init and (now := at_step(value := getattr(piece, field.name), step, states)) is not value:
            changed[field.name] = now
    try:
        return replace(piece, **changed) if changed else piece
    except (TypeError, ValueError) as error:
        raise type(error)(f"at step {step}: {error}") from error


def controllers(*pieces: object) -> Iterator[Controller]:
    """Yield the controllers of some pieces, each once."""
    yield from dict.fromkeys(part for part in _varying_parts(pieces) if isinstance(part, Controller))


def varies(piece: object) -> bool:
    """Tell whether there is a schedule or a controller in a piece, so that `at_step` may give another one."""
    return any(True for _ in _varying_parts((piece,)))


def _varying_parts(pieces: Iterable[object]) -> Iterator[Schedule | Controller]:
    """Yield the schedules and controllers in some pieces, the outer ones first; what `at_step` looks through, and lists."""
    todo = deque(pieces)
    while todo:
        piece = todo.popleft()
        if isinstance(piece, (Schedule, Controller)):
            yield piece
        elif isinstance(piece, (tuple, list)):
            todo.extend(piece)
        elif isinstance(piece, dict):
            todo.extend(piece.values())
        elif is_dataclass(piece) and not isinstance(piece, type):
            todo.extend(getattr(piece, field.name) for field in fields(piece))
