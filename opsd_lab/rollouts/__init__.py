"""Who writes the completions."""

from opsd_lab.rollouts.base import Rollout, Sampler, SamplingParams
from opsd_lab.rollouts.hf import HFSampler

__all__ = ["HFSampler", "Rollout", "Sampler", "SamplingParams"]
