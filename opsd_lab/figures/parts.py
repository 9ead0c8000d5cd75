"""The marks that figures of tidy frames share: dots and bars with intervals, lines with bands, rows and headings."""

from collections.abc import Sequence
from itertools import groupby
from textwrap import wrap

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from opsd_lab.figures.training import COLOURS, DASHES, SYMBOLS, TEMPLATE
from opsd_lab.figures.words import GREY, NUMBERS, counts_by_row, estimates, number, small, wrapped

INK, SHADE, LIGHT = "#111111", "#f3f4f6", "#56B4E9"
LINE = 19  # pixels


def marker(index: int, size: int = 11) -> dict[str, object]:
    """Return the marker of the index-th group; those after the sixth are open, so that none repeats."""
    symbol = SYMBOLS[index % len(SYMBOLS)] + ("-open" if index >= len(SYMBOLS) else "")
    return {
        "symbol": symbol,
        "size": size,
        "color": COLOURS[index % len(COLOURS)],
        "line": {"width": 2 if index >= len(SYMBOLS) else 0},
    }


def add_dots(
    figure: go.Figure,
    frame: pd.DataFrame,
    places: Sequence[float],
    *,
    style: dict[str, object],
    names: Sequence[str],
    name: str = "",
    legend: bool = False,
    col: int = 1,
) -> None:
    """Add a dot with its interval for each row, at the heights `places`; a row without a mean gets the words "no value".

    `frame` has the columns of an estimate. `names`, one for each row, and `name`, that of all in the legend, are markup. `legend`
    says whether they stand there. `style` is a plotly marker, whose colour the intervals share. `col` is the panel of the `figure`,
    counted from 1 on the left.
    """
    mean = frame["mean"].to_numpy(float)
    _add_intervals(figure, frame, mean, places, "x", style["color"], legendgroup=name, row=1, col=col)
    figure.add_scatter(
        x=mean.tolist(),
        y=list(places),
        name=name,
        legendgroup=name,
        showlegend=legend,
        mode="markers",
        marker=style,
        cliponaxis=False,
        customdata=_hover(names, frame),
        hovertemplate="%{customdata}<extra></extra>",
        row=1,
        col=col,
    )
    say_no_value(figure, np.asarray(places)[np.isnan(mean)], col)


def add_bars(figure: go.Figure, frame: pd.DataFrame, places: Sequence[float], *, names: Sequence[str], col: int) -> None:
    """Add a bar with its interval for each row, at the heights `places`; a row without a mean gets the words "no value".

    `frame` has the columns of an estimate. `names`, one for each row, are markup. `col` is the panel of the `figure`, counted from 1
    on the left.
    """
    mean = frame["mean"].to_numpy(float)
    figure.add_bar(
        x=mean.tolist(),
        y=list(places),
        orientation="h",
        width=0.55,
        showlegend=False,
        marker={"color": LIGHT},  # on which the interval shows in grey as well
        customdata=_hover(names, frame),
        hovertemplate="%{customdata}<extra></extra>",
        row=1,
        col=col,
    )
    _add_intervals(figure, frame, mean, places, "x", INK, row=1, col=col)
    say_no_value(figure, np.asarray(places)[np.isnan(mean)], col)


def _add_intervals(
    figure: go.Figure, frame: pd.DataFrame, x: Sequence[float], y: Sequence[float], axis: str, colour: object, **where: object
) -> None:
    """Add the intervals of the rows that have one, along "x" or "y": a trace of their own, as plotly draws missing ones as 0."""
    chosen = np.isfinite(frame[NUMBERS].to_numpy(float)).all(axis=1)
    rows = frame[chosen]
    above, below = (rows["high"] - rows["mean"]).tolist(), (rows["mean"] - rows["low"]).tolist()
    figure.add_scatter(
        x=np.asarray(x, float)[chosen].tolist(),
        y=np.asarray(y, float)[chosen].tolist(),
        mode="markers",
        marker={"opacity": 0, "size": 1},
        showlegend=False,
        hoverinfo="skip",
        cliponaxis=False,
        **{f"error_{axis}": {"array": above, "arrayminus": below, "color": colour, "thickness": 2, "width": 5}},
        **where,
    )


def _hover(names: Sequence[str], frame: pd.DataFrame) -> list[str]:
    parts = zip(names, estimates(frame), counts_by_row(frame), strict=True)
    return ["<br>".join(part for part in lines if part) for lines in parts]


def say_no_value(figure: go.Figure, places: Sequence[float], col: int = 1) -> None:
    """Put the words "no value" at the heights `places`."""
    for place in places:
        figure.add_annotation(
            text=small("no value"), x=0.02, xref="x domain", xanchor="left", y=place, showarrow=False, row=1, col=col
        )


def add_line(
    figure: go.Figure,
    x: Sequence[float],
    frame: pd.DataFrame,
    *,
    index: int,
    name: str,
    legend: bool,
    names: Sequence[str],
    bands: bool = True,
    row: int = 1,
) -> None:
    """Add a line through the rows, with a band or with bars for their intervals; rows without a value interrupt it.

    `names`, one for each row, and `name` are markup. A row without neighbours always gets a bar.

    Args:
        figure: what the line is added to.
        x: where each row stands.
        frame: the rows, with the columns of an estimate.
        index: the line's number from 0, which chooses its colour, dash and symbol.
        name: what the legend and the hover text call the line.
        legend: whether the line stands in the legend.
        names: what the hover text calls each row.
        bands: whether intervals are bands; else they are bars.
        row: the panel, counted from 1 at the top.
    """
    colour, bounds = COLOURS[index % len(COLOURS)], frame[["low", "high"]].to_numpy(float)
    runs = [list(run) for whole, run in groupby(range(len(frame)), lambda i: bool(np.isfinite(bounds[i]).all())) if whole]
    mean = frame["mean"].to_numpy(float)
    barred = [i for run in runs for i in run if not bands or len(run) == 1]
    if barred:
        xs = [x[i] for i in barred]
        _add_intervals(figure, frame.iloc[barred], xs, mean[barred], "y", colour, legendgroup=name, row=row, col=1)
    for run in runs:
        if run[0] not in barred:
            figure.add_scatter(
                x=[x[i] for i in [*run, *reversed(run)]],
                y=[*bounds[run, 1], *bounds[run[::-1], 0]],
                fill="toself",
                fillcolor=colour,
                opacity=0.13,
                mode="lines",
                line_width=0,
                legendgroup=name,
                showlegend=False,
                hoverinfo="skip",
                row=row,
                col=1,
            )
    figure.add_scatter(
        x=list(x),
        y=mean.tolist(),
        name=name,
        legendgroup=name,
        showlegend=legend,
        mode="lines+markers",
        line={"color": colour, "dash": DASHES[(index + index // len(DASHES)) % len(DASHES)], "width": 2},
        marker=marker(index, 8),
        customdata=_hover(names, frame),
        hovertemplate="%{customdata}<extra>%{fullData.name}</extra>",
        row=row,
        col=1,
    )


def name_rows(figure: go.Figure, labels: Sequence[str]) -> int:
    """Put labels (markup) on rows 0, 1, ... from the top, in every panel; return the height in pixels that the panels need."""
    figure.update_yaxes(range=[len(labels) - 0.5, -0.5], tickvals=list(range(len(labels))), showgrid=False, ticks="")
    figure.update_yaxes(ticktext=list(labels), col=1)
    lines = max(label.count("<br>") + 1 for label in labels)
    return len(labels) * max(44, LINE * lines + 14)


def heatmap(
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    limit: float,
    text: list[list[str]] | None,
    hover: list[list[str]],
) -> go.Figure:
    """Return a figure of numbers in rows and columns: blue above 0, white at 0, orange below, and blank where there is none.

    Args:
        values: [rows, columns].
        rows: their names, the first on top; markup.
        columns: theirs.
        limit: where the colours end.
        text: what stands in each cell, as markup; None for nothing.
        hover: what is said of a cell under the pointer.
    """
    figure = go.Figure()
    figure.add_heatmap(
        z=[[None if np.isnan(value) else value for value in line] for line in values.tolist()],
        x=list(columns),
        y=list(rows),
        zmin=-limit,
        zmax=limit,
        colorscale=[[0.0, "#D55E00"], [0.5, "#ffffff"], [1.0, "#0072B2"]],
        customdata=hover,
        hovertemplate="%{y}, %{x}: %{customdata}<extra></extra>",
        showscale=False,
        **({} if text is None else {"text": text, "texttemplate": "%{text}", "textfont": {"color": INK, "size": 13}}),
    )
    figure.update_yaxes(autorange="reversed", showgrid=False, ticks="", dtick=1)
    figure.update_xaxes(side="top", showgrid=False, ticks="", dtick=1)
    return figure


def cell_texts(values: np.ndarray, sure: np.ndarray) -> list[list[str]]:
    """Return the markup of a heatmap's numbers, [rows, columns]: grey where they are not `sure`, blank where there is none."""

    def shown(value: float, certain: bool) -> str:
        if np.isnan(value):
            return ""
        return number(value, 2) if certain else f'<span style="color:{GREY}">{number(value, 2)}</span>'

    return [[shown(*cell) for cell in zip(*line, strict=True)] for line in zip(values, sure, strict=True)]


def mark_zero(figure: go.Figure, axis: str, **where: int) -> None:
    """Let an axis, "x" or "y", begin at zero or enclose it, and draw a line there."""
    getattr(figure, f"update_{axis}axes")(rangemode="tozero", zeroline=True, zerolinecolor=GREY, zerolinewidth=1.5, **where)


def finish(figure: go.Figure, title: str, note: str, height: int, *, above: int = 0) -> go.Figure:
    """Give a figure its title, and under it a note (markup), above panels of a height in pixels; return it.

    `above` is the space that the panels' own titles need.
    """
    heading, lines = wrapped(title, 88), wrap(note, 120, break_long_words=False, break_on_hyphens=False)
    top = 40 + LINE * (heading.count("<br>") + 1) + LINE * len(lines) + above
    total = top + height + 64
    figure.update_layout(
        template=TEMPLATE,
        title={
            "text": f"{heading}<br>{small('<br>'.join(lines))}",
            "y": 1 - 24 / total,
            "yref": "container",
            "yanchor": "top",
        },
        margin_t=top,
        height=total,
        legend={"x": 1.02, "y": 1, "yanchor": "top", "tracegroupgap": 4, "itemwidth": 48},
    )
    return figure
