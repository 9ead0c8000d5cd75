"""Plotly figures of what models of several sizes can: solve under each view, and find wrong steps."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from opsd_lab.figures.parts import add_line, cell_texts, finish, heatmap
from opsd_lab.figures.training import plain
from opsd_lab.figures.words import GREY, INTERVALS, NUMBERS, check_frame, counted, groups_of, interval, number, wrapped

NAMES = {"student_logprob": "student's log-probability", "student_entropy": "student's entropy"}
BESIDE = 0.014  # of the axis: between the intervals of two signals of one model


def draw_capability(signals: pd.DataFrame, accuracy: pd.DataFrame, *, title: str = "Signal against capability") -> go.Figure:
    """Draw each signal's area under the ROC curve, with its 95 % interval, against the accuracy of the model that it comes from.

    The signals of a model stand a little beside each other, around its accuracy.

    `signals` has a row for each model and signal, `accuracy` one for each model (`opsd_lab.experiments.capability`).

    Raises:
        ValueError: when a column is missing, a model has no accuracy, or there are more signals than can be told apart.
    """
    check_frame("draw_capability", signals, ["model", "signal"], ["chance"])
    check_frame("draw_capability", accuracy, ["model"])
    known = accuracy.set_index("model")
    if missing := set(signals["model"]) - set(known.index):
        raise ValueError(f"draw_capability: there is no accuracy of {sorted(missing)[0]!r}")
    figure, groups = make_subplots(rows=1, cols=1), groups_of("draw_capability", signals, "signal")
    shown = known.loc[signals["model"].unique(), "mean"]
    apart = BESIDE * max(float(shown.max() - shown.min()), float(shown.max()), 0.01)
    for index, signal in enumerate(groups):
        rows = signals[signals["signal"] == signal]
        rows = rows.assign(place=rows["model"].map(known["mean"]) + apart * (index - (len(groups) - 1) / 2)).sort_values("place")
        names = [plain(str(model)) for model in rows["model"]]
        places = rows["place"].tolist()
        add_line(figure, places, rows, index=index, name=wrapped(NAMES.get(signal, signal)), legend=True, names=names, bands=False)
    chance = float(signals["chance"].iloc[0])
    figure.add_hline(y=chance, line_dash="dot", line_color=GREY)
    for model, row in known.loc[signals["model"].unique()].iterrows():
        said = f"{plain(str(model))}<br>{interval(*row[NUMBERS])}"
        figure.add_annotation(x=row["mean"], y=1, yref="paper", text=said, showarrow=False, yanchor="bottom")
    figure.update_xaxes(title_text="accuracy on problems of the same set", tickformat=".0%", rangemode="tozero")
    figure.update_yaxes(title_text="area under the ROC curve")
    note = f"95 % intervals over {int(signals['n'].max())} problems; dotted line: a blind guess"
    return finish(figure, title, note, 460, above=36)


def draw_premise(frame: pd.DataFrame, *, title: str = "Accuracy under each view") -> go.Figure:
    """Draw a row for each set of problems and model and a column for each view: the accuracy, coloured by what the view adds to it.

    Blue is above the accuracy without a view, orange below. An accuracy is grey where the interval of that difference holds 0.
    `frame` has the columns of `premise_table` and `model`.

    Raises:
        ValueError: when a column is missing, or a model has two rows of a set and view.
    """
    bounds = ["difference", "difference_low", "difference_high"]
    check_frame("draw_premise", frame, ["set", "model", "view"], bounds)
    views, rows = frame["view"].unique().tolist(), list(dict.fromkeys(zip(frame["set"], frame["model"], strict=True)))
    wide = frame.pivot(index=["set", "model"], columns="view", values=["mean", *bounds]).reindex(rows)
    mean, over, low, high = (wide[name][views].to_numpy(float) for name in ("mean", *bounds))
    sure, limit = (low > 0) | (high < 0), float(np.nanmax(np.abs(over))) or 1.0
    hover = [
        [f"{number(cell[0], 2)}; {interval(*cell[1:])} above none" for cell in line] for line in np.stack([mean, over, low, high], -1)
    ]
    names = [plain(f"{name}, {model}") for name, model in rows]
    figure = heatmap(over, names, [plain(view) for view in views], limit, cell_texts(mean, sure), hover)
    note = f"Colour: the accuracy minus that without a view. Grey: the interval of this holds 0. {INTERVALS}; {counted(frame)}"
    return finish(figure, title, note, 24 * len(names), above=24)
