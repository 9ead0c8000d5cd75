"""`evaluate`: the accuracy of any model, or of a run's, on any problems."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from opsd_lab.basics.files import write_whole
from opsd_lab.basics.schedules import at_step
from opsd_lab.commands.train import read_plan
from opsd_lab.contexts import ChatFormat, ContextBuilder
from opsd_lab.evaluation.evaluate import evaluate as evaluate_policy
from opsd_lab.evaluation.outcomes import By
from opsd_lab.figures.words import number
from opsd_lab.grading import Grader
from opsd_lab.policies.policy import Policy
from opsd_lab.policies.teachers import Teacher, fixed_teacher, live_teacher
from opsd_lab.problems.problem import Problem
from opsd_lab.rollouts import SamplingParams
from opsd_lab.runs import Run
from opsd_lab.runs.building import apart, policy_of, problems_named, sampler_of
from opsd_lab.runs.export import chosen_step, model_of, plan_of
from opsd_lab.runs.plan import GREEDY, DataPlan, Engine, ModelPlan, Plan
from opsd_lab.training.checkpoints import load_weights


def evaluate(
    model: Positional[str],
    *,
    data: str | None = None,
    columns: Annotated[tuple[str, ...], arg(metavar="FIELD=COLUMN")] = (),
    limit: int | None = None,
    n: int | None = None,
    temperature: float | None = None,
    max_new_tokens: int | None = None,
    recipe: Path | None = None,
    step: str = "last",
    by: By | None = None,
    engine: Engine = "transformers",
    seed: int = 0,
    out: Path | None = None,
) -> None:
    """Print the accuracy of a model on problems, with its 95 % interval: avg@n, pass@n and maj@n.

    Args:
        model: a run's folder, a hub id, a model's folder, a GGUF file, or a packaged model.
        data: the problems, by a name that a recipe file takes; left out, those that the run or recipe tests on or holds out.
        columns: which column of the data holds which field, such as question=problem.
        limit: how many rows are read at most.
        n: completions for each problem; left out, as many as the run or recipe measures with, else 1.
        temperature: 0 for greedy answers; left out, that at which the run or recipe measures, else 0.
        max_new_tokens: how long an answer may be; left out, as long as where the run or recipe measures, else 1024.
        recipe: a recipe file whose chat format and sampling are taken; a run has its own.
        step: of a run: last, best, or the number of a step that has a checkpoint.
        by: which answer of a completion counts; left out, that which the run or recipe measures by, else the final one.
        engine: what writes.
        seed: that of sampling.
        out: a Parquet file for every answer with its verdicts; left out, none is written.
    """
    policy, plan, _ = policy_named(model, recipe, step, engine)
    source, problems = problems_for(plan, data, columns, limit)
    chat = ChatFormat() if plan is None else plan.evaluation_format
    contexts = ContextBuilder(policy.tokenizer, student=chat)
    measured = GREEDY if plan is None else plan.probe.drawn
    asked = {"max_new_tokens": max_new_tokens, "temperature": temperature, "n": n}
    params = sampling_of(plan, 1024, **measured | {name: value for name, value in asked.items() if value is not None}, seed=seed)
    n, by = params.n, by or ("final" if plan is None else plan.probe.by)
    sampler = sampler_of(ModelPlan(engine=engine), policy)
    with Grader() as grader, sampler if hasattr(sampler, "__exit__") else nullcontext():
        found = evaluate_policy(sampler, problems, contexts.student_prompt, params, grader, name=model)
    print(f"{model} on {source}, {len(problems)} problems, {n} answers each, judged by the {by} answer")
    for name, estimate in {"avg": found.accuracy(by), "pass": found.pass_at_k(n, by), "maj": found.maj_at_k()}.items():
        if n > 1 or name == "avg":
            print(f"  {name}@{n} {number(estimate.mean, 3)} [{number(estimate.low, 3)}, {number(estimate.high, 3)}]")
    print(f"  {found.truncation_rate:.0%} cut at {params.max_new_tokens} tokens, {found.mean_length:.0f} tokens on average")
    if out is not None:
        write_whole(out, partial(found.rows.to_parquet, index=False, compression="zstd"))
        print(f"  answers in {out}")


def problems_for(plan: Plan | None, data: str | None, columns: Sequence[str], limit: int | None) -> tuple[str, list[Problem]]:
    """Return the name of some problems and the problems, after printing how their rows were read.

    `data` names them; left out, they are the `plan`'s test problems, those that it validates on, or those that it holds out.
    `columns` has entries such as "question=problem", and `limit` is how many there are at most.

    Raises:
        FileNotFoundError, ValueError: where there are none, or as `open_problems` does.
    """
    if wrong := [pair for pair in columns if "=" not in pair]:
        raise ValueError(f"{wrong[0]!r} names no column; write it as question=problem")
    if columns and not data:
        raise ValueError("--columns is about the problems of --data; name them, or leave it out")
    name = data or (plan and (plan.data.test or plan.data.validation)) or ""
    if not name and plan and plan.data.held_out:
        train, report = problems_named(plan.data.train, plan.data)
        print(report, flush=True)
        return f"{plan.data.train}, held out", apart(train, plan.data.held_out, plan.seed)[1][:limit]
    if not name:
        raise ValueError("there are no problems to look at; name them with --data, such as --data builtin:one_step/test")
    own = plan.data.columns if plan and not data else {}
    named = dict(pair.split("=", 1) for pair in columns)
    problems, report = problems_named(name, DataPlan(name, columns=own | named, limit=limit))
    print(report, flush=True)
    return name, problems


def sampling_of(plan: Plan | None, longest: int, **wanted: float | None) -> SamplingParams:
    """Return the sampling of a `plan` with what is `wanted` and not None in its place; without a plan, up to `longest` tokens."""
    own = SamplingParams(longest) if plan is None else at_step(replace(plan.sampling, **plan.recipe.sampling), 1)
    return replace(own, **{name: value for name, value in wanted.items() if value is not None})


def policy_named(model: str, recipe: Path | None, step: str, engine: Engine = "transformers") -> tuple[Policy, Plan | None, Teacher]:
    """Return the policy of a run's folder at a `step`, or that of another name, with the plan and the teacher.

    `model` is the name. The plan is the run's, or that of a `recipe` file. The teacher of a run has its initial weights, that of any
    other model the model's own. `engine` is what will write.

    Raises:
        FileNotFoundError, OSError, ValueError: for a model, a step or a recipe file that is not there.
    """
    if (Path(model) / "run.json").exists():
        run = Run.open(model)
        plan = plan_of(run)
        policy = policy_of(model_of(run, plan), plan.seed)
        teacher = fixed_teacher(policy)  # of the initial weights, which are in place until the next line
        load_weights(policy, run.path("checkpoints", chosen_step(run, plan, step)))
        return policy, plan, teacher
    plan = read_plan(recipe) if recipe else None
    wanted = replace(plan.model if plan else ModelPlan(), name=model, trains="all", engine=engine)
    return policy_of(wanted), plan, live_teacher()
