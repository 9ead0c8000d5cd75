"""Checks of the values that people give: each returns the value as a plain Python number, or names the option and what it takes."""

import math
from collections.abc import Sequence
from functools import partial
from numbers import Integral, Real

from opsd_lab.basics.schedules import Varying


def whole(name: str, value: object, *, least: int, varies: bool = False) -> int:
    """Return a whole number of at least `least`; where it `varies`, also a schedule, which is checked when its value is known.

    `value` is what was given, and `name` what messages call it.

    Raises:
        TypeError: for what is no whole number, a Boolean or text among it.
        ValueError: for a smaller one.
    """
    if varies and isinstance(value, Varying):
        return value
    if isinstance(value, float) and varies and value.is_integer():  # what a schedule comes to
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} takes a whole number of at least {least}, not {_shown(value)}")
    if value < least:
        raise ValueError(f"{name} is out of range: {value}; it is at least {least}")
    return int(value)


def real(
    name: str,
    value: object,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    finite: bool = True,
    varies: bool = True,
) -> float:
    """Return a number within bounds; `above` and `below` are outside, `least` and `most` inside. Infinity takes `finite` false.

    Where it `varies`, a schedule is returned as it is, and checked when its value is known. `value` is what was given, and `name`
    what messages call it. A bound that is None is none.

    Raises:
        TypeError: for what is no number, a Boolean or text among it.
        ValueError: for NaN, infinity, or a number out of bounds.
    """
    if varies and isinstance(value, Varying):
        return value
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} takes a number, not {_shown(value)}")
    number = float(value)
    bounds = [
        (least, "at least", least is None or number >= least),
        (above, "above", above is None or number > above),
        (most, "at most", most is None or number <= most),
        (below, "below", below is None or number < below),
    ]
    if math.isnan(number) or (finite and math.isinf(number)) or not all(kept for *_, kept in bounds):
        wanted = " and ".join(f"{word} {bound:g}" for bound, word, _ in bounds if bound is not None) or "finite"
        raise ValueError(f"{name} is out of range: {value}; it is {wanted}")
    return int(value) if isinstance(value, Integral) else number


def one_of(name: str, value: object, choices: Sequence[str]) -> str:
    """Return one of a few words.

    Raises:
        ValueError: for any other value.
    """
    if not (isinstance(value, str) and value in choices):
        raise ValueError(f"{name} is out of range: {value!r}; it is {' or '.join(map(repr, choices))}")
    return value


def flag(name: str, value: object) -> bool:
    """Return a Boolean.

    Raises:
        TypeError: for any other value.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} is True or False, not {_shown(value)}")
    return value


def instance(name: str, value: object, kind: type, remedy: str) -> None:
    """Make sure that a piece is of its kind.

    `value` is the piece, `kind` the class that it must be of. The message calls it `name` and ends with the `remedy`.

    Raises:
        TypeError: with the remedy, when it is not.
    """
    if not isinstance(value, kind):
        raise TypeError(f"{name} is {_shown(value)}, not a {kind.__name__}; {remedy}")


def name_of(function: object) -> str:
    """Return what people call a function or a callable object; a partial has the name of its function."""
    function = function.func if isinstance(function, partial) else function
    return getattr(function, "__name__", None) or type(function).__name__


def overrides_both(kind: type, plain: str, fast: str) -> bool:
    """Return whether the fast form of a method belongs to its plain form: no subclass overrides the plain one alone."""

    def owner(name: str) -> type:
        return next(base for base in kind.__mro__ if name in vars(base))

    return issubclass(owner(fast), owner(plain))


def _shown(value: object) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__} itself"
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
