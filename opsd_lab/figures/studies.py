"""Plotly figures of a study's results: accuracy against what it cost, arms beside each other, and what was forgotten."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from opsd_lab.evaluation.comparisons import seed_interval
from opsd_lab.figures.parts import INK, add_dots, add_line, finish, marker, name_rows
from opsd_lab.figures.training import plain
from opsd_lab.figures.words import GREY, MOST_GROUPS, check_frame, count, number, wrapped
from opsd_lab.studies.results import Cost, changes

COSTS: dict[Cost, str] = {
    "step": "optimiser steps",
    "tokens_generated": "tokens generated",
    "tokens_scored": "tokens scored by the teacher",
    "tokens_trained": "tokens trained on",
    "flops": "floating-point operations",
    "seconds": "seconds",
}


def draw_curves(
    results: pd.DataFrame, arms: Sequence[str], cost: Cost = "step", *, split: str = "test", title: str = ""
) -> go.Figure:
    """Draw each arm's accuracy against its cost: the mean over seeds, with the t interval over seeds as a band.

    Every curve starts at the initial policy (rows of step 0), where there is one. Costs are means over seeds. Arms that spend none of
    the cost are named in the note instead; the others look as they do beside them under another cost.

    Raises:
        ValueError: when an arm has no row on the split, there are more arms than lines can be told apart, or no arm spends any of
            the cost.
    """
    if len(arms) > MOST_GROUPS:
        raise ValueError(f"draw_curves: {len(arms)} arms, but at most {MOST_GROUPS} lines can be told apart; choose some")
    rows = results[(results["split"] == split) & (results["error"] == "")]
    start = rows[rows["step"] == 0]
    figure, free = make_subplots(rows=1, cols=1), []
    for index, arm in enumerate(arms):
        cells = rows[(rows["arm"] == arm) & (rows["step"] > 0)]
        if cells.empty:
            raise ValueError(f"draw_curves: arm {arm!r} was not trained and evaluated on {split!r}")
        if not cells[cost].any():
            free.append(arm)
            continue
        points = [(0.0, start["accuracy"])] if len(start) else []
        points += [(float(at[cost].mean()), at["accuracy"]) for _, at in cells.groupby("step")]
        x = [spent for spent, _ in points]
        frame = pd.DataFrame([seed_interval(accuracies).as_dict() for _, accuracies in points]).rename(columns={"n": "n_seeds"})
        words = [f"{spent:,.4g} {COSTS[cost]}" for spent in x]
        add_line(figure, x, frame, index=index, name=wrapped(arm), legend=True, names=words)
    if len(free) == len(arms):
        raise ValueError(f"draw_curves: none of the arms {list(arms)} spent any {COSTS[cost]}")
    figure.update_xaxes(title_text=COSTS[cost], rangemode="tozero")
    figure.update_yaxes(title_text="accuracy", range=[0, 1.02], tickformat=".0%")
    seeds = rows[rows["arm"].isin(arms)].groupby("arm")["seed"].nunique()
    note = f"{count(int(seeds.max()), 'seeds', int(seeds.min()))}, {int(rows['n'].max())} problems; 95 % t intervals over seeds"
    note += f"; no {COSTS[cost]}: {plain(', '.join(free))}" if free else ""
    return finish(figure, title or f"Accuracy on {split} problems, by {COSTS[cost]}", note, 380)


def draw_arms(table: pd.DataFrame, baseline: str, *, title: str = "Arms") -> go.Figure:
    """Draw the arms of `results.arm_table`, first on top: accuracy with its interval over seeds; the difference in words.

    Raises:
        ValueError: when a column is missing, or the baseline is not among the arms.
    """
    check_frame("draw_arms", table, ["arm"], ["seeds", "accuracy", "accuracy_low", "accuracy_high"])
    arms = table["arm"].tolist()
    if baseline not in arms:
        raise ValueError(f"draw_arms: the baseline {baseline!r} is not among the arms {arms}")
    figure = make_subplots(rows=1, cols=1)
    frame = pd.DataFrame({"mean": table["accuracy"], "low": table["accuracy_low"], "high": table["accuracy_high"]})
    for style, chosen in ((0, table["arm"] == baseline), (1, table["arm"] != baseline)):
        names = [plain(arm) for arm in table.loc[chosen, "arm"]]
        add_dots(figure, frame[chosen], np.flatnonzero(chosen), style=marker(style) | {"color": marker(0)["color"]}, names=names)
    figure.add_vline(x=float(table["accuracy"].iloc[arms.index(baseline)]), line_dash="dot", line_color=GREY)
    words = [_verdict(row) for row in table.to_dict("records")]
    for place, text in enumerate(words):
        figure.add_annotation(text=text, x=1, xref="paper", xanchor="left", xshift=8, y=place, showarrow=False)
    figure.update_xaxes(range=[-0.02, 1.02], tickformat=".0%", dtick=0.2, title_text="accuracy")
    figure.update_layout(margin_r=24 + 8 * max(map(len, words)), showlegend=False)
    seeds = count(int(table["seeds"].max()), "seeds", int(table["seeds"].min()))
    note = (
        f"{seeds}, 95 % t intervals over them; dotted line: {plain(baseline)}. Right: the difference from it, with "
        "its 95 % interval over seeds and problems; p after Holm's correction"
    )
    return finish(figure, title, note, name_rows(figure, [wrapped(arm, 40) for arm in arms]) * 3 // 4)


def _verdict(row: dict) -> str:
    if "difference" not in row or np.isnan(row["difference"]):
        return ""
    words = "< .001" if row["p"] < 0.001 else f"= {number(row['p'], 3).removeprefix('0')}"
    return f"{_signed(row['difference'])} [{_signed(row['low'])}, {_signed(row['high'])}], p {words}"


def _signed(value: float) -> str:
    text = number(value, 2)
    return text if text.startswith("−") or float(text) == 0 else f"+{text}"


def draw_forgetting(results: pd.DataFrame, arms: Sequence[str], splits: Sequence[str], *, title: str = "What changed") -> go.Figure:
    """Draw, for each arm and split, how far its last checkpoint's accuracy lies from the initial policy's, with a t interval.

    Raises:
        ValueError: when an arm or the initial policy was not evaluated on a split.
    """
    found = changes(results, arms, splits)
    values = found.pivot(index="arm", columns="split", values="mean").loc[list(arms), list(splits)]
    halves = found.assign(half=found["high"] - found["mean"]).pivot(index="arm", columns="split", values="half")
    halves = halves.loc[list(arms), list(splits)].to_numpy()
    figure = go.Figure()
    figure.add_heatmap(
        z=values.to_numpy().tolist(),
        x=[plain(split) for split in splits],
        y=[wrapped(arm, 40) for arm in arms],
        zmin=-1,
        zmax=1,
        colorscale=[[0.0, "#D55E00"], [0.5, "#ffffff"], [1.0, "#0072B2"]],
        text=[
            [_signed(value) + ("" if np.isnan(half) else f" ± {number(half, 2)}") for value, half in zip(*line, strict=True)]
            for line in zip(values.to_numpy(), halves, strict=True)
        ],
        texttemplate="%{text}",
        textfont={"color": INK, "size": 13},
        hovertemplate="%{y}, %{x}: %{text}<extra></extra>",
        showscale=False,
    )
    figure.update_yaxes(autorange="reversed", showgrid=False, ticks="")
    figure.update_xaxes(side="top", showgrid=False, ticks="")
    seeds = count(int(found["seeds"].max()), "seeds", int(found["seeds"].min()))
    note = f"accuracy minus the initial policy's; {seeds}, ± half of the 95 % t interval over them"
    return finish(figure, title, note, 34 * len(arms), above=24)
