"""A run's model as others load it: the adapter in peft's form or the whole model, with a card that says how it came about."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from peft import PeftModel

from opsd_lab.basics.files import write_folder_whole
from opsd_lab.policies.policy import Policy
from opsd_lab.runs.building import SANDBOX, policy_of
from opsd_lab.runs.keep import Best
from opsd_lab.runs.plan import DTYPES, ModelPlan, Plan, plan_from_toml
from opsd_lab.runs.run import Run
from opsd_lab.sandbox import FOLDER
from opsd_lab.training.checkpoints import load_weights

Form = Literal["adapter", "merged"]
FRACTIONS = ("accuracy", "teacher_accuracy", "truncated_answers")


def export(run: Run, out: str | Path, form: Form = "adapter", which: str = "last") -> Path:
    """Write a run's model into a folder `out` that is not there yet, whole or not at all, and return its path.

    `form` "adapter" writes the LoRA, which `load_policy` and peft load over the model that it was trained on; "merged" writes the
    whole model. A run that trained all weights has no adapter. `which` is "last", "best" (by the metric that the run kept its best
    by), or the number of a step that has a checkpoint.

    Raises:
        FileExistsError: when the folder is there.
        ValueError: for a run without a plan (it was trained from Python: save its policy), a step without a checkpoint, a form that
            the run does not have, a damaged checkpoint, or a model that has changed since.
    """
    out = Path(out)
    if out.exists():
        raise FileExistsError(f"{out} is there already; name another folder")
    plan = plan_of(run)
    if form == "adapter" and plan.model.trains == "all":
        raise ValueError(f"{run.folder} trained all weights, so there is no adapter; export the whole model with --form merged")
    step = chosen_step(run, plan, which)
    policy = policy_of(model_of(run, plan), plan.seed)
    load_weights(policy, run.path("checkpoints", step))
    return write_folder_whole(out, lambda folder: _write(folder, policy, run, plan, form, step))


def plan_of(run: Run) -> Plan:
    """Return the plan that a run was made of.

    Raises:
        ValueError: when it was made without one.
    """
    text = run.about.get("plan")
    if text is None:
        raise ValueError(f"{run.folder} was trained from Python, without a recipe file; save the policy's model from there")
    return plan_from_toml(text)


def model_of(run: Run, plan: Plan) -> ModelPlan:
    """Return the model that a run's `plan` names, in the precision that it had in the run, on whatever device is here."""
    # Beside weights in half precision a model may have buffers in float32.
    had = sorted(run.about["experiment"].get("the model's precision", "").split(", "), key="float32".__eq__)
    return replace(plan.model, dtype=had[0] if had[0] in DTYPES else plan.model.dtype, device=None)


def chosen_step(run: Run, plan: Plan, which: str) -> int:
    """Return the step that is meant by "last", "best" or a number.

    Raises:
        ValueError: when it has no checkpoint.
    """
    kept = list(run.kept("checkpoints"))
    if which == "last" and kept:
        return kept[-1]
    if which == "best":
        if plan.keep.best is None:
            raise ValueError(f"{run.folder} kept no best step; train with keep.best=accuracy, or take another step")
        best = Best(plan.keep.best, plan.keep.smaller_is_better)
        for row in run.steps.to_dict("records"):
            best.see(row)
        if not best.step:
            raise ValueError(f"{run.folder} has no step with the metric {plan.keep.best!r} of keep.best; take another step")
        which = str(best.step)
    if not which.isdigit() or int(which) not in kept:
        there = ", ".join(map(str, kept)) or "none"
        raise ValueError(f"{run.folder} has no checkpoint of step {which!r}; there are {there}, and the words last and best")
    return int(which)


def _write(folder: Path, policy: Policy, run: Run, plan: Plan, form: Form, step: int) -> None:
    base = str(FOLDER / "student") if plan.model.name == SANDBOX else plan.model.name
    if isinstance(policy.model, PeftModel) and form == "adapter":
        for config in policy.model.peft_config.values():
            config.base_model_name_or_path = base
        policy.model.save_pretrained(folder, save_embedding_layers=False)  # they are the base model's; peft would ask the hub
    else:
        # In float32: a LoRA's small changes would be rounded away from weights in half precision.
        whole = policy.model.float().merge_and_unload() if isinstance(policy.model, PeftModel) else policy.model
        whole.save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(card(run, plan, form, step), encoding="utf-8")


def card(run: Run, plan: Plan, form: Form, step: int) -> str:
    """Return the model card of a step: what it was trained from, the recipe, the results on the way, and how to load it.

    `run` and its `plan` say all of that, and `form` which library loads the model of this `step`.
    """
    experiment = run.about["experiment"]
    versions = {name.removeprefix("version of "): text for name, text in experiment.items() if name.startswith("version of ")}
    hub = plan.model.name if "/" in plan.model.name and not Path(plan.model.name).exists() else None
    head = ["---", *([f"base_model: {hub}"] if hub else []), f"library_name: {'peft' if form == 'adapter' else 'transformers'}"]
    head += ["tags:", "- on-policy-self-distillation", "---", ""]
    rows = [row for row in run.steps.to_dict("records") if row["step"] <= step]
    last = rows[-1]
    body = [
        f"# {plan.model.name.rpartition('/')[2]}, trained by on-policy self-distillation",
        "",
        f"Step {step} of {plan.steps}, on {run.about['problems']:,} problems of `{plan.data.train}`. "
        f"{last['tokens_generated']:,.0f} tokens were written, {last['tokens_trained']:,.0f} trained on.",
        "",
        *_results(run, plan, step),
        "## Load it",
        "",
        "```python",
        "from opsd_lab import load_policy",
        "",
        'policy = load_policy("this folder")',
        "```",
        "",
        "## Recipe",
        "",
        "```toml",
        run.about["plan"].rstrip(),
        "```",
        "",
        "Versions: " + ", ".join(f"{name} {text}" for name, text in versions.items()) + ".",
        "",
    ]
    return "\n".join(head + body)


def _results(run: Run, plan: Plan, step: int) -> list[str]:
    measured = {number: row for number, row in run.measured.items() if number <= step}
    if not measured:
        return []
    names = [name for name in FRACTIONS if any(name in row for row in measured.values())]
    lines = [f"| step | {' | '.join(name.replace('_', ' ') for name in names)} |", "| --- " * (len(names) + 1) + "|"]
    lines += [f"| {number} | {' | '.join(_share(row, name) for name in names)} |" for number, row in measured.items()]
    held = f"`{plan.data.validation}`" if plan.data.validation else f"the {plan.data.held_out} that were held out"
    about = f"Measured on {plan.probe.problems} problems at most of {held}; 95 % intervals over problems."
    return ["## Results on the way", "", *lines, "", about, ""]


def _share(row: dict[str, float], name: str) -> str:
    if name not in row:
        return ""
    bounds = f" [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]" if f"{name}_low" in row else ""
    return f"{row[name]:.2f}{bounds}"
