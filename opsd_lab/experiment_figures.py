"""Plotly figures of a study's results: accuracy against what it cost, arms beside each other, and what was forgotten."""

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from opsd_lab.comparisons import seed_interval
from opsd_lab.figure_words import MOST_GROUPS, check_frame
from opsd_lab.figures import COLOURS, DASHES, SYMBOLS, TEMPLATE, plain
from opsd_lab.results import Cost

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

    Every curve starts at the initial policy (rows of step 0), where there is one. Costs are means over seeds.

    Raises:
        ValueError: when an arm has no row on the split, or there are more arms than lines can be told apart.
    """
    if len(arms) > MOST_GROUPS:
        raise ValueError(f"draw_curves: {len(arms)} arms, but at most {MOST_GROUPS} lines can be told apart; choose some")
    rows = results[(results["split"] == split) & (results["error"] == "")]
    start = rows[rows["step"] == 0]
    figure = go.Figure()
    for i, arm in enumerate(arms):
        cells = rows[(rows["arm"] == arm) & (rows["step"] > 0)]
        if cells.empty:
            raise ValueError(f"draw_curves: arm {arm!r} was not trained and evaluated on {split!r}")
        points = [(0.0, seed_interval(start["accuracy"]))] if len(start) else []
        points += [(float(at[cost].mean()), seed_interval(at["accuracy"])) for _, at in cells.groupby("step")]
        x, colour = [point[0] for point in points], COLOURS[i % len(COLOURS)]
        low, high = [value.low for _, value in points], [value.high for _, value in points]
        figure.add_scatter(
            x=[*x, *reversed(x)],
            y=[*high, *reversed(low)],
            fill="toself",
            fillcolor=colour,
            opacity=0.13,
            line_width=0,
            mode="lines",
            hoverinfo="skip",
            showlegend=False,
            legendgroup=arm,
        )
        figure.add_scatter(
            x=x,
            y=[value.mean for _, value in points],
            name=plain(arm),
            legendgroup=arm,
            mode="lines+markers",
            line={"color": colour, "dash": DASHES[(i + i // len(COLOURS)) % len(DASHES)], "width": 2},
            marker={"symbol": SYMBOLS[i % len(SYMBOLS)], "size": 8},
            hovertemplate=f"{plain(arm)}<br>%{{x:.3g}} {COSTS[cost]}<br>accuracy %{{y:.1%}}<extra></extra>",
        )
    seeds, problems = int(rows["seed"].nunique()), int(rows["n"].max())
    figure.update_xaxes(title_text=COSTS[cost], rangemode="tozero")
    figure.update_yaxes(title_text="accuracy", range=[0, 1.02], tickformat=".0%")
    heading = title or f"Accuracy on {split} problems"
    figure.update_layout(
        template=TEMPLATE,
        title_text=f"{plain(heading)}: {seeds} seeds, n = {problems}, 95 % bands over seeds",
        height=460,
        legend={"orientation": "h", "y": -0.2},
    )
    return figure


def draw_arms(table: pd.DataFrame, baseline: str, *, title: str = "Arms") -> go.Figure:
    """Draw the arms of `results.arm_table`, first on top: accuracy with its interval over seeds, and the corrected p-value in words.

    Raises:
        ValueError: when a column is missing, or the baseline is not among the arms.
    """
    check_frame("draw_arms", table, ["arm"], ["accuracy", "accuracy_low", "accuracy_high"])
    if baseline not in set(table["arm"]):
        raise ValueError(f"draw_arms: the baseline {baseline!r} is not among the arms {table['arm'].tolist()}")
    level = float(table.loc[table["arm"] == baseline, "accuracy"].iloc[0])
    figure = go.Figure()
    figure.add_vline(x=level, line_dash="dot", line_color="#4b5563")
    for i, row in enumerate(table.to_dict("records")):
        bounded = row["accuracy_low"] == row["accuracy_low"]
        error = {"array": [row["accuracy_high"] - row["accuracy"]], "arrayminus": [row["accuracy"] - row["accuracy_low"]]}
        figure.add_scatter(
            x=[row["accuracy"]],
            y=[i],
            mode="markers",
            marker={"symbol": SYMBOLS[0 if row["arm"] == baseline else 1], "size": 11, "color": COLOURS[0]},
            error_x={**error, "thickness": 2, "width": 6} if bounded else None,
            hovertemplate=f"{plain(row['arm'])}: %{{x:.1%}}<extra></extra>",
        )
        figure.add_annotation(x=1.03, xref="paper", y=i, text=_verdict(row), showarrow=False, xanchor="left")
    names = [plain(arm) for arm in table["arm"]]
    figure.update_xaxes(range=[-0.02, 1.02], tickformat=".0%", dtick=0.2, title_text="accuracy")
    figure.update_yaxes(tickvals=list(range(len(names))), ticktext=names, range=[len(names) - 0.5, -0.6], showgrid=False, ticks="")
    heading = f"{plain(title)}: 95 % intervals over seeds; dotted: {plain(baseline)}"
    return figure.update_layout(
        template=TEMPLATE, title_text=heading, height=140 + 34 * len(names), showlegend=False, margin={"r": 210}
    )


def _verdict(row: dict) -> str:
    if "difference" not in row or row["difference"] != row["difference"]:
        return ""
    p = row.get("p", float("nan"))
    return f"{row['difference']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}], p {'< .001' if p < 0.001 else f'= {p:.3f}'}"


def draw_forgetting(results: pd.DataFrame, arms: Sequence[str], splits: Sequence[str], *, title: str = "What changed") -> go.Figure:
    """Draw, for each arm and split, how far the last checkpoint's accuracy lies from the initial policy's, as a table of numbers.

    Raises:
        ValueError: when an arm or the initial policy was not evaluated on a split.
    """
    rows = results[results["error"] == ""]
    values: list[list[float]] = []
    for arm in arms:
        changes = []
        for split in splits:
            before = rows[(rows["split"] == split) & (rows["step"] == 0)]
            after = rows[(rows["split"] == split) & (rows["arm"] == arm)]
            after = after[after["step"] == after["step"].max()]
            if before.empty or after.empty:
                raise ValueError(f"draw_forgetting: {arm!r} or the initial policy was not evaluated on {split!r}")
            changes.append(float(after["accuracy"].mean() - before["accuracy"].mean()))
        values.append(changes)
    scale = [[0.0, "#D55E00"], [0.5, "#ffffff"], [1.0, "#0072B2"]]
    figure = go.Figure()
    figure.add_heatmap(
        z=values,
        x=[plain(split) for split in splits],
        y=[plain(arm) for arm in arms],
        zmin=-1,
        zmax=1,
        colorscale=scale,
        text=[[f"{value:+.2f}" for value in line] for line in values],
        texttemplate="%{text}",
        textfont={"color": "#111111"},
        hovertemplate="%{y}, %{x}: %{text}<extra></extra>",
        showscale=False,
    )
    figure.update_yaxes(autorange="reversed", showgrid=False, ticks="")
    figure.update_xaxes(side="top", showgrid=False, ticks="")
    seeds = int(rows["seed"].nunique())
    return figure.update_layout(
        template=TEMPLATE,
        title_text=f"{plain(title)}: accuracy minus the initial policy's, {seeds} seeds",
        height=170 + 30 * len(arms),
    )
