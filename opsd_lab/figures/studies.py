"""Plotly figures of a study's results: accuracy against what it cost, arms beside each other, and what was forgotten.

`draw_x` takes the estimates that `opsd_lab.studies.results.x` returns.
"""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from opsd_lab.figures.parts import add_dots, add_line, finish, heatmap, marker, name_rows
from opsd_lab.figures.training import plain
from opsd_lab.figures.words import GREY, check_frame, count, groups_of, number, wrapped
from opsd_lab.studies.results import Cost

COSTS: dict[Cost, str] = {
    "step": "optimiser steps",
    "tokens_generated": "tokens generated",
    "tokens_scored": "tokens scored by the teacher",
    "tokens_trained": "tokens trained on",
    "flops": "floating-point operations",
    "seconds": "seconds",
}


def draw_curves(frame: pd.DataFrame, *, title: str = "") -> go.Figure:
    """Draw each arm's accuracy against what it had spent: the mean over seeds, with the t interval over seeds as a band.

    Arms that spend none of the cost are named in the note instead; the others look as they do beside them under another cost.

    Raises:
        ValueError: when a column is missing, there are more arms than lines can be told apart, or no arm spends any of the cost.
    """
    check_frame("draw_curves", frame, ["arm", "step"], ["cost", "spent", "split", "problems"])
    arms, cost = groups_of("draw_curves", frame, "arm"), frame["cost"].iloc[0]
    figure, free = make_subplots(rows=1, cols=1), []
    for index, arm in enumerate(arms):
        points = frame[frame["arm"] == arm]
        if not points["spent"].any():
            free.append(arm)
            continue
        words = [f"{spent:,.4g} {COSTS[cost]}" for spent in points["spent"]]
        add_line(figure, points["spent"].tolist(), points, index=index, name=wrapped(arm), legend=True, names=words)
    if len(free) == len(arms):
        raise ValueError(f"draw_curves: none of the arms {arms} spent any {COSTS[cost]}")
    figure.update_xaxes(title_text=COSTS[cost], rangemode="tozero")
    figure.update_yaxes(title_text="accuracy", range=[0, 1.02], tickformat=".0%")
    seeds = frame.groupby("arm")["n"].max()
    note = f"{count(int(seeds.max()), 'seeds', int(seeds.min()))}, {frame['problems'].max()} problems; 95 % t intervals over seeds"
    note += f"; no {COSTS[cost]}: {plain(', '.join(free))}" if free else ""
    return finish(figure, title or f"Accuracy on {frame['split'].iloc[0]} problems, by {COSTS[cost]}", note, 380)


def draw_arm_table(table: pd.DataFrame, *, title: str = "Arms") -> go.Figure:
    """Draw the arms, first on top: accuracy with its interval over seeds; the difference from the baseline in words.

    Raises:
        ValueError: when a column is missing, or the baseline is not among the arms.
    """
    check_frame("draw_arm_table", table, ["arm"], ["baseline"])
    arms, baseline = table["arm"].tolist(), table["baseline"].iloc[0]
    if baseline not in arms:
        raise ValueError(f"draw_arm_table: the baseline {baseline!r} is not among the arms {arms}")
    figure = make_subplots(rows=1, cols=1)
    for style, chosen in ((0, table["arm"] == baseline), (1, table["arm"] != baseline)):
        names = [plain(arm) for arm in table.loc[chosen, "arm"]]
        add_dots(figure, table[chosen], np.flatnonzero(chosen), style=marker(style) | {"color": marker(0)["color"]}, names=names)
    figure.add_vline(x=float(table["mean"].iloc[arms.index(baseline)]), line_dash="dot", line_color=GREY)
    words = [_verdict(row) for row in table.to_dict("records")]
    for place, text in enumerate(words):
        figure.add_annotation(text=text, x=1, xref="paper", xanchor="left", xshift=8, y=place, showarrow=False)
    figure.update_xaxes(range=[-0.02, 1.02], tickformat=".0%", dtick=0.2, title_text="accuracy")
    figure.update_layout(margin_r=24 + 8 * max(map(len, words)), showlegend=False)
    seeds = count(int(table["n"].max()), "seeds", int(table["n"].min()))
    note = (
        f"{seeds}, 95 % t intervals over them; dotted line: {plain(baseline)}. "
        "Right: the difference from it, with its 95 % interval over seeds and problems; p after Holm's correction"
    )
    if any("only these" in said for said in table["note"]):
        note = note.replace("over seeds and problems", "over problems, for these seeds only")
    return finish(figure, title, note, name_rows(figure, [wrapped(arm, 40) for arm in arms]) * 3 // 4)


def _verdict(row: dict) -> str:
    if "difference" not in row or np.isnan(row["difference"]):
        return ""
    words = "< .001" if row["p"] < 0.001 else f"= {number(row['p'], 3).removeprefix('0')}"
    return f"{_signed(row['difference'])} [{_signed(row['difference_low'])}, {_signed(row['difference_high'])}], p {words}"


def _signed(value: float) -> str:
    text = number(value, 2)
    return text if text.startswith("−") or float(text) == 0 else f"+{text}"


def draw_changes(frame: pd.DataFrame, *, title: str = "What changed") -> go.Figure:
    """Draw, for each arm and split, how far its last checkpoint's accuracy lies from the initial policy's, with a t interval.

    Raises:
        ValueError: when a column is missing, or an arm has two rows of a split.
    """
    check_frame("draw_changes", frame, ["arm", "split"], ["baseline"])
    arms, splits = frame["arm"].unique().tolist(), frame["split"].unique().tolist()
    values = frame.pivot(index="arm", columns="split", values="mean").loc[arms, splits]
    halves = frame.assign(half=frame["high"] - frame["mean"]).pivot(index="arm", columns="split", values="half")
    halves = halves.loc[arms, splits].to_numpy()
    text = [
        [_signed(value) + ("" if np.isnan(half) else f" ± {number(half, 2)}") for value, half in zip(*line, strict=True)]
        for line in zip(values.to_numpy(), halves, strict=True)
    ]
    figure = heatmap(values.to_numpy(), [wrapped(arm, 40) for arm in arms], [plain(split) for split in splits], 1.0, text, text)
    seeds = count(int(frame["n"].max()), "seeds", int(frame["n"].min()))
    note = f"accuracy minus the {frame['baseline'].iloc[0]}'s; {seeds}, ± half of the 95 % t interval over them"
    return finish(figure, title, note, 34 * len(arms), above=24)
