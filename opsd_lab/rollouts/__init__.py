"""Who writes the completions."""

from opsd_lab.rollouts.base import Rollout, Sampler, SamplingParams
from opsd_lab.rollouts.files import load_rollouts, save_rollouts
from opsd_lab.rollouts.gates import correct_only, incorrect_only, mixed_groups
from opsd_lab.rollouts.given_texts import Texts
from opsd_lab.rollouts.hf import HFSampler
from opsd_lab.rollouts.sampling import sample_rollouts
from opsd_lab.rollouts.sources import BestOf, PerProblem, SourceMixture, Stored, StudentWrites, Together
from opsd_lab.rollouts.teacher_writes import TeacherRewrites, TeacherWrites
from opsd_lab.rollouts.vllm_local import VLLMSampler
from opsd_lab.rollouts.vllm_server import VLLMServerSampler

__all__ = [
    "BestOf",
    "HFSampler",
    "PerProblem",
    "Rollout",
    "Sampler",
    "SamplingParams",
    "SourceMixture",
    "Stored",
    "StudentWrites",
    "TeacherRewrites",
    "TeacherWrites",
    "Texts",
    "Together",
    "VLLMSampler",
    "VLLMServerSampler",
    "correct_only",
    "incorrect_only",
    "load_rollouts",
    "mixed_groups",
    "sample_rollouts",
    "save_rollouts",
]
