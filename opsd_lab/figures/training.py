"""Plotly figures of numbers that were computed elsewhere: nothing here but layout."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import plotly.io as pio
from IPython.core.getipython import get_ipython
from IPython.display import DisplayHandle
from plotly.subplots import make_subplots

from opsd_lab.evaluation.estimate import Estimate
from opsd_lab.token_view.visible import visible_text

# Okabe and Ito's palette, told apart in every common colour blindness; markers and dashes do so in black and white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "x")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
AXIS = {
    "automargin": True,
    "gridcolor": "#e5e7eb",
    "linecolor": "#6b7280",
    "showline": True,
    "ticks": "outside",
    "tickcolor": "#6b7280",
    "zeroline": False,
    "title": {"standoff": 8},
}
TEMPLATE = go.layout.Template(
    layout={
        "paper_bgcolor": "#ffffff",
        "plot_bgcolor": "#ffffff",
        "colorway": COLOURS,
        "font": {"family": "system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif", "size": 14, "color": "#111111"},
        "title": {"x": 0, "xref": "container", "pad": {"l": 12}, "font": {"size": 16}},
        "margin": {"l": 16, "r": 24, "t": 56, "b": 16},
        "xaxis": AXIS,
        "yaxis": AXIS,
        "hoverlabel": {"bgcolor": "#ffffff", "font": {"color": "#111111"}},
    }
)
CURVES = {"loss": "loss", "divergence": "divergence<br>(nats per token)", "accuracy": "accuracy"}


def plain(text: str) -> str:
    """Return text that plotly shows letter by letter; plotly reads labels as HTML, and dollars as mathematics."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("$", "&#36;")


def draw_training(records: pd.DataFrame, *, title: str = "Training") -> go.Figure:
    """Draw one curve per row of axes against the optimiser step: loss, divergence, accuracy.

    `records` has the columns `step` and `loss`; `divergence`, `accuracy` and the accuracy's 95 % interval
    `accuracy_low`, `accuracy_high` are drawn where they are. A step without a value has NaN there.

    Raises:
        ValueError: when `step` or `loss` is missing.
    """
    if missing := [name for name in ("step", "loss") if name not in records]:
        raise ValueError(f"draw_training: the records have no column {missing}; they have {list(records)}")
    shown = [name for name in CURVES if name in records and records[name].notna().any()] or ["loss"]
    figure = make_subplots(rows=len(shown), cols=1, shared_xaxes=True, vertical_spacing=0.07)
    for row, name in enumerate(shown, start=1):
        points = records.dropna(subset=[name]).sort_values("step")
        index = list(CURVES).index(name)
        if {f"{name}_low", f"{name}_high"} <= set(points):
            _add_band(figure, points, name, COLOURS[index], row)
        figure.add_scatter(
            x=points["step"].tolist(),
            y=points[name].tolist(),
            name=name,
            mode="lines+markers",
            line={"color": COLOURS[index], "dash": DASHES[index], "width": 2},
            marker={"symbol": SYMBOLS[index], "size": 7},
            hovertemplate=f"step %{{x}}<br>{name} %{{y:.4g}}<extra></extra>",
            row=row,
            col=1,
        )
        figure.update_yaxes(title_text=CURVES[name], rangemode="tozero", row=row, col=1)
    if shown[-1] == "accuracy":
        figure.update_yaxes(range=[0, 1.02], tickformat=".0%", row=len(shown), col=1)
    figure.update_xaxes(title_text="optimiser step", row=len(shown), col=1)
    figure.update_layout(template=TEMPLATE, title_text=plain(title), height=130 + 160 * len(shown), showlegend=False)
    return figure


def _add_band(figure: go.Figure, points: pd.DataFrame, name: str, colour: str, row: int) -> None:
    points = points.dropna(subset=[f"{name}_low", f"{name}_high"])
    around = {
        "x": [*points["step"], *reversed(points["step"].tolist())],
        "y": [*points[f"{name}_high"], *reversed(points[f"{name}_low"].tolist())],
    }
    figure.add_scatter(
        **around,
        fill="toself",
        fillcolor=colour,
        opacity=0.2,
        line_width=0,
        mode="lines",
        hoverinfo="skip",
        row=row,
        col=1,
    )


def draw_accuracy(intervals: Mapping[str, Estimate], *, title: str = "Held-out accuracy") -> go.Figure:
    """Draw one dot with its 95 % interval per entry (`Evaluation.accuracy`), first entry on top, and print its numbers beside it.

    Raises:
        ValueError: when there is nothing to draw.
    """
    if not intervals:
        raise ValueError("draw_accuracy: no intervals to draw")
    figure = go.Figure()
    for i, (name, value) in enumerate(intervals.items()):
        figure.add_scatter(
            x=[value.mean],
            y=[i],
            name=plain(name),
            mode="markers",
            marker={"symbol": SYMBOLS[i % len(SYMBOLS)], "size": 13, "color": COLOURS[i % len(COLOURS)]},
            error_x={
                "array": [value.high - value.mean],
                "arrayminus": [value.mean - value.low],
                "thickness": 2,
                "width": 7,
            },
            hovertemplate=f"%{{x:.1%}} [{value.low:.1%}, {value.high:.1%}], n = {value.n}<extra></extra>",
        )
        figure.add_annotation(
            x=value.mean,
            y=i,
            text=f"{value.mean:.0%} [{value.low:.0%}, {value.high:.0%}]",
            showarrow=False,
            yshift=20,
            xanchor="center" if 0.15 < value.mean < 0.85 else ("left" if value.mean <= 0.15 else "right"),
        )
    sizes = sorted({value.n for value in intervals.values()})
    same = f"n = {sizes[0]}" if len(sizes) == 1 else "n beside each name"
    names = [plain(name) + ("" if len(sizes) == 1 else f" (n = {value.n})") for name, value in intervals.items()]
    figure.update_xaxes(range=[-0.02, 1.02], tickformat=".0%", dtick=0.2)
    figure.update_yaxes(tickvals=list(range(len(names))), ticktext=names, range=[len(names) - 0.5, -0.7], showgrid=False, ticks="")
    figure.update_layout(
        template=TEMPLATE,
        title_text=f"{plain(title)}, 95 % intervals, {same}",
        height=120 + 64 * len(names),
        showlegend=False,
    )
    return figure


def draw_top_tokens(frame: pd.DataFrame, *, limit: int = 15, title: str = "Tokens taught most") -> go.Figure:
    """Draw the `limit` tokens with the largest total divergence as bars, each with its total and count.

    `frame` is that of `opsd_lab.diagnostics.top_tokens`: one row per token text with `token`, `total` (nats) and `count`.

    Raises:
        ValueError: when a column is missing or there is no row.
    """
    if missing := [name for name in ("token", "total", "count") if name not in frame]:
        raise ValueError(f"draw_top_tokens: the frame has no column {missing}; it has {list(frame)}")
    if frame.empty:
        raise ValueError("draw_top_tokens: the frame has no rows, so there is nothing to draw")
    top = frame.nlargest(limit, "total")
    places = list(range(len(top)))
    labels = [plain(_shortened(visible_text(token, space="·"))) for token in top["token"]]
    figure = go.Figure()
    figure.add_bar(
        x=top["total"].tolist(),
        y=places,
        orientation="h",
        marker={"color": COLOURS[0]},
        text=[f"{total:.3g} · {count}×" for total, count in zip(top["total"], top["count"], strict=True)],
        textposition="outside",
        textangle=0,
        cliponaxis=False,
        customdata=labels,
        hovertemplate="%{customdata}: %{text}<extra></extra>",
    )
    room = float(top["total"].max()) * 1.18 or 1.0
    figure.update_xaxes(title_text="total divergence (nats)", range=[0, room])
    figure.update_yaxes(
        tickvals=places,
        ticktext=labels,
        tickfont={"family": "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace"},
        range=[len(places) - 0.4, -0.6],
        showgrid=False,
        ticks="",
    )
    heading = f"{plain(title)}: {len(top)} of {len(frame)}, with how often each was written"
    figure.update_layout(template=TEMPLATE, title_text=heading, height=130 + 26 * len(top), bargap=0.25)
    return figure


def _shortened(text: str, limit: int = 28) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


class LiveTraining:
    """Curves that move in a notebook while training runs, and stay in it as a static figure afterwards.

    The figure is an ordinary output that is replaced at each update, not a widget, so that it needs no extension and a
    notebook that was run without a browser keeps it. Outside a notebook the records are collected and nothing is shown.
    """

    def __init__(self, *, title: str = "Training") -> None:
        self._title = title
        self._records: list[Mapping[str, Any]] = []
        self._handle: DisplayHandle | None = None

    @property
    def records(self) -> pd.DataFrame:
        """The records so far, one row each."""
        return pd.DataFrame(self._records)

    @property
    def figure(self) -> go.Figure:
        """The figure of the records so far."""
        return draw_training(self.records, title=self._title)

    def update(self, record: Mapping[str, Any]) -> None:
        """Add one record, with the keys that `draw_training` names, and redraw.

        Raises:
            ValueError: when the record lacks `step` or `loss`.
        """
        self._records.append(dict(record))
        figure = self.figure
        if get_ipython() is not None:
            self._handle = show_again(figure, self._handle)


def show_again(figure: go.Figure, handle: DisplayHandle | None) -> DisplayHandle:
    """Show a figure in a notebook, in the place of the one that a handle shows, if there is one; return the handle."""
    if handle is None:
        handle = DisplayHandle()
        show = handle.display
    else:
        # JupyterLab's plotly renderer draws an output once and ignores later data (plotly 7.1). An output of another
        # kind in between makes it start afresh; it is as high as the figure, so that the page does not jump.
        handle.update({"text/html": f'<div style="height:{figure.layout.height}px"></div>'}, raw=True)
        show = handle.update
    show(pio.renderers["plotly_mimetype"].to_mimebundle(figure.to_dict()), raw=True)
    return handle
