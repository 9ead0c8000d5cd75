"""Who writes the completions."""

from opsd_lab.rollouts.base import Rollout, Sampler, SamplingParams
from opsd_lab.rollouts.hf import HFSampler
from opsd_lab.rollouts.sampling import sample_rollouts
from opsd_lab.rollouts.vllm_local import VLLMSampler
from opsd_lab.rollouts.vllm_server import VLLMServerSampler

__all__ = [
    "HFSampler",
    "Rollout",
    "Sampler",
    "SamplingParams",
    "VLLMSampler",
    "VLLMServerSampler",
    "sample_rollouts",
]
