"""The walkthrough's experiment as functions: one trained arm, its evaluation, and the report that `make walkthrough` writes."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from opsd_lab.basics.files import write_whole
from opsd_lab.contexts import ChatFormat, ContextBuilder, View, bare_solution, other_problem
from opsd_lab.evaluation.estimate import Estimate
from opsd_lab.evaluation.evaluate import Evaluation, evaluate
from opsd_lab.grading import Grader
from opsd_lab.policies.policy import Policy, add_lora, load_policy
from opsd_lab.problems.problem import Problem
from opsd_lab.problems.word_problems import builtin, one_per_key
from opsd_lab.rollouts import HFSampler, SamplingParams
from opsd_lab.training.ledger import Ledger, peak_memory_gib
from opsd_lab.training.trainer import Trainer, TrainingParams

# A 135M-parameter model rambles without the opening word, and copies long instructions instead of following them.
CHAT = ChatFormat(instruction="", system="", response_prefix="Calculation:")


@dataclass(frozen=True)
class Settings:
    """What the walkthrough fixes beforehand; prompts and sampling were chosen on the validation split.

    `held_out` limits the number of test problems, of which no two ask for the same calculation (None: all).
    """

    model: str = "smollm2-135m-instruct"
    seed: int = 0
    steps: int = 15
    held_out: int | None = None
    chat: ChatFormat = CHAT
    sampling: SamplingParams = field(default_factory=lambda: SamplingParams(max_new_tokens=28, temperature=0.6))
    training: TrainingParams = field(default_factory=lambda: TrainingParams(batch_size=16, learning_rate=1e-3))


def train_problems() -> list[Problem]:
    """Return the problems that the walkthrough trains on."""
    return builtin("one_step", "train")


def held_out_problems(limit: int | None = None) -> list[Problem]:
    """Return test problems; no two share a calculation, and none shares one with the training problems."""
    return one_per_key(builtin("one_step", "test"))[:limit]


def reference_view() -> View:
    """Return what the teacher sees in OPSD: this problem's solution."""
    return bare_solution


def control_view() -> View:
    """Return what it sees in the control: another problem's solution, under the very same words."""
    return other_problem(train_problems(), closing="")


def build_trainer(settings: Settings, view: View) -> Trainer:
    """Return a trainer of a freshly loaded policy with a fresh LoRA whose teacher sees `view`."""
    policy = add_lora(load_policy(settings.model), seed=settings.seed)
    contexts = ContextBuilder(policy.tokenizer, view, student=settings.chat, teacher=settings.chat)
    params = replace(settings.training, seed=settings.seed)
    return Trainer(policy, train_problems(), contexts, HFSampler(policy), settings.sampling, params=params)


def evaluate_greedily(policy: Policy, settings: Settings, name: str) -> Evaluation:
    """Return the accuracy of greedy decoding on the held-out problems; the policy sees only the question."""
    contexts = ContextBuilder(policy.tokenizer, student=settings.chat)
    params = replace(settings.sampling, temperature=0.0)
    with Grader() as grader:
        return evaluate(HFSampler(policy), held_out_problems(settings.held_out), contexts.student_prompt, params, grader, name=name)


def write_report(
    path: Path,
    settings: Settings,
    accuracy: Mapping[str, Estimate],
    ledgers: list[Ledger],
    *,
    evaluate_seconds: float,
    started: float,
) -> dict:
    """Write the walkthrough's figures as JSON and return them.

    `path` is the file. The report names the model and the seed of `settings`. `accuracy` has the keys before, after, control;
    `ledgers` are those of all trained arms; `evaluate_seconds` is the time of all evaluations; `started` is when the notebook began
    (`time.time()`). The seconds of the set-up are filled in by the command that made it.
    """
    total = Ledger()
    for ledger in ledgers:
        total = total.plus(ledger)
    report = {
        "model": settings.model,
        "seed": settings.seed,
        "n": accuracy["before"].n,
        "accuracy": {name: value.as_dict() for name, value in accuracy.items()},
        "seconds": {
            "setup": 0.0,
            "generate": round(total.seconds_generate, 1),
            "score": round(total.seconds_score, 1),
            "train": round(total.seconds_train, 1),
            "evaluate": round(evaluate_seconds, 1),
            "total": round(time.time() - started, 1),
        },
        "tokens": {"generated": total.tokens_generated, "scored": total.tokens_scored, "trained": total.tokens_trained},
        "peak_memory_gib": round(peak_memory_gib(), 2),
    }
    write_whole(path, json.dumps(report, indent=1) + "\n")
    return report
