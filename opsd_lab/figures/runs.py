"""A plotly figure of all that is watched in a run, and the run in a notebook while it goes."""

import html

import pandas as pd
import plotly.graph_objects as go
from IPython.core.getipython import get_ipython
from IPython.display import DisplayHandle
from plotly.subplots import make_subplots

from opsd_lab.figures.parts import finish
from opsd_lab.figures.training import COLOURS, DASHES, SYMBOLS, show_again
from opsd_lab.runs import Run
from opsd_lab.token_view import render
from opsd_lab.token_view.visible import visible_text
from opsd_lab.training.records import StepRecord

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


class LiveRun:
    """A run in a notebook while it goes: its curves, its warnings, and every now and then a rollout, token by token.

    What stands in the notebook afterwards is static. Outside a notebook nothing is shown. `run` is the run's folder, and
    `rollout_every` says how many steps one rollout stays.
    """

    def __init__(self, run: Run, *, rollout_every: int = 10) -> None:
        self._run, self._every = run, rollout_every
        self._curves: DisplayHandle | None = None
        self._beside: DisplayHandle | None = None
        self._rollout = ""

    def update(self, record: StepRecord) -> None:
        """Show the run as it is after a step.

        Raises:
            ValueError: when a line of the run's folder is damaged.
        """
        figure = draw_run(self._run.steps, title=f"Run {self._run.folder.name}")
        if len(record.table) and (not self._rollout or (record.step - 1) % self._every == 0):
            first = int(record.table.frame["rollout"].iloc[0])
            self._rollout = render(record.table.rollout(first), titles=[f"step {record.step}"]).html
        if get_ipython() is None:
            return
        self._curves = show_again(figure, self._curves)
        warned = self._run.events.query("kind == 'warning'").groupby("text", sort=False)["step"]
        told = "".join(f"<li>step {', '.join(map(str, steps))}: {html.escape(visible_text(text))}</li>" for text, steps in warned)
        page = {"text/html": f"<ul>{told}</ul>{self._rollout}" if told else self._rollout}
        if self._beside is None:
            self._beside = DisplayHandle()
            self._beside.display(page, raw=True)
        else:
            self._beside.update(page, raw=True)
