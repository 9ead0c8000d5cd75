"""What an answer can be: one value, several, an interval, a relation, a time, a choice, words. Immutable records."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from opsd_lab.grading.trees import Tree

# An interval's ends: low, whether it belongs to it, high, whether it belongs to it.
Piece = tuple[Tree, bool, Tree, bool]


@dataclass(frozen=True)
class Value:
    """One expression; `places` are a decimal's places and `digits` its significant digits, None for anything but a decimal.

    `unit` is in `units.canonical` form. `percent`: a percent sign stood behind it. `goes_on`: dots stood behind its digits.
    """

    tree: Tree
    places: int | None = None
    digits: int = 0
    unit: str | None = None
    percent: bool = False
    goes_on: bool = False


DOTS = Value(("name", r"\ldots"))  # an entry of a list that goes on


@dataclass(frozen=True)
class Items:
    """Several readings: a bare list or set (in any order), a tuple, [..] (in order), a matrix (in order, with its number of rows)."""

    kind: Literal["list", "set", "tuple", "brackets", "matrix"]
    items: tuple["Reading", ...]
    rows: int = 1


@dataclass(frozen=True)
class RealSet:
    """A union of intervals; `name` is the variable when it was written as an inequality."""

    pieces: tuple[Piece, ...]
    name: str | None = None


@dataclass(frozen=True)
class Relation:
    """Sides with the signs between them: "=", "<", "<=", "!="; "a > b" is kept as "b < a"."""

    sides: tuple[Tree, ...]
    signs: tuple[str, ...]


@dataclass(frozen=True)
class Named:
    """A value with its name, such as x = 5 or f(x) = 2x."""

    name: str
    reading: "Reading"


@dataclass(frozen=True)
class Choice:
    """Letters of multiple-choice options, sorted, in capitals."""

    letters: str


@dataclass(frozen=True)
class Words:
    """Text, in lower case, without articles and punctuation."""

    text: str


@dataclass(frozen=True)
class Truth:
    """Yes or true; no or false."""

    value: bool


@dataclass(frozen=True)
class Clock:
    """A time of day; `half` is "am", "pm" or None."""

    minutes: Fraction
    half: str | None


@dataclass(frozen=True)
class Ratio:
    """Numbers with colons between them."""

    parts: tuple[Tree, ...]


@dataclass(frozen=True)
class Nothing:
    """No solution, the empty set."""


@dataclass(frozen=True)
class Broken:
    """An expression that stops at an operator: no value at all."""


Reading = Value | Items | RealSet | Relation | Named | Choice | Words | Truth | Clock | Ratio | Nothing | Broken


@dataclass(frozen=True)
class Readings:
    """The ways to read one answer: `sure` ones, and `doubtful` ones, by which nothing is decided as correct."""

    sure: tuple[Reading, ...]
    doubtful: tuple[Reading, ...] = ()
