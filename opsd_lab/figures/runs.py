"""A plotly figure of all that is watched in a run."""

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from opsd_lab.figures.parts import finish
from opsd_lab.figures.training import COLOURS, DASHES, SYMBOLS

PANELS: dict[str, tuple[str, ...]] = {
    "loss": ("loss",),
    "divergence (nats per token)": ("divergence",),
    "gap (nats)": ("gap",),
    "entropy (nats)": ("student_entropy", "teacher_entropy"),
    "rollout length (tokens)": ("completion_length",),
    "truncated rollouts": ("truncated",),
    "top-k overlap": ("top_overlap",),
    "reward": ("reward",),
    "gradient norm": ("grad_norm",),
    "accuracy": ("accuracy", "teacher_accuracy"),
}
SHARES = ("truncated rollouts", "top-k overlap", "accuracy")


def draw_run(steps: pd.DataFrame, *, title: str = "Run") -> go.Figure:
    """Draw what is known of a run's steps (`Run.steps`), a panel for each: the student in blue, the teacher in orange.

    The accuracies have their 95 % intervals. What no step has is left out.

    Raises:
        ValueError: when there is no step.
    """
    if steps.empty:
        raise ValueError("draw_run: the run has no steps yet")
    shown = {name: [one for one in series if one in steps and steps[one].notna().any()] for name, series in PANELS.items()}
    shown = {name: series for name, series in shown.items() if series}
    rows = (len(shown) + 1) // 2
    figure = make_subplots(rows=rows, cols=2, subplot_titles=list(shown), vertical_spacing=0.28 / rows, horizontal_spacing=0.09)
    for i, (name, series) in enumerate(shown.items()):
        place = {"row": i // 2 + 1, "col": i % 2 + 1}
        for column in series:
            _add_line(figure, steps, column, place)
        figure.update_yaxes(rangemode="tozero", **place)
        if name in SHARES:
            figure.update_yaxes(tickformat=".0%", range=[-0.02, 1.02], **place)
        figure.update_xaxes(title_text="optimiser step" if i >= len(shown) - 2 else None, **place)
    figure.update_annotations(font_size=14)
    figure.update_xaxes(matches="x")
    figure.update_layout(showlegend=False)
    return finish(
        figure, title, "student: blue; teacher: orange, dashed; accuracies with 95 % intervals over problems", 190 * rows, above=24
    )


def _add_line(figure: go.Figure, steps: pd.DataFrame, column: str, place: dict[str, int]) -> None:
    points, index = steps.dropna(subset=[column]), int(column.startswith("teacher"))
    bounds = [f"{column}_low", f"{column}_high"]
    error = {}
    if set(bounds) <= set(points):
        plus, minus = points[bounds[1]] - points[column], points[column] - points[bounds[0]]
        error = {"error_y": {"array": plus.tolist(), "arrayminus": minus.tolist(), "thickness": 1.5, "width": 4}}
    figure.add_scatter(
        x=points["step"].tolist(),
        y=points[column].tolist(),
        name=column.replace("_", " "),
        mode="lines+markers" if len(points) <= 60 else "lines",
        line={"color": COLOURS[index], "dash": DASHES[index], "width": 2},
        marker={"symbol": SYMBOLS[index], "size": 6},
        hovertemplate=f"step %{{x}}<br>{column.replace('_', ' ')} %{{y:.4g}}<extra></extra>",
        **error,
        **place,
    )
