"""What a token loses: OPSD, likelihood and policy gradients; targets, token weights, sums and routes of them."""

from opsd_lab.objectives.combined import Pushed, Route, Scaled, Sum, rewarded
from opsd_lab.objectives.likelihood import SFT
from opsd_lab.objectives.marks import Mark, Signal
from opsd_lab.objectives.objective import Losses, Objective, compute_losses
from opsd_lab.objectives.opsd import OPSD, SampledTokenOPSD
from opsd_lab.objectives.policy_gradient import GRPO, GapGradient, PolicyGradient
from opsd_lab.objectives.targets import Target, TargetMixture, the_teacher
from opsd_lab.objectives.tokens import MarkError, Teachers, Tokens, ViewError
from opsd_lab.objectives.weights import TokenWeights, not_divided_out, of_the_step

__all__ = [
    "GRPO",
    "OPSD",
    "SFT",
    "GapGradient",
    "Losses",
    "Mark",
    "MarkError",
    "Objective",
    "PolicyGradient",
    "Pushed",
    "Route",
    "SampledTokenOPSD",
    "Scaled",
    "Signal",
    "Sum",
    "Target",
    "TargetMixture",
    "Teachers",
    "TokenWeights",
    "Tokens",
    "ViewError",
    "compute_losses",
    "not_divided_out",
    "of_the_step",
    "rewarded",
    "the_teacher",
]
