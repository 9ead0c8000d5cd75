"""What a token loses: OPSD, likelihood and policy gradients."""

from opsd_lab.objectives.baselines import GRPO, SFT
from opsd_lab.objectives.opsd import OPSD, SampledTokenOPSD

__all__ = ["GRPO", "OPSD", "SFT", "SampledTokenOPSD"]
