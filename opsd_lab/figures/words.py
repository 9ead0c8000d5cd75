"""What figures of estimates say in words, and what they ask of a frame: labels, counts, estimates, checks."""

from collections.abc import Sequence
from math import floor, isnan, log10
from textwrap import wrap

import pandas as pd

from opsd_lab.evaluation.estimate import ESTIMATE
from opsd_lab.figures.training import SYMBOLS, plain
from opsd_lab.token_view.visible import visible_text

NUMBERS = list(ESTIMATE[:3])
GREY = "#4b5563"
INTERVALS = "95 % intervals over problems"
MOST_GROUPS = 2 * len(SYMBOLS)


def check_frame(name: str, frame: pd.DataFrame, keys: Sequence[str], others: Sequence[str] = ()) -> None:
    """Refuse a frame that the figure `name` cannot be drawn from.

    `keys` tell its rows apart; the columns of an estimate and `others` are needed as well.

    Raises:
        ValueError: when a column is missing, there is no row, or two rows have the same keys.
    """
    if missing := [column for column in [*keys, *ESTIMATE, *others] if column not in frame]:
        raise ValueError(f"{name}: the frame has no column {missing}; it has {list(frame)}")
    if frame.empty:
        raise ValueError(f"{name}: the frame has no rows, so there is nothing to draw")
    twice = frame.duplicated(list(keys))
    if twice.any():
        row = frame.loc[twice, list(keys)].iloc[0].to_dict()
        raise ValueError(f"{name}: several rows have {row}; keep one of them, or name the column that tells them apart")


def check_values(name: str, frame: pd.DataFrame, column: str, needed: Sequence[str]) -> None:
    """Refuse a frame in whose column a value is missing that the figure shows.

    `name` is the figure's function, with which the message begins. `needed` are the values that the `column` must hold.

    Raises:
        ValueError: for the first such value.
    """
    found = frame[column].unique().tolist()
    if missing := [value for value in needed if value not in found]:
        raise ValueError(f"{name}: no row has {column} {missing[0]!r}; the frame has {found}")


def groups_of(name: str, frame: pd.DataFrame, column: str | None) -> list[str]:
    """Return a column's values in order of appearance, [""] without a column.

    Raises:
        ValueError: when there are more than markers can tell apart.
    """
    groups = [""] if column is None else frame[column].unique().tolist()
    if len(groups) > MOST_GROUPS:
        raise ValueError(f"{name}: {len(groups)} values of {column!r}, but at most {MOST_GROUPS} can be told apart; choose some")
    return groups


def wrapped(text: object, width: int = 24) -> str:
    """Return text as plotly shows it letter by letter, in lines of at most `width` characters."""
    return "<br>".join(plain(line) for line in wrap(visible_text(str(text)), width))


def small(text: str) -> str:
    """Return markup that shows a text, itself markup, in a smaller and lighter type."""
    return f'<span style="font-size:12px;color:{GREY}">{text}</span>'


def counted(frame: pd.DataFrame) -> str:
    """Return the counts of a frame's rows in words: "n = 48 problems, 90–96 rollouts", a range where rows differ."""
    parts = []
    for name in (column for column in frame if column == "n" or column.startswith("n_")):
        low, high = int(frame[name].min()), int(frame[name].max())
        things = frame["unit"].iloc[0] if name == "n" else name.removeprefix("n_").replace("_", " ")
        parts.append(count(high, plain(things), low))
    return f"n = {', '.join(parts)}" if parts else ""


def count(number: int, things: str, least: int | None = None) -> str:
    """Return "1 problem", "1,200 problems" or, from the least to the largest number, "3–5 problems"."""
    if least in (None, number):
        return f"{number:,} {things.removesuffix('s') if number == 1 else things}"
    return f"{least:,}–{number:,} {things}"


def counts_by_row(frame: pd.DataFrame) -> list[str]:
    """Return `counted` of each row."""
    return [counted(frame.iloc[[i]]) for i in range(len(frame))]


def estimates(frame: pd.DataFrame) -> list[str]:
    """Return each row's mean and interval in words."""
    return [_estimate(*values) for values in frame[NUMBERS].itertuples(index=False)]


def _estimate(mean: float, low: float, high: float) -> str:
    if isnan(mean):
        return "no value"
    if isnan(low) or isnan(high):
        return f"{number(mean)}, no interval"
    # Two digits of half the interval's width: more would be noise.
    decimals = max(0, 1 - floor(log10((high - low) / 2))) if high > low else None
    return f"{number(mean, decimals)} [{number(low, decimals)}, {number(high, decimals)}]"


def interval(mean: float, low: float, high: float) -> str:
    """Return a mean with its interval, "0.59 [0.53, 0.64]", or alone where there is no interval."""
    return number(mean, 2) + ("" if isnan(low) else f" [{number(low, 2)}, {number(high, 2)}]")


def number(value: float, decimals: int | None = None) -> str:
    """Return a number with so many decimals, without them with three significant digits, and with a minus sign."""
    return (f"{value:z.3g}" if decimals is None else f"{value:z.{decimals}f}").replace("-", "−")
