"""opsd_lab: on-policy self-distillation of language models, in composable pieces.

These are the names that a first notebook needs. Everything else is imported from its folder; docs/map.md shows which.
"""

# Problems with verified solutions
from opsd_lab.problems.files import load_csv, load_jsonl, load_parquet
from opsd_lab.problems.hub import load_hub
from opsd_lab.problems.problem import Problem
from opsd_lab.problems.word_problems import builtin

# isort: split
# What each side sees: prompts, and the views of the teacher
from opsd_lab.contexts import ChatFormat, ContextBuilder, answer_only, hints, no_privilege, other_problem, reference_solution

# isort: split
# The model, and whose weights teach
from opsd_lab.policies.policy import Policy, add_lora, load_policy
from opsd_lab.policies.teachers import OtherTeacher, ema_teacher, fixed_teacher, live_teacher, refreshed_teacher

# isort: split
# Who writes the rollouts, and which of them are right
from opsd_lab.evaluation.outcomes import grade_rollouts
from opsd_lab.grading import Grader
from opsd_lab.rollouts import HFSampler, Rollout, SamplingParams, VLLMSampler
from opsd_lab.rollouts.sampling import sample_rollouts
from opsd_lab.rollouts.sources import StudentWrites
from opsd_lab.rollouts.teacher_writes import TeacherWrites

# isort: split
# How far apart the two are, and what a token's loss is
from opsd_lab.divergences import Divergence, Side, forward_kl, jsd, reverse_kl
from opsd_lab.objectives import GRPO, OPSD, SFT, Objective

# isort: split
# Training and its measure
from opsd_lab.evaluation.evaluate import evaluate
from opsd_lab.training.records import TrainingParams
from opsd_lab.training.trainer import Trainer

# isort: split
# Token by token
from opsd_lab.steps.labels import label_steps
from opsd_lab.supervision.views import score_rollouts, score_views
from opsd_lab.tokens.table import TokenTable

# isort: split
# What you look at
from opsd_lab.figures.training import LiveTraining, draw_training
from opsd_lab.token_view import contexts_view, explore, render

# isort: split
# The tiny model that learns in a minute, and its problems
from opsd_lab.sandbox import load_sandbox, worksheets

__all__ = [
    "GRPO",
    "OPSD",
    "SFT",
    "ChatFormat",
    "ContextBuilder",
    "Divergence",
    "Grader",
    "HFSampler",
    "LiveTraining",
    "Objective",
    "OtherTeacher",
    "Policy",
    "Problem",
    "Rollout",
    "SamplingParams",
    "Side",
    "StudentWrites",
    "TeacherWrites",
    "TokenTable",
    "Trainer",
    "TrainingParams",
    "VLLMSampler",
    "add_lora",
    "answer_only",
    "builtin",
    "contexts_view",
    "draw_training",
    "ema_teacher",
    "evaluate",
    "explore",
    "fixed_teacher",
    "forward_kl",
    "grade_rollouts",
    "hints",
    "jsd",
    "label_steps",
    "live_teacher",
    "load_csv",
    "load_hub",
    "load_jsonl",
    "load_parquet",
    "load_policy",
    "load_sandbox",
    "no_privilege",
    "other_problem",
    "reference_solution",
    "refreshed_teacher",
    "render",
    "reverse_kl",
    "sample_rollouts",
    "score_rollouts",
    "score_views",
    "worksheets",
]
