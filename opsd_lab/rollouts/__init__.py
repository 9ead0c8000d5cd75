"""Who writes the completions."""

from opsd_lab.rollouts.base import Rollout, Sampler, SamplingParams
from opsd_lab.rollouts.files import load_rollouts, save_rollouts
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
    "load_rollouts",
    "sample_rollouts",
    "save_rollouts",
]
