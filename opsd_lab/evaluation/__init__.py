"""Accuracy, with intervals over problems and tests between runs."""

from opsd_lab.evaluation.estimate import Difference, Estimate
from opsd_lab.evaluation.evaluate import Evaluation, evaluate, paired_difference
from opsd_lab.evaluation.outcomes import grade_rollouts
from opsd_lab.evaluation.rewards import AnswerReward

__all__ = ["AnswerReward", "Difference", "Estimate", "Evaluation", "evaluate", "grade_rollouts", "paired_difference"]
