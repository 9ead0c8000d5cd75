"""Plotly figures of token-level supervision: where a signal is large, on which steps, and under which view.

`draw_x` takes the estimates that `opsd_lab.diagnostics.x` returns, or those of `by_view(x, tables)`.
"""

from typing import Literal

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from opsd_lab.diagnostics.alignment import CONTRAST
from opsd_lab.figures.gap_distributions import draw_gap_distributions
from opsd_lab.figures.parts import (
    INK,
    SHADE,
    add_bars,
    add_dots,
    add_line,
    finish,
    mark_zero,
    marker,
    name_rows,
)
from opsd_lab.figures.training import plain
from opsd_lab.figures.words import (
    INTERVALS,
    NUMBERS,
    check_frame,
    check_values,
    counted,
    counts_by_row,
    estimates,
    groups_of,
    number,
    small,
    wrapped,
)

__all__ = [
    "draw_compare_views",
    "draw_depth_decay",
    "draw_divergence_by_class",
    "draw_first_wrong_step",
    "draw_gap_distributions",
    "draw_intervals",
    "draw_mean_by_position",
    "draw_step_gap",
]

MOST_BANDS = 3  # more of them cover each other


def draw_intervals(frame: pd.DataFrame, label: str | list[str], value_title: str, title: str) -> go.Figure:
    """Draw each row of a table of estimates as a dot with its interval, first row on top, and print its numbers beside it.

    `frame` has the columns `label` names, which together tell its rows apart, and those of an estimate; `n` and columns that start
    with "n_" are counts, and stand under each label where rows differ in them. `value_title` names the axis of the values, with their
    unit; `title` heads the figure.

    Raises:
        ValueError: when a column is missing, there is no row, or two rows have the same label.
    """
    names = [label] if isinstance(label, str) else list(label)
    check_frame("draw_intervals", frame, names)
    labels = [wrapped(" · ".join(map(str, row)), 32) for row in frame[names].itertuples(index=False)]
    figure = make_subplots(rows=1, cols=1)
    add_dots(figure, frame, range(len(frame)), style=marker(0), names=labels)
    constant = [column for column in frame if (column == "n" or column.startswith("n_")) and frame[column].nunique() == 1]
    if any(counts := counts_by_row(frame.drop(columns=constant))):
        labels = [f"{name}<br>{small(count)}" for name, count in zip(labels, counts, strict=True)]
    words = estimates(frame)
    for place, text in enumerate(words):
        figure.add_annotation(text=text, x=1, xref="paper", xanchor="left", xshift=8, y=place, showarrow=False)
    mark_zero(figure, "x")
    figure.update_xaxes(title_text=wrapped(value_title, 80))
    figure.update_layout(margin_r=24 + 8 * max(map(len, words)))
    return finish(figure, title, f"{INTERVALS}; {counted(frame)}", name_rows(figure, labels))


def draw_mean_by_position(
    frame: pd.DataFrame,
    group: str | None = None,
    *,
    value_title: str = "mean gap (nats)",
    title: str = "Gap by position in the rollout",
) -> go.Figure:
    """Draw a mean against the position in the rollout, one line per value of the column `group`.

    The row of `frame` whose position is "all" is not a bin and is not drawn. Up to three lines have bands, and points in the middle
    of their bins; more have bars, and points side by side. `value_title` names the axis of the values, with their unit; `title` heads
    the figure.

    Raises:
        ValueError: when a column is missing, there are no bins, two rows are of one bin, or groups cannot be told apart.
    """
    name, keys = "draw_mean_by_position", ["position"] if group is None else [group, "position"]
    check_frame(name, frame, keys, ["start", "end"])
    bins = frame[frame["position"] != "all"]
    if bins.empty:
        raise ValueError(f'{name}: the frame has only the position "all", and no bins')
    figure = make_subplots(rows=1, cols=1)
    groups = groups_of(name, bins, group)
    bands = len(groups) <= MOST_BANDS
    for index, value in enumerate(groups):
        points = (bins if group is None else bins[bins[group] == value]).sort_values("start")
        # Bars stand side by side inside their bin; bands of few groups share its middle.
        place = 0.5 if bands else 0.15 + 0.7 * index / (len(groups) - 1)
        x = (points["start"] + place * (points["end"] - points["start"])).tolist()
        names = [plain(str(position)) for position in points["position"]]
        label = "" if group is None else wrapped(value)
        add_line(figure, x, points, index=index, name=label, legend=group is not None, names=names, bands=bands)
    mark_zero(figure, "y")
    figure.update_xaxes(title_text="position in the rollout", tickformat=".0%", range=[0, 1], dtick=0.2)
    figure.update_yaxes(title_text=wrapped(value_title, 40))
    return finish(figure, title, f"{'bands' if bands else 'bars'}: {INTERVALS}; each point: {counted(bins)}", 320)


def draw_divergence_by_class(frame: pd.DataFrame, *, title: str = "Divergence by class of token") -> go.Figure:
    """Draw each token class's share of the divergence beside its mean divergence, in the order of the frame's rows.

    Raises:
        ValueError: when a column or one of the two measures is missing, there is no row, or a class has two.
    """
    name = "draw_divergence_by_class"
    check_frame(name, frame, ["measure", "token_class"], ["n_tokens"])
    panels = {"share": "share of the total divergence", "divergence": "mean divergence (nats per token)"}
    check_values(name, frame, "measure", list(panels))
    classes = frame["token_class"].unique().tolist()
    figure = make_subplots(rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.06)
    for col, (measure, heading) in enumerate(panels.items(), start=1):
        rows = frame[frame["measure"] == measure]
        places = [classes.index(name) for name in rows["token_class"]]
        add_bars(figure, rows, places, names=[wrapped(name) for name in rows["token_class"]], col=col)
        figure.update_xaxes(title_text=heading, col=col)
    mark_zero(figure, "x")
    figure.update_xaxes(tickformat=".0%", col=1)
    tokens = frame.groupby("token_class", sort=False)["n_tokens"].max()
    height = name_rows(figure, [f"{wrapped(name)}<br>{small(f'{tokens[name]:,} tokens')}" for name in classes])
    return finish(figure, title, f"{INTERVALS}; each class: {counted(frame)}", height)


def draw_step_gap(
    frame: pd.DataFrame,
    per: Literal["token", "step"] = "token",
    *,
    value_title: str = "mean gap (nats)",
    title: str = "Gap on correct and incorrect steps",
) -> go.Figure:
    """Draw the mean on correct and on incorrect steps, and beside them the difference of the two; a row for each view, if there are.

    `frame` is the table of `step_gap`, or several with a column "view" that tells them apart. `per` chooses the rows in which each
    token, or each step, counts alike. Labels other than "correct", "incorrect" and "incorrect - correct" are not drawn. `value_title`
    names the axis of the two means, with their unit; `title` heads the figure.

    Raises:
        ValueError: when a column or one of those labels is missing, there is no row, or a view has two rows of one label.
    """
    check_frame("draw_step_gap", frame, [*(["view"] if "view" in frame else []), "per", "label"], [f"n_{per}s"])
    rows = frame[frame["per"] == per]
    return _draw_contrast("draw_step_gap", rows if "view" in frame else rows.assign(view=""), f"{per}s", value_title, title)


def draw_compare_views(
    frame: pd.DataFrame, *, value_title: str = "mean gap (nats), minus that of the baseline", title: str = "Gap by privileged view"
) -> go.Figure:
    """Draw each view's difference from the baseline on correct and on incorrect steps, and beside them the difference of the two.

    Raises:
        ValueError: when a column or one of those labels is missing, there is no row, or a view has two rows of one label.
    """
    check_frame("draw_compare_views", frame, ["view", "label"], ["n_tokens"])
    return _draw_contrast("draw_compare_views", frame, "tokens", value_title, title)


def _draw_contrast(name: str, frame: pd.DataFrame, unit: str, value_title: str, title: str) -> go.Figure:
    check_values(name, frame, "label", sides := ["correct", "incorrect", CONTRAST])
    views = frame["view"].unique().tolist()
    labels = {view: wrapped(view) for view in views}
    figure = make_subplots(rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.06)
    for index, (label, shift, col) in enumerate(zip(sides, (-0.14, 0.14, 0), (1, 1, 2), strict=True)):
        rows = frame[frame["label"] == label]
        places = [views.index(view) + shift for view in rows["view"]]
        style = {**marker(2), "color": INK} if label == CONTRAST else marker(index)
        names = [f"{wrapped(view)}<br>{label} {unit}" for view in rows["view"]]
        add_dots(figure, rows, places, style=style, names=names, name=f"{label} {unit}", legend=col == 1, col=col)
        if col == 1:
            for view, count in zip(rows["view"], rows[f"n_{unit}"], strict=True):
                labels[view] += f"<br>{small(f'{count:,} {label} {unit}')}"
    figure.update_xaxes(title_text=wrapped(value_title, 26), col=1)
    figure.update_xaxes(title_text=CONTRAST, col=2)
    mark_zero(figure, "x")
    height = name_rows(figure, list(labels.values()))
    return finish(figure, title, f"{INTERVALS}; each row: {counted(frame[frame['label'] == CONTRAST])}", height)


def draw_first_wrong_step(frame: pd.DataFrame, *, title: str = "Finding the first wrong step") -> go.Figure:
    """Draw how well each signal finds the first wrong step: a panel per measure, a row per signal, a marker per view.

    Several frames may stand below one another, told apart by a column `view`. A dotted line is chance; the row of the signal that
    needs no teacher, the baseline, is shaded.

    Raises:
        ValueError: when a column is missing, there is no row, two rows have the same keys, or views cannot be told apart.
    """
    name, group = "draw_first_wrong_step", "view" if "view" in frame else None
    needed = ["chance", "baseline", "difference", "difference_low", "difference_high", "n_solutions"]
    check_frame(name, frame, ["measure", "signal", *([group] if group else [])], needed)
    measures, signals = frame["measure"].unique().tolist(), frame["signal"].unique().tolist()
    groups, baseline = groups_of(name, frame, group), frame["baseline"].iloc[0]
    figure = make_subplots(rows=1, cols=len(measures), shared_yaxes=True, horizontal_spacing=0.05)
    for col, measure in enumerate(measures, start=1):
        panel = frame[frame["measure"] == measure]
        for index, value in enumerate(groups):
            rows = panel if group is None else panel[panel[group] == value]
            shift = (index - (len(groups) - 1) / 2) * 0.8 / len(groups)
            places = [signals.index(signal) + shift for signal in rows["signal"]]
            style = marker(index, 11 if len(groups) < 4 else 8)
            label = wrapped(value) if group else ""
            names = [f"{label}<br>{words}" if label else words for words in _differences(rows)]
            add_dots(figure, rows, places, style=style, names=names, name=label, legend=bool(group) and col == 1, col=col)
        _head_panel(figure, panel, col)
    figure.update_xaxes(tickformat=".2f")
    names = [wrapped(signal) + ("<br>" + small("baseline: no teacher") if signal == baseline else "") for signal in signals]
    if baseline in signals:
        place = signals.index(baseline)
        figure.add_hrect(y0=place - 0.5, y1=place + 0.5, fillcolor=SHADE, line_width=0, layer="below", row=1, col="all")
    height = max(name_rows(figure, names), 13 * len(groups) * len(signals))
    return finish(figure, title, f"{INTERVALS}; {counted(frame)}", height, above=78)


def _differences(rows: pd.DataFrame) -> list[str]:
    values = rows[["difference", "difference_low", "difference_high"]].set_axis(NUMBERS, axis=1)
    return [
        f"{plain(str(signal))}<br>above the baseline: {words}"
        for signal, words in zip(rows["signal"], estimates(values), strict=True)
    ]


def _head_panel(figure: go.Figure, panel: pd.DataFrame, col: int) -> None:
    """Draw a panel's chance lines, and name its measure, chance and counts above it."""
    for chance in panel["chance"].round(4).unique():
        figure.add_vline(x=chance, line={"dash": "dot", "color": INK, "width": 1.5}, row=1, col=col)
    chances = " to ".join(dict.fromkeys(number(end, 2) for end in (panel["chance"].min(), panel["chance"].max())))
    words = small(f"dotted: chance {chances}<br>{counted(panel).replace(', ', ',<br>')}")
    where = {"x": 0.5, "xref": "x domain", "y": 1, "yref": "y domain", "yanchor": "bottom", "yshift": 4}
    text = f"<b>{wrapped(panel['measure'].iloc[0])}</b><br>{words}"
    figure.add_annotation(text=text, **where, showarrow=False, row=1, col=col)


def draw_depth_decay(frame: pd.DataFrame, *, title: str = "Accuracy of rollouts continued from a depth") -> go.Figure:
    """Draw the accuracy of student and teacher by the depth that each continues from, and below it the paired difference.

    Raises:
        ValueError: when a column or one of "student", "teacher" and "teacher - student" is missing, or a row is there twice.
    """
    name, sides = "draw_depth_decay", ("student", "teacher", "teacher - student")
    check_frame(name, frame, ["depth", "who"])
    check_values(name, frame, "who", sides)
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08, row_heights=[0.62, 0.38])
    for index, who in enumerate(sides):
        points = frame[frame["who"] == who].sort_values("depth")
        names = [f"depth {depth:.0%}" for depth in points["depth"]]
        add_line(figure, points["depth"].tolist(), points, index=index, name=who, legend=True, names=names, row=1 + index // 2)
    mark_zero(figure, "y", row=2)
    figure.update_yaxes(title_text="accuracy", range=[0, 1.02], tickformat=".0%", row=1)
    figure.update_yaxes(title_text="difference", tickformat="+.0%", row=2)
    figure.update_xaxes(title_text="share of the rollout that is kept", tickformat=".0%", row=2)
    return finish(figure, title, f"bands: {INTERVALS}; each point: {counted(frame)}", 420)
