"""`diagnose`: what a teacher teaches token by token, for any model with problems or with rollouts that exist, as a page."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import pandas as pd
from tyro.conf import Positional, arg

from opsd_lab.basics.schedules import at_step
from opsd_lab.commands.evaluate import policy_named, problems_for, sampling_of
from opsd_lab.contexts import ChatFormat, View
from opsd_lab.contexts.views import needs_rollout
from opsd_lab.diagnostics import (
    by_view,
    divergence_by_class,
    divergence_by_quarter,
    mean_by_position,
    result_digits,
    sign_noise,
    step_gap,
    top_tokens,
)
from opsd_lab.experiments.supervision_study import study_tables, study_views
from opsd_lab.figures.gap_distributions import draw_gap_distributions
from opsd_lab.figures.report import Section, write_report
from opsd_lab.figures.supervision import draw_divergence_by_class, draw_intervals, draw_mean_by_position
from opsd_lab.figures.training import draw_top_tokens
from opsd_lab.policies.policy import Policy
from opsd_lab.problems.problem import Problem
from opsd_lab.rollouts import Rollout, SamplingParams, load_rollouts
from opsd_lab.runs.building import sampler_of
from opsd_lab.runs.plan import ModelPlan, Plan
from opsd_lab.supervision.kept_rollouts import kept_rollouts
from opsd_lab.token_view import render_views
from opsd_lab.tokens.table import TokenTable


def diagnose(
    model: Positional[str],
    *,
    out: Path,
    data: str | None = None,
    columns: Annotated[tuple[str, ...], arg(metavar="FIELD=COLUMN")] = (),
    limit: int = 64,
    rollouts: Path | None = None,
    n: int = 2,
    temperature: float | None = None,
    max_new_tokens: int | None = None,
    recipe: Path | None = None,
    step: str = "last",
    views: tuple[str, ...] = (),
    show: int = 3,
    seed: int = 0,
) -> None:
    """Write a page on what the teacher's views teach a model on its rollouts: by position, class of token, step and view.

    The folder keeps rollouts and scores too, so that the same command goes on where it stopped.

    Args:
        model: a run's folder, a hub id, a model's folder, a GGUF file, or a packaged model. A run's teacher has its initial weights.
        out: the folder for the page, report.html, and what it is made of.
        data: the problems, by a name that a recipe file takes; left out, those that the run or recipe tests on or holds out.
        columns: which column of the data holds which field, such as question=problem.
        limit: how many problems are looked at.
        rollouts: rollouts that exist, a file of save_rollouts or a run's; left out, the model writes some.
        n: rollouts for each problem.
        temperature: at which they are drawn; left out, the run's or recipe's, else 1.
        max_new_tokens: how long they may be; left out, the run's or recipe's, else 512.
        recipe: a recipe file whose chat formats, view and sampling are taken; a run has its own.
        step: of a run: last, best, or the number of a step that has a checkpoint.
        views: of recipe (what the run or recipe shows), reference, answer, hints, half, wrong, other problem, none; those that the
            problems allow are taken. Left out, recipe or else reference, with answer, other problem and none.
        show: how many rollouts are shown token by token.
        seed: that of sampling.
    """
    policy, plan, teacher = policy_named(model, recipe, step)
    name, problems = problems_for(plan, data, columns, limit if rollouts is None else None)
    chat, teacher_chat = (ChatFormat(), ChatFormat()) if plan is None else (plan.student_format, plan.teacher_format)
    params = sampling_of(plan, 512, temperature=temperature, max_new_tokens=max_new_tokens, n=n, seed=seed)
    written = _rollouts(rollouts, out, policy, problems, chat, params)
    known = {rollout.problem_id for rollout in written}
    problems = [problem for problem in problems if problem.id in known]
    if len(problems) > limit:
        print(f"looking at the first {limit} of {len(problems)} problems with rollouts; --limit takes more", flush=True)
        problems = problems[:limit]
        kept = {problem.id for problem in problems}
        written = [rollout for rollout in written if rollout.problem_id in kept]
    own = recipe_view(plan)
    chosen = usable_views(problems, views or ("recipe" if own else "reference", "answer", "other problem", "none"), own)
    tables = study_tables(
        policy, teacher, problems, written, chosen, chat=chat, teacher_chat=teacher_chat, top_k=20, parts=out / "scores"
    )
    about = f"{len(written)} rollouts of {len(problems)} problems of {name}, under the views {', '.join(chosen)}"
    path = write_report(out / "report.html", f"What the teacher teaches {policy.name}", about, sections(tables, problems, show))
    print(f"{about}\n{path}")


def recipe_view(plan: Plan | None) -> dict[str, View]:
    """Return a plan's view as the view "recipe"; nothing where there is no single one that needs the problem alone."""
    view = plan and plan.recipe.view
    plain = callable(view) and not needs_rollout(view) and not hasattr(view, "begin") and at_step(view, 1) is view
    return {"recipe": view} if plain else {}


def usable_views(problems: Sequence[Problem], names: Sequence[str], own: Mapping[str, View]) -> dict[str, View]:
    """Return the views of these `names` that all `problems` have something for, by name; `own` are views beside the study's.

    Raises:
        ValueError: for an unknown name, or where none is left.
    """
    every = own | study_views(problems)
    if unknown := [name for name in names if name not in every]:
        raise ValueError(f"there is no view {unknown[0]!r}; there are {', '.join(every)}")
    found = {}
    for name in names:
        try:
            _ = [every[name](problem) for problem in problems]
        except ValueError as error:
            warnings.warn(f"the view {name!r} is left out: {error}", stacklevel=2)
        else:
            found[name] = every[name]
    if not found:
        raise ValueError("none of the views has something to show for every problem; give the problems solutions")
    return found


def _rollouts(
    given: Path | None, out: Path, policy: Policy, problems: Sequence[Problem], chat: ChatFormat, params: SamplingParams
) -> list[Rollout]:
    """Return the rollouts of these problems that are given, or that the policy writes now or wrote before."""
    if given is None:
        return kept_rollouts(policy, problems, params, chat, out, sampler_of(ModelPlan(), policy))
    ids = {problem.id for problem in problems}
    every = load_rollouts(given)
    found = [rollout for rollout in every if rollout.problem_id in ids]
    if not found:
        raise ValueError(f"{given} has no rollout of these problems; name the data that they were written of")
    if left := len(every) - len(found):
        print(f"{given}: {left:,} of {len(every):,} rollouts are of other problems", flush=True)
    return found


def sections(tables: dict[str, TokenTable], problems: Sequence[Problem], show: int) -> list[Section]:
    """Return what the page shows of token tables, one for each view; the first is looked at closest."""
    name, table = next(iter(tables.items()))
    steps = table.frame[table.frame["step"] >= 0].drop_duplicates(["rollout", "step"])
    crossed = pd.crosstab(steps["label"], steps["outcome"], margins=True).reset_index().rename_axis(columns=None)
    found = [
        Section(
            "Steps and outcomes",
            "A step is an equation in the text, checked exactly. The columns say whether the final answer of its rollout is right.",
            [crossed],
        ),
        Section(
            "Where the divergence is large",
            f"Shares of the divergence by quarter of a rollout, the gap by position, and the divergence by class of token, under "
            f"{name}. Intervals are at 95 %, over problems.",
            [
                divergence_by_quarter(table),
                draw_mean_by_position(mean_by_position(table, bins=8)),
                draw_divergence_by_class(divergence_by_class(table)),
                draw_top_tokens(top_tokens(table)),
            ],
        ),
        Section("Tokens", _reading(name), [_closest(tables, problems, show)] if show else []),
    ]
    if {"correct", "incorrect"} <= set(steps["label"]):
        digits = by_view(result_digits, tables).sort_values("group", kind="stable")
        gaps = by_view(step_gap, tables)
        gaps = gaps[(gaps["per"] == "token") & (gaps["label"] == "incorrect - correct")]
        found.insert(
            2,
            Section(
                "Is the gap negative on wrong steps?",
                "The gap is the teacher's minus the student's log-probability of the token that was written. Results of incorrect "
                "steps are wrong; a correct result that is the final answer is apart from one that is not.",
                [
                    draw_gap_distributions(table),
                    draw_intervals(digits, ["group", "view"], "mean gap (nats)", "Gap on the digits of a result, by view"),
                    draw_intervals(gaps, "view", "incorrect - correct (nats)", "Gap on all tokens of a step"),
                    sign_noise(table),
                ],
            ),
        )
    return found


def _reading(name: str) -> str:
    return (
        f"The rollouts with the largest sums of divergence under {name}. Orange tokens are less likely to the teacher than to the "
        "student, blue ones likelier. Point at a token to read its numbers."
    )


def _closest(tables: dict[str, TokenTable], problems: Sequence[Problem], show: int) -> object:
    table = next(iter(tables.values()))
    largest = table.frame.groupby("rollout")["divergence"].sum().nlargest(show).index
    beside = [name for name in ("other problem", *tables) if name in tables and name != next(iter(tables))]
    first = {name: tables[name] for name in (next(iter(tables)), *beside[:1])}
    views = [render_views(first, rollout=int(number)) for number in largest]
    return replace(views[0], html='<div style="height:12px"></div>'.join(view.html for view in views))
