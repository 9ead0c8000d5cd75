"""How a token-level number is distributed over the tokens, or the steps, of each verdict."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from opsd_lab.diagnostics.estimates import COUNTS, UNLABELLED, Units, prepare
from opsd_lab.figures.parts import INK, finish, mark_zero, name_rows, say_no_value
from opsd_lab.figures.training import COLOURS, plain
from opsd_lab.figures.words import count, number, small
from opsd_lab.tokens.table import TokenTable

LABELS = ("correct", "incorrect", "unverifiable")
BINS = 60


def draw_gap_distributions(table: TokenTable, column: str = "gap", per: Literal["token", "step"] = "token") -> go.Figure:
    """Draw how a column is distributed over the tokens of correct, incorrect and unverifiable steps, or over those steps.

    A step's value is the mean of its tokens. Each row holds a histogram, the same bins for all rows and the height a share of the
    row, over a box of its quartiles with whiskers from 5 % to 95 % and the mean as a diamond. Where the outermost hundredths of
    the rows would stretch the axis by more than a half, it is cut, and says how many values lie outside; rows say it at their ends.

    Raises:
        ValueError: for an empty table, one without labelled steps, a column without numbers, or an unknown `per`.
    """
    name = "draw_gap_distributions"
    if per not in ("token", "step"):
        raise ValueError(f'{name}: per is {per!r}; it is "token" or "step"')
    rows = prepare(table, name)
    units, values, first = rows.units, rows.values(column, name), np.arange(len(table))
    if per == "step":
        units, values, first = units.averages(values, units.step)
    label = rows.frame["label"].to_numpy(dtype=object)[first]
    if not np.isin(label, LABELS).any():
        raise ValueError(f"{name}: {UNLABELLED}")
    shown = {group: values[label == group] for group in LABELS}
    low, high = _limits([part for part in shown.values() if len(part)])
    edges = np.linspace(low, high, BINS + 1)
    shares = {group: np.histogram(part, edges)[0] / max(1, len(part)) for group, part in shown.items()}
    scale = 0.6 / max(share.max() for share in shares.values())
    figure = make_subplots(rows=1, cols=1)
    labels = []
    for place, (group, part) in enumerate(shown.items()):
        labels.append(f"{group}<br>{small(f'n = {_count(units, label == group)}'.replace(', ', '<br>'))}")
        if not len(part):
            say_no_value(figure, [place])
        else:
            _add_histogram(figure, edges, shares[group], scale, place, f"{group} {per}s")
            _add_box(figure, part, place)
            _say_outside(figure, part, low, high, place)
    every = np.concatenate(list(shown.values()))
    below, above = int((every < low).sum()), int((every > high).sum())
    heading = plain(column) + f" of each {per}" + ("" if column == "weight" else " (nats)")
    if below or above:
        ends = [f"{n:,} {where} {number(end)}" for n, where, end in ((below, "below", low), (above, "above", high)) if n]
        heading += f"<br>the axis is cut: of {len(every):,} {per}s, {' and '.join(ends)} lie outside"
    mark_zero(figure, "x")
    figure.update_xaxes(title_text=heading, range=[low, high], rangemode="normal")
    height = 1.5 * name_rows(figure, labels)
    figure.update_layout(barmode="overlay", bargap=0, showlegend=False)
    title = f"{column} on {', '.join(LABELS[:-1])} and {LABELS[-1]} steps"
    note = f"height: share of the row's {per}s; box: quartiles and median; whiskers: 5 % to 95 %; ◆ mean"
    return finish(figure, title, f"n = {_count(units, np.isin(label, LABELS))}; {note}", int(height))


def _limits(parts: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the ends of an axis for all values and zero, without the outermost hundredths if they take over a third of it."""
    bounds = [(*np.quantile(part, (0.01, 0.99)), part.mean(), 0.0) for part in parts]
    low, high = float(np.min(bounds)), float(np.max(bounds))
    lowest, highest = min(0.0, *map(np.min, parts)), max(0.0, *map(np.max, parts))
    if highest - lowest <= 1.5 * (high - low):
        low, high = float(lowest), float(highest)
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def _count(units: Units, chosen: np.ndarray) -> str:
    names = {"n": "problems", "n_steps": "steps", "n_tokens": "tokens"}
    return ", ".join(count(COUNTS[name](units, chosen), things) for name, things in names.items())


def _say_outside(figure: go.Figure, part: np.ndarray, low: float, high: float, place: int) -> None:
    below, above = int((part < low).sum()), int((part > high).sum())
    for n, text, x, side in ((below, f"◀ {below:,}", low, "left"), (above, f"{above:,} ▶", high, "right")):
        if n:
            figure.add_annotation(text=text, x=x, xanchor=side, y=place - 0.12, showarrow=False, bgcolor="#ffffff")


def _add_histogram(figure: go.Figure, edges: np.ndarray, share: np.ndarray, scale: float, place: int, what: str) -> None:
    figure.add_bar(
        x=((edges[1:] + edges[:-1]) / 2).tolist(),
        y=(-scale * share).tolist(),  # the axis of rows points down
        base=place + 0.12,
        width=(edges[1] - edges[0]) * 0.92,
        marker={"color": COLOURS[place], "line_width": 0},
        customdata=[f"{s:.2%} of {what}<br>{a:.3g} to {b:.3g}" for s, a, b in zip(share, edges[:-1], edges[1:], strict=True)],
        hovertemplate="%{customdata}<extra></extra>",
    )


def _add_box(figure: go.Figure, part: np.ndarray, place: int) -> None:
    fences = dict(
        zip(("lowerfence", "q1", "median", "q3", "upperfence"), np.quantile(part, (0.05, 0.25, 0.5, 0.75, 0.95)), strict=True)
    )
    figure.add_box(
        **{key: [float(value)] for key, value in fences.items()},
        y=[place + 0.28],
        orientation="h",
        width=0.2,
        fillcolor="#ffffff",
        line={"color": INK, "width": 2},
        hoverinfo="skip",
    )
    words = [f"mean {part.mean():.3g}", *(f"{key} {fences[key]:.3g}" for key in ("median", "q1", "q3"))]
    figure.add_scatter(
        x=[float(part.mean())],
        y=[place + 0.28],
        mode="markers",
        marker={"symbol": "diamond", "size": 10, "color": INK, "line": {"color": "#ffffff", "width": 1.5}},
        hovertemplate="<br>".join(words) + "<extra></extra>",
    )
