"""Plotly figures of training, supervision and studies, and pages made of notebooks."""

from opsd_lab.figures.idea import draw_idea
from opsd_lab.figures.studies import draw_arm_table, draw_changes, draw_curves
from opsd_lab.figures.training import LiveTraining, draw_accuracy, draw_top_tokens, draw_training

__all__ = [
    "LiveTraining",
    "draw_accuracy",
    "draw_arm_table",
    "draw_changes",
    "draw_curves",
    "draw_idea",
    "draw_top_tokens",
    "draw_training",
]
