"""A tiny language model trained from scratch in minutes, with tasks whose steps are exactly checkable: for hundreds of experiments.

It is a model like any other: a folder that `load_policy` reads, `Problem`s, the usual views, samplers, labels and trainer.
"""

from pathlib import Path

import pandas as pd
import torch

from opsd_lab.contexts import ContextBuilder
from opsd_lab.evaluation.evaluate import evaluate
from opsd_lab.grading import Grader
from opsd_lab.policies.policy import Policy, load_policy
from opsd_lab.rollouts import HFSampler, SamplingParams
from opsd_lab.sandbox.pretraining import CHAT, VIEWS, Pretraining, Size, pretrain, save_small, shown_own_words
from opsd_lab.sandbox.worksheet import TASKS, own_solution, worksheets

__all__ = [
    "CHAT",
    "FOLDER",
    "PLANS",
    "TASKS",
    "accuracies",
    "load_sandbox",
    "make_sandbox",
    "own_solution",
    "shown_own_words",
    "worksheets",
]

FOLDER = Path(__file__).with_name("models")
PLANS = {
    "student": Pretraining(Size(hidden=128, layers=3, intermediate=384), steps=700),
    "expert": Pretraining(
        Size(hidden=160, layers=4, intermediate=448), steps=900, views=(("none", 0.85), ("reference", 0.15)), mistakes=0.1
    ),
}


def load_sandbox(name: str = "student", folder: Path = FOLDER, *, device: str = "cpu") -> Policy:
    """Load the sandbox's model in float32; "expert" is the larger one that can do without privileged information.

    Raises:
        ValueError: for another name.
        FileNotFoundError: when it is not there; the message says how it is made.
    """
    if name not in PLANS:
        raise ValueError(f"no sandbox model {name!r}; there are {', '.join(PLANS)}")
    if not (folder / name / "config.json").exists():
        raise FileNotFoundError(f"{folder / name} has no model; make it with `python -m opsd_lab sandbox --name {name}`")
    policy = load_policy(folder / name, dtype=torch.float32, device=device)
    return Policy(f"sandbox {name}", policy.model, policy.tokenizer)


def make_sandbox(name: str = "student", folder: Path = FOLDER) -> Policy:
    """Train the sandbox's model from scratch, write it, and return it as `load_sandbox` does.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in PLANS:
        raise ValueError(f"no sandbox model {name!r}; there are {', '.join(PLANS)}")
    save_small(pretrain(PLANS[name]), folder / name)
    return load_sandbox(name, folder)


def accuracies(policy: Policy, size: int = 128) -> pd.DataFrame:
    """Return the policy's accuracy by task and view, greedy and at temperature 1: task, view, greedy, sampled, n."""
    rows = []
    with Grader() as grader:
        for task in TASKS:
            problems = worksheets(task, "test", size)
            for view in VIEWS if task in ("sheet", "chain") else ("none", "reference"):
                contexts = ContextBuilder(policy.tokenizer, VIEWS[view], student=CHAT, teacher=CHAT)
                prompts = {problem.id: list(contexts.build(problem).teacher_ids) for problem in problems}
                row = {"task": task, "view": view}
                for name, temperature in (("greedy", 0.0), ("sampled", 1.0)):
                    params = SamplingParams(64, temperature=temperature)
                    sampler = HFSampler(policy, progress=False)
                    found = evaluate(sampler, problems, lambda problem, prompts=prompts: prompts[problem.id], params, grader)
                    row[name] = found.accuracy().mean
                rows.append(row | {"n": size})
    return pd.DataFrame(rows)
