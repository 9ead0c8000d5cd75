"""opsd_lab: on-policy self-distillation of language models, in composable pieces."""

from opsd_lab.batching import DistillBatch, Example, build_batch, micro_batches
from opsd_lab.checkpoints import load_checkpoint, save_checkpoint
from opsd_lab.contexts import (
    ChatFormat,
    ContextBuilder,
    ContextPair,
    answer_only,
    hints,
    no_privilege,
    other_problem,
    partial_solution,
    reference_solution,
    wrong_solution,
)
from opsd_lab.divergences import forward_kl, jsd, reverse_kl, sampled_token
from opsd_lab.evaluation import Evaluation, evaluate, paired_difference
from opsd_lab.figures import LiveTraining, draw_accuracy, draw_top_tokens, draw_training
from opsd_lab.grading import Grade, Grader
from opsd_lab.hub_problems import load_hub
from opsd_lab.idea_figure import draw_idea
from opsd_lab.ledger import Ledger
from opsd_lab.objectives import OPSD, SampledTokenOPSD
from opsd_lab.policies import Policy, add_lora, ema_teacher, fixed_teacher, live_teacher, load_policy
from opsd_lab.problems import BadRowsError, Problem, builtin, load_jsonl, save_jsonl
from opsd_lab.records import StepRecord, TrainingParams
from opsd_lab.rollouts import HFSampler, Rollout, Sampler, SamplingParams
from opsd_lab.scoring import CompletionStates, score_completions
from opsd_lab.statistics import Interval
from opsd_lab.supervision import label_steps, score_rollouts
from opsd_lab.token_table import TokenTable
from opsd_lab.token_view import contexts_view, render
from opsd_lab.trainer import NonFiniteError, Trainer

__all__ = [
    "OPSD",
    "BadRowsError",
    "ChatFormat",
    "CompletionStates",
    "ContextBuilder",
    "ContextPair",
    "DistillBatch",
    "Evaluation",
    "Example",
    "Grade",
    "Grader",
    "HFSampler",
    "Interval",
    "Ledger",
    "LiveTraining",
    "NonFiniteError",
    "Policy",
    "Problem",
    "Rollout",
    "SampledTokenOPSD",
    "Sampler",
    "SamplingParams",
    "StepRecord",
    "TokenTable",
    "Trainer",
    "TrainingParams",
    "add_lora",
    "answer_only",
    "build_batch",
    "builtin",
    "contexts_view",
    "draw_accuracy",
    "draw_idea",
    "draw_top_tokens",
    "draw_training",
    "ema_teacher",
    "evaluate",
    "fixed_teacher",
    "forward_kl",
    "hints",
    "jsd",
    "label_steps",
    "live_teacher",
    "load_checkpoint",
    "load_hub",
    "load_jsonl",
    "load_policy",
    "micro_batches",
    "no_privilege",
    "other_problem",
    "paired_difference",
    "partial_solution",
    "reference_solution",
    "render",
    "reverse_kl",
    "sampled_token",
    "save_checkpoint",
    "save_jsonl",
    "score_completions",
    "score_rollouts",
    "wrong_solution",
]
