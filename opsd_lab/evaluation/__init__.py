"""Accuracy, with intervals over problems and tests between runs."""

from opsd_lab.evaluation.evaluate import Evaluation, evaluate, paired_difference
from opsd_lab.evaluation.outcomes import grade_rollouts
from opsd_lab.evaluation.rewards import AnswerReward
from opsd_lab.evaluation.statistics import Interval

__all__ = ["AnswerReward", "Evaluation", "Interval", "evaluate", "grade_rollouts", "paired_difference"]
