"""Plotly figures of the family: what each method would teach where, how alike they are, what training gained, and by which pieces."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from opsd_lab.figures.parts import add_dots, cell_texts, finish, heatmap, mark_zero, marker, name_rows
from opsd_lab.figures.training import plain
from opsd_lab.figures.words import GREY, INTERVALS, NUMBERS, check_frame, count, counted, interval, number

BETTER, WORSE, NEITHER, FAILED = "better than OPSD", "worse than OPSD", "neither", "failed"
ABOVE, BELOW = "above 0", "below 0"
UP, DOWN, PLAIN = marker(0, 9), marker(1, 9), marker(0, 7) | {"color": GREY}
MARKS = {BETTER: UP, WORSE: DOWN, NEITHER: PLAIN, FAILED: PLAIN}
"""How a method stands beside OPSD, and how that is drawn."""
SIGNS = {ABOVE: UP, BELOW: DOWN, NEITHER: PLAIN}


def draw_pushes(frame: pd.DataFrame, *, title: str = "Mean push on the written token's logit, by method and place") -> go.Figure:
    """Draw a row for each method and a column for each place: the mean push, blue where tokens become likelier, orange where less.

    A mean whose interval does not exclude 0 is grey. Hovering shows the interval.

    Raises:
        ValueError: when a column is missing, or a method has two rows of a place.
    """
    check_frame("draw_pushes", frame, ["method", "place"])
    methods, places = frame["method"].unique().tolist(), frame["place"].unique().tolist()
    wide = frame.pivot(index="method", columns="place", values=NUMBERS)
    mean, low, high = (wide[name].loc[methods, places].to_numpy() for name in NUMBERS)
    sure = (low > 0) | (high < 0)
    limit = float(np.nanquantile(np.abs(mean), 0.95))
    numbers = np.stack([mean, low, high], -1)
    hover = [[interval(*cell) for cell in line] for line in numbers]
    figure = heatmap(mean, [plain(name) for name in methods], places, limit, cell_texts(mean, sure), hover)
    note = f"1 is the size of the method's average push. Grey: the interval holds 0. {INTERVALS}; {counted(frame)}"
    return finish(figure, title, note, 21 * len(methods), above=24)


def draw_likeness(matrix: pd.DataFrame, *, title: str = "Rank correlation of two methods' pushes") -> go.Figure:
    """Draw the rank correlation of every two methods' pushes, with methods that are alike beside each other.

    A method whose pushes are all the same has no correlation, and stands at the end.

    Raises:
        ValueError: when the matrix is not one of the same methods in rows and columns, or has fewer than two.
    """
    if list(matrix.index) != list(matrix.columns) or len(matrix) < 2:
        raise ValueError("draw_likeness: the matrix needs the same methods, two at least, in rows and columns")
    known = matrix.loc[~matrix.isna().all(), ~matrix.isna().all()]
    apart = 1 - known.fillna(0.0).clip(-1, 1).to_numpy()
    np.fill_diagonal(apart, 0.0)
    order = range(len(known))
    if len(known) > 1:
        order = leaves_list(linkage(squareform(apart, checks=False), "average", optimal_ordering=True))
    names = [known.index[i] for i in order] + [name for name in matrix if name not in known]
    values = matrix.loc[names, names].to_numpy()
    hover = [[number(value, 2) for value in line] for line in values]
    shown = [plain(name) for name in names]
    figure = heatmap(values, shown, shown, 1.0, None, hover)
    figure.update_xaxes(side="bottom", tickangle=-60)
    return finish(figure, title, "Spearman's correlation over tokens: blue 1, white 0, orange −1", 17 * len(names) + 140)


def draw_methods(frame: pd.DataFrame, *, title: str = "Accuracy gained over the initial policy, by method") -> go.Figure:
    """Draw what each method gained over the initial policy, a panel for each task; methods by their mean gain, the best on top.

    `frame` has the columns of `compare_methods`. The verdict beside OPSD is the mark; a dotted line stands at OPSD's own gain.

    Raises:
        ValueError: when a column is missing, or a task has two rows of a method.
    """
    check_frame("draw_methods", frame, ["task", "method"], ["arm", "verdict", "seeds"])
    order = frame.groupby("method", sort=False)["mean"].mean().sort_values(ascending=False).index.tolist()
    figure = _dots(frame.rename(columns={"method": "row"}), order, MARKS)
    for col, (_, rows) in enumerate(frame.groupby("task", sort=False), 1):
        for gain in rows.loc[rows["arm"] == "opsd", "mean"]:
            figure.add_vline(x=gain, line_dash="dot", line_color=GREY, col=col)
    seeds = count(int(frame["seeds"].max()), "seeds", int(frame["seeds"].min()))
    note = (
        f"Accuracy minus the initial policy's, with 95 % intervals over seeds and problems; {seeds}, {counted(frame)}. "
        "Dotted: OPSD. Better and worse: p below .05 after Holm's correction"
    )
    return _under(figure, title, note, 21 * len(order))


def draw_search(frame: pd.DataFrame, *, title: str = "Accuracy gained over the initial policy, by learning rate") -> go.Figure:
    """Draw a row for each method and a column for each learning rate: the gain, blue above zero, orange below.

    `frame` has the columns of `search_gains`. The gain at the chosen rate is bold, and one whose interval does not exclude 0 is grey.
    Methods stand by their best gain.

    Raises:
        ValueError: when a column is missing, or a method has two rows of a rate.
    """
    check_frame("draw_search", frame, ["method", "learning_rate"], ["chosen"])
    methods = frame.groupby("method", sort=False)["mean"].max().sort_values(ascending=False).index.tolist()
    rates = sorted(frame["learning_rate"].unique())
    wide = frame.pivot(index="method", columns="learning_rate", values=[*NUMBERS, "chosen"]).reindex(methods)
    mean, low, high = (wide[name][rates].to_numpy(float) for name in NUMBERS)
    chosen, sure = wide["chosen"][rates].to_numpy() == 1, (low > 0) | (high < 0)
    lines = zip(cell_texts(mean, sure), chosen, strict=True)
    text = [[f"<b>{t}</b>" if bold else t for t, bold in zip(*line, strict=True)] for line in lines]
    hover = [[interval(*cell) for cell in line] for line in np.stack([mean, low, high], -1)]
    limit = float(np.nanmax(np.abs(mean)))
    figure = heatmap(mean, [plain(name) for name in methods], [f"{rate:g}" for rate in rates], limit, text, hover)
    note = f"Accuracy minus the initial policy's. Bold: the chosen rate. Grey: the interval holds 0. {INTERVALS}; {counted(frame)}"
    return finish(figure, title, note, 21 * len(methods), above=24).update_xaxes(type="category")


def draw_effects(frame: pd.DataFrame, *, title: str = "What each piece adds to the accuracy") -> go.Figure:
    """Draw the coefficients of the pieces, a panel for each task, a row for each value of a piece.

    `frame` has the columns of `marginal_effects` and `task`.

    Raises:
        ValueError: when a column is missing, or a task has two rows of a value.
    """
    check_frame("draw_effects", frame, ["task", "piece", "value"], ["against"])
    rows = [piece if value == "yes" else f"{piece}: {value}" for piece, value in zip(frame["piece"], frame["value"], strict=True)]
    sure = np.select([frame["low"] > 0, frame["high"] < 0], [ABOVE, BELOW], NEITHER)
    figure = _dots(frame.assign(row=rows, verdict=sure), list(dict.fromkeys(rows)), SIGNS)
    chosen = [plain(f"{piece} {name}") for piece, name in zip(frame["piece"], frame["against"], strict=True) if name]
    note = "Accuracy by a regression over methods, 95 % intervals"
    if chosen:
        note += f". Choices are compared with: {', '.join(dict.fromkeys(chosen))}"
    return _under(figure, title, note, 24 * len(set(rows)))


def draw_clip(frame: pd.DataFrame, *, title: str = "Cosine of forward KL's clipped and unclipped gradient") -> go.Figure:
    """Draw the mean cosine between forward KL's clipped and unclipped gradient, a panel for each model, a row for each view and clip.

    `frame` has the columns of `clip_rows`; rows without a direction, such as those without a view, are left out.

    Raises:
        ValueError: when a column is missing, or a model has two rows of a view and clip.
    """
    check_frame("draw_clip", frame, ["model", "view", "clip"], ["clipped"])
    shown = frame[frame["mean"].notna()]
    rows = [f"{view}, clip {clip:g}" for view, clip in zip(shown["view"], shown["clip"], strict=True)]
    sure = np.select([shown["low"] > 0, shown["high"] < 0], [ABOVE, BELOW], NEITHER)
    figure = _dots(shown.assign(task=shown["model"], row=rows, verdict=sure), list(dict.fromkeys(rows)), SIGNS)
    note = f"1: the same direction, -1: the opposite one; by the student's logits. {INTERVALS}; {counted(shown)}"
    return _under(figure, title, note, 24 * len(set(rows))).update_xaxes(tickformat=".1f", range=[-1.05, 1.05])


def _dots(frame: pd.DataFrame, order: list[str], marks: Mapping[str, Mapping]) -> go.Figure:
    """Return a panel for each `task` of the frame with a dot for each `row`, in an order; the `verdict` is the mark."""
    tasks, place = frame["task"].unique().tolist(), {name: at for at, name in enumerate(order)}
    figure = make_subplots(1, len(tasks), shared_yaxes=True, horizontal_spacing=0.03, subplot_titles=[plain(t) for t in tasks])
    for verdict in (verdict for verdict in marks if (frame["verdict"] == verdict).any()):
        told = frame.loc[frame["verdict"] == verdict, "task"].iloc[0]  # the panel that brings it into the legend
        for col, task in enumerate(tasks, 1):
            chosen = frame[(frame["task"] == task) & (frame["verdict"] == verdict)]
            names, heights = [plain(name) for name in chosen["row"]], [place[name] for name in chosen["row"]]
            add_dots(figure, chosen, heights, style=marks[verdict], names=names, name=verdict, legend=task == told, col=col)
    name_rows(figure, [plain(name) for name in order])
    mark_zero(figure, "x")
    return figure.update_xaxes(tickformat=".0%", matches="x")


def _under(figure: go.Figure, title: str, note: str, height: int) -> go.Figure:
    """Finish a figure, with its legend under the panels."""
    placed = {"x": 0, "xref": "container", "y": 0, "yref": "container", "yanchor": "bottom"}
    return finish(figure, title, note, height, above=24).update_layout(legend={"orientation": "h", **placed})
