"""`evaluate`: the accuracy of any model, or of a run's, on any problems."""

from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from opsd_lab.basics.files import write_whole
from opsd_lab.commands.train import read_plan
from opsd_lab.contexts import ChatFormat, ContextBuilder
from opsd_lab.evaluation.evaluate import evaluate as evaluate_policy
from opsd_lab.evaluation.outcomes import By
from opsd_lab.figures.words import number
from opsd_lab.grading import Grader
from opsd_lab.policies.policy import Policy
from opsd_lab.rollouts import SamplingParams
from opsd_lab.runs import Run
from opsd_lab.runs.building import named_model, policy_of, problems_named, sampler_of
from opsd_lab.runs.export import chosen_step, plan_of
from opsd_lab.runs.plan import DataPlan, Engine, ModelPlan, Plan
from opsd_lab.training.checkpoints import load_weights


def evaluate(
    model: Positional[str],
    *,
    data: str | None = None,
    columns: Annotated[tuple[str, ...], arg(metavar="FIELD=COLUMN")] = (),
    limit: int | None = None,
    n: int = 1,
    temperature: float = 0.0,
    max_new_tokens: int = 1024,
    recipe: Path | None = None,
    step: str = "last",
    by: By = "final",
    engine: Engine = "transformers",
    seed: int = 0,
    out: Path | None = None,
) -> None:
    """Print the accuracy of a model on problems, with its 95 % interval: avg@n, pass@n and maj@n.

    Args:
        model: a run's folder, a hub id, a model's folder, or the embedded model.
        data: the problems, by a name that a recipe file takes; left out, the run's or recipe's test problems.
        columns: which column of the data holds which field, such as question=problem.
        limit: how many rows are read at most.
        n: completions for each problem.
        temperature: 0 for greedy answers.
        max_new_tokens: how long an answer may be.
        recipe: a recipe file whose chat format is taken; a run has its own.
        step: of a run: last, best, or the number of a step that has a checkpoint.
        by: which answer of a completion counts.
        engine: what writes.
        seed: that of sampling.
        out: a Parquet file for every answer with its verdicts; left out, none is written.
    """
    policy, plan = _policy(model, recipe, step, engine)
    named = dict(pair.partition("=")[::2] for pair in columns)
    source = DataPlan(data or (plan.data.test or plan.data.validation if plan else ""), columns=named, limit=limit)
    if not source.train:
        raise ValueError("there are no problems to evaluate on; name them with --data, such as --data builtin:one_step/test")
    problems, report = problems_named(source.train, source)
    print(report, flush=True)
    chat = ChatFormat() if plan is None else plan.evaluation_chat or plan.recipe.evaluation_chat or plan.chat
    contexts = ContextBuilder(policy.tokenizer, student=chat)
    params = SamplingParams(max_new_tokens, temperature=temperature, n=n, seed=seed)
    sampler = sampler_of(ModelPlan(engine=engine), policy)
    with Grader() as grader, sampler if hasattr(sampler, "__exit__") else nullcontext():
        found = evaluate_policy(sampler, problems, contexts.student_prompt, params, grader, name=model)
    print(f"{model} on {source.train}, {len(problems)} problems, {n} answers each, judged by the {by} answer")
    for name, estimate in {"avg": found.accuracy(by), "pass": found.pass_at_k(n, by), "maj": found.maj_at_k()}.items():
        if n > 1 or name == "avg":
            print(f"  {name}@{n} {number(estimate.mean, 3)} [{number(estimate.low, 3)}, {number(estimate.high, 3)}]")
    print(f"  {found.truncation_rate:.0%} cut at {max_new_tokens} tokens, {found.mean_length:.0f} tokens on average")
    if out is not None:
        write_whole(out, partial(found.rows.to_parquet, index=False, compression="zstd"))
        print(f"  answers in {out}")


def _policy(model: str, recipe: Path | None, step: str, engine: Literal["transformers", "vllm"]) -> tuple[Policy, Plan | None]:
    if (Path(model) / "run.json").exists():
        run = Run.open(model)
        plan = plan_of(run)
        policy = policy_of(plan.model, plan.seed)
        load_weights(policy, run.path("checkpoints", chosen_step(run, plan, step)))
        return policy, plan
    plan = read_plan(recipe) if recipe else None
    wanted = replace(plan.model if plan else ModelPlan(), name=model, trains="all", engine=engine)
    with named_model(model):
        return policy_of(wanted), plan
