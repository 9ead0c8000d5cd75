"""opsd_lab: on-policy self-distillation of language models, in composable pieces."""

from opsd_lab.contexts import (
    ChatFormat,
    ContextBuilder,
    Prompts,
    answer_only,
    hints,
    no_privilege,
    other_problem,
    partial_solution,
    reference_solution,
    wrong_solution,
)
from opsd_lab.divergences import Divergence, Side, forward_kl, jsd, reverse_kl
from opsd_lab.evaluation.estimate import Estimate
from opsd_lab.evaluation.evaluate import Evaluation, evaluate, paired_difference
from opsd_lab.evaluation.outcomes import grade_rollouts
from opsd_lab.evaluation.rewards import AnswerReward
from opsd_lab.figures.idea import draw_idea
from opsd_lab.figures.studies import draw_arm_table, draw_changes, draw_curves
from opsd_lab.figures.training import LiveTraining, draw_accuracy, draw_top_tokens, draw_training
from opsd_lab.grading import Grade, Grader
from opsd_lab.objectives import GRPO, OPSD, SFT, Objective, Route, SampledTokenOPSD, Sum, TargetMixture, of_the_step, rewarded
from opsd_lab.policies.policy import Policy, add_lora, load_policy
from opsd_lab.policies.teachers import OtherTeacher, ema_teacher, fixed_teacher, live_teacher, refreshed_teacher
from opsd_lab.problems.column_maps import COLUMN_MAPS, ColumnMap
from opsd_lab.problems.files import load_csv, load_jsonl, load_parquet, save_jsonl
from opsd_lab.problems.hub import from_dataset, load_hub
from opsd_lab.problems.problem import BadRowsError, Problem
from opsd_lab.problems.reference_answers import split_boxed_answer, split_gsm8k_answer
from opsd_lab.problems.word_problems import builtin
from opsd_lab.rollouts import HFSampler, Rollout, Sampler, SamplingParams, VLLMSampler, VLLMServerSampler
from opsd_lab.rollouts.files import load_rollouts, save_rollouts
from opsd_lab.rollouts.gates import correct_only, incorrect_only, mixed_groups
from opsd_lab.rollouts.given_texts import Texts
from opsd_lab.rollouts.sampling import sample_rollouts
from opsd_lab.rollouts.sources import BestOf, SourceMixture, Stored, StudentWrites
from opsd_lab.rollouts.teacher_writes import TeacherWrites
from opsd_lab.sandbox import load_sandbox, own_solution, worksheets
from opsd_lab.scoring.batching import Example, build_batch, micro_batches
from opsd_lab.scoring.forward import CompletionStates, score_completions
from opsd_lab.steps.labels import label_first_error, label_steps
from opsd_lab.studies.results import arm_table, at_matched_cost, changes, choose, curves, failures, final_rows
from opsd_lab.studies.study import Study, run_study
from opsd_lab.supervision.views import build_examples, score_rollouts, score_views, text_rollout
from opsd_lab.token_view import contexts_view, explore, render, render_views
from opsd_lab.tokens.files import load_table, save_table
from opsd_lab.tokens.table import TokenTable
from opsd_lab.tokens.top import TopTokens
from opsd_lab.training.checkpoints import load_checkpoint, save_checkpoint
from opsd_lab.training.ledger import Ledger
from opsd_lab.training.recipes import Recipe, texts_of
from opsd_lab.training.records import StepRecord, TrainingParams
from opsd_lab.training.trainer import NonFiniteError, Trainer

__all__ = [
    "COLUMN_MAPS",
    "GRPO",
    "OPSD",
    "SFT",
    "AnswerReward",
    "BadRowsError",
    "BestOf",
    "ChatFormat",
    "ColumnMap",
    "CompletionStates",
    "ContextBuilder",
    "Divergence",
    "Estimate",
    "Evaluation",
    "Example",
    "Grade",
    "Grader",
    "HFSampler",
    "Ledger",
    "LiveTraining",
    "NonFiniteError",
    "Objective",
    "OtherTeacher",
    "Policy",
    "Problem",
    "Prompts",
    "Recipe",
    "Rollout",
    "Route",
    "SampledTokenOPSD",
    "Sampler",
    "SamplingParams",
    "Side",
    "SourceMixture",
    "StepRecord",
    "Stored",
    "StudentWrites",
    "Study",
    "Sum",
    "TargetMixture",
    "TeacherWrites",
    "Texts",
    "TokenTable",
    "TopTokens",
    "Trainer",
    "TrainingParams",
    "VLLMSampler",
    "VLLMServerSampler",
    "add_lora",
    "answer_only",
    "arm_table",
    "at_matched_cost",
    "build_batch",
    "build_examples",
    "builtin",
    "changes",
    "choose",
    "contexts_view",
    "correct_only",
    "curves",
    "draw_accuracy",
    "draw_arm_table",
    "draw_changes",
    "draw_curves",
    "draw_idea",
    "draw_top_tokens",
    "draw_training",
    "ema_teacher",
    "evaluate",
    "explore",
    "failures",
    "final_rows",
    "fixed_teacher",
    "forward_kl",
    "from_dataset",
    "grade_rollouts",
    "hints",
    "incorrect_only",
    "jsd",
    "label_first_error",
    "label_steps",
    "live_teacher",
    "load_checkpoint",
    "load_csv",
    "load_hub",
    "load_jsonl",
    "load_parquet",
    "load_policy",
    "load_rollouts",
    "load_sandbox",
    "load_table",
    "micro_batches",
    "mixed_groups",
    "no_privilege",
    "of_the_step",
    "other_problem",
    "own_solution",
    "paired_difference",
    "partial_solution",
    "reference_solution",
    "refreshed_teacher",
    "render",
    "render_views",
    "reverse_kl",
    "rewarded",
    "run_study",
    "sample_rollouts",
    "save_checkpoint",
    "save_jsonl",
    "save_rollouts",
    "save_table",
    "score_completions",
    "score_rollouts",
    "score_views",
    "split_boxed_answer",
    "split_gsm8k_answer",
    "text_rollout",
    "texts_of",
    "worksheets",
    "wrong_solution",
]
