"""What a token loses: OPSD, likelihood and policy gradients; targets, token weights, sums and routes of them."""

from opsd_lab.objectives.combined import Route, Sum, rewarded
from opsd_lab.objectives.likelihood import SFT
from opsd_lab.objectives.objective import Losses, Objective, compute_losses
from opsd_lab.objectives.opsd import OPSD, SampledTokenOPSD
from opsd_lab.objectives.policy_gradient import GRPO
from opsd_lab.objectives.targets import Target, TargetMixture, the_teacher
from opsd_lab.objectives.tokens import Teachers, Tokens, ViewError
from opsd_lab.objectives.weights import TokenWeights, of_the_step

__all__ = [
    "GRPO",
    "OPSD",
    "SFT",
    "Losses",
    "Objective",
    "Route",
    "SampledTokenOPSD",
    "Sum",
    "Target",
    "TargetMixture",
    "Teachers",
    "TokenWeights",
    "Tokens",
    "ViewError",
    "compute_losses",
    "of_the_step",
    "rewarded",
    "the_teacher",
]
