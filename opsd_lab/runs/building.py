"""What a plan names, made: the policy, the problems, the trainer and the probe."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from opsd_lab.basics.arrow_rows import one_line
from opsd_lab.basics.schedules import at_step
from opsd_lab.contexts import ContextBuilder
from opsd_lab.evaluation.rewards import AnswerReward
from opsd_lab.grading import Grader
from opsd_lab.policies.adapters import has_adapter
from opsd_lab.policies.policy import Policy, add_lora, load_policy
from opsd_lab.problems.opening import Opened, Report, open_problems
from opsd_lab.problems.problem import Problem
from opsd_lab.rollouts import HFSampler, VLLMSampler
from opsd_lab.rollouts.base import Sampler
from opsd_lab.runs.plan import DataPlan, ModelPlan, Plan
from opsd_lab.runs.probe import Probe
from opsd_lab.runs.trackers import check_trackers
from opsd_lab.sandbox import load_sandbox, worksheets
from opsd_lab.training.trainer import Trainer

SANDBOX = "sandbox"


@dataclass(frozen=True)
class Built:
    """What a plan came to: the trainer with its policy, the probe (None without validation problems), and how the rows were read."""

    policy: Policy
    trainer: Trainer
    probe: Probe | None
    reports: tuple[Report, ...]


def build(plan: Plan, grader: Grader) -> Built:
    """Return what a plan names; `grader` judges answers, in training and on the way.

    Raises:
        FileNotFoundError, OSError: for a model or data that are not there.
        ValueError: for what the model, the data, the recipe or the trainer refuse.
    """
    check_trackers(plan.trackers)
    train, train_report = problems_named(plan.data.train, plan.data)
    held, reports = [], [train_report]
    if plan.data.held_out:
        train, held = apart(train, plan.data.held_out, plan.seed)
    if plan.data.validation is not None:
        held, report = problems_named(plan.data.validation, plan.data)
        reports.append(report)
    policy = policy_of(plan.model, plan.seed)
    if has_adapter(policy.model) and plan.model.trains == "all":
        raise ValueError(
            f"model.name: {plan.model.name!r} is a LoRA, which trains on with model.trains=lora; merge it for all weights"
        )
    sampler = sampler_of(plan.model, policy)
    params = replace(plan.training, seed=plan.seed)
    recipe = replace(plan.recipe, teacher_chat=plan.recipe.teacher_chat or plan.teacher_chat)
    trainer = recipe.trainer(
        policy, train, plan.chat, sampler, plan.sampling, params, AnswerReward(grader, plan.probe.by), plan.rollouts
    )
    probe = probe_of(plan, held, policy, grader) if held else None
    return Built(policy, trainer, probe, tuple(reports))


def apart(problems: Sequence[Problem], count: int, seed: int) -> tuple[list[Problem], list[Problem]]:
    """Return problems in their order without some that a seed draws, and those; who asks what one of those asks is left out.

    Raises:
        ValueError: when none would be left.
    """
    if count >= len(problems):
        raise ValueError(f"data.held_out is {count}, and there are {len(problems)} problems; hold out fewer")
    drawn = set(np.random.default_rng(seed).choice(len(problems), count, replace=False).tolist())
    held = [problem for i, problem in enumerate(problems) if i in drawn]
    asked = {problem.question.strip() for problem in held}
    if not (kept := [problem for problem in problems if problem.question.strip() not in asked]):
        raise ValueError(f"data.held_out is {count}, and the questions of those that are left are held out too; hold out fewer")
    return kept, held


@contextmanager
def named_model(name: str) -> Iterator[None]:
    """Let what goes wrong with a model inside the block name the model, on one line."""
    try:
        yield
    except (OSError, ValueError) as error:
        kind = OSError if isinstance(error, OSError) else ValueError  # some kinds of both take other arguments
        raise kind(f"model.name: {name!r} cannot be loaded: {one_line(error)}") from error


def policy_of(model: ModelPlan, seed: int = 0) -> Policy:
    """Return the policy that a plan names, with what shall train of it; a LoRA that was trained before trains on as it is.

    Raises:
        FileNotFoundError, OSError, ValueError: as `load_policy` and `add_lora` do.
    """
    with named_model(model.name):
        if model.name == SANDBOX:
            policy = load_sandbox(device=model.device or "cpu")
        else:
            policy = load_policy(model.name, dtype=model.dtype, device=model.device)
    if has_adapter(policy.model):
        return policy
    if model.trains == "lora":
        return add_lora(policy, rank=model.rank, alpha=model.alpha, seed=seed, targets=model.targets)
    policy.model.requires_grad_(True)
    return policy


def sampler_of(model: ModelPlan, policy: Policy) -> Sampler:
    """Return what continues a policy's prompts.

    Raises:
        ImportError, ValueError: as `VLLMSampler` does.
    """
    return VLLMSampler(policy) if model.engine == "vllm" else HFSampler(policy, progress=False)


def problems_named(name: str, data: DataPlan) -> Opened:
    """Return the problems of a name in a plan's data, "sandbox:sheet/train/2048" among them.

    Raises:
        FileNotFoundError, ValueError: as `open_problems` does.
    """
    kind, _, rest = name.partition(":")
    if kind != SANDBOX:
        return open_problems(name, data.columns, limit=data.limit)
    parts = rest.split("/")
    if len(parts) != 3 or not parts[2].isdigit():
        raise ValueError(f"{name!r} names no worksheets; write task, split and number, such as sandbox:sheet/train/2048")
    found = worksheets(parts[0], parts[1], int(parts[2]))[: data.limit]
    return Opened(found, Report(name, rows=len(found), kept=len(found)))


def probe_of(plan: Plan, problems: Sequence[Problem], policy: Policy, grader: Grader) -> Probe:
    """Return the probe of a `plan` on some `problems`, which has the `policy`'s tokenizer and asks the `grader`."""
    wanted = plan.probe
    sampling = replace(at_step(plan.sampling, 1), seed=plan.seed, **wanted.drawn)
    contexts = ContextBuilder(policy.tokenizer, student=plan.evaluation_format)
    chosen = tuple(problems[: wanted.problems])
    return Probe(chosen, grader, sampling, wanted.every, wanted.by, wanted.teacher, contexts)
