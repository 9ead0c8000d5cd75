"""The page's fields about the family of methods: whose weights teach, which learning rates were tried, and what each gained."""

from collections.abc import Mapping

import pandas as pd

from opsd_lab.experiments.family import TASK_NAMES, TASKS, WATCHED, family_recipes
from opsd_lab.experiments.family_findings import (
    OPSD,
    SIGNIFICANCE,
    collapsed_methods,
    compare_methods,
    family_findings,
    name_of_method,
    search_gains,
)
from opsd_lab.experiments.family_pieces import marginal_effects, pieces_of
from opsd_lab.experiments.results_page.text import (
    Fields,
    accuracy,
    check,
    markdown,
    operations,
    read_table,
    search_table,
    seeds_of,
    study_command,
)
from opsd_lab.figures.family import BETTER, NEITHER, WORSE
from opsd_lab.figures.words import NUMBERS, interval
from opsd_lab.methods import METHODS
from opsd_lab.methods.page import CONFIRMED
from opsd_lab.studies.results import arm_table, changes, final_rows

STEADY = ("initial", "average .99", "copy every 50")
"""The teachers of which the page says that they never collapse."""
FOLLOWING = ("average .95", "live")
"""Those of which it says that training on chains with them harms worksheets."""


def teachers() -> Fields:
    """Return the fields of the study that sweeps the teacher's weights on both tasks of the sandbox."""
    results = {task: read_table(f"teachers_{task}") for task in TASKS}
    found = {task: arm_table(table, "initial").set_index("arm") for task, table in results.items()}
    forgot = {
        task: changes(results[task], [arm for arm in found[task].index if arm != "base"], [other]).set_index("arm")
        for task, other in zip(TASKS, reversed(TASKS), strict=True)
    }
    lines = []
    for arm in found[TASKS[0]].index:
        trained = [accuracy(found[task].loc[arm]) for task in TASKS]
        other = ["" if arm == "base" else interval(*forgot[task].loc[arm, ["mean", "low", "high"]]) for task in TASKS]
        lines.append([arm, *trained, *other])
    fallen = collapsed_methods(results, watched=WATCHED)
    check("the slow teachers never collapse", not fallen["method"].isin(STEADY).any())
    check("after training on worksheets no mean on chains is lower", (forgot["sheet"]["mean"] > 0).all())
    check("fast teachers on chains harm worksheets", (forgot["chain"].loc[list(FOLLOWING), "high"] < 0).all())
    last, (sheet, chain) = final_rows(results[TASKS[0]]), (TASK_NAMES[task] for task in TASKS)
    return {
        "teachers_commands": "` and `".join(
            study_command(f"teachers-{task}", f"teachers_{task}", table) for task, table in results.items()
        ),
        "teachers_seeds": seeds_of(results[TASKS[0]]),
        "teachers_operations": operations(last.loc[last["step"] > 0, "flops"].mean()),
        "teachers_rate": f"{last['learning_rate'].max():g}",
        "teachers_fell": "; ".join(f"{row.method} on {TASK_NAMES[row.task]} with {row.seeds} seeds" for row in fallen.itertuples()),
        "teachers": markdown(["teacher", sheet, chain, f"trained on {sheet}: {chain}", f"trained on {chain}: {sheet}"], lines),
    }


def rates(best: int = 3) -> Fields:
    """Return the fields of the search over the family's learning rates; the `best` methods are named."""
    table = read_table("family_search")
    gains, last = search_gains(table), final_rows(table, "validation").query("step > 0")
    chosen, highest = gains[gains["chosen"]], gains[gains["learning_rate"] == gains["learning_rate"].max()]
    kept = gains.groupby("method")["high"].max() < 0
    top = chosen.nlargest(best, "mean")
    return {
        "search_command": study_command("family-search", "family_search", table),
        "search_methods": gains["method"].nunique(),
        "search_rates": ", ".join(f"{rate:g}" for rate in sorted(gains["learning_rate"].unique())),
        "search_operations": operations(last["flops"].mean()),
        "search_problems": f"{last['n'].max()} validation problems, {last['samples'].max()} samples each",
        "search_above": (chosen["low"] > 0).sum(),
        "search_never": kept.sum(),
        "search_fell": (highest["high"] < 0).sum(),
        "search_fastest": f"{gains['learning_rate'].max():g}",
        "search_best": "; ".join(f"{row.method} {interval(row.mean, row.low, row.high)}" for row in top.itertuples()),
    }


def methods() -> Fields:
    """Return the fields of the comparison of all methods at equal operations."""
    results = {task: read_table(f"family_{task}") for task in TASKS}
    rows, fallen = compare_methods(results), collapsed_methods(results, watched=WATCHED)
    by_task = {task: of_task.set_index("arm") for task, of_task in rows.groupby("task", sort=False)}
    first, lines, gaining = by_task[TASKS[0]], [], _gaining(by_task)
    for arm in first.sort_values("mean", ascending=False).index:
        grade = CONFIRMED[METHODS[arm].grade] if arm in METHODS else ""
        line = [first.loc[arm, "method"], grade, f"{first.loc[arm, 'learning_rate']:g}"]
        for of_task in by_task.values():
            row = of_task.loc[arm]
            line += [f"{row['step']:.0f}", interval(*row[NUMBERS]), "" if row["verdict"] == NEITHER else row["verdict"]]
        lines.append(line)
    columns = ["method", "confirmed by", "learning rate"]
    columns += [name for task in by_task for name in (f"steps on {TASK_NAMES[task]}", "gain", "beside OPSD")]
    worth = [[row.piece, row.value, row.against, *row.worth, row.n] for row in _worth(results).itertuples()]
    last = final_rows(results[TASKS[0]]).query("step > 0")
    return {
        "family_commands": "` and `".join(
            study_command(f"family-{task}", f"family_{task}", table) for task, table in results.items()
        ),
        "family_published": sum(arm in METHODS for arm in rows["arm"].unique()),
        "family_others": rows["arm"].nunique() - 1,
        "family_level": f"{SIGNIFICANCE:g}",
        "family_gaining": len(gaining),
        "family_named": "; ".join(gaining),
        "family_seeds": seeds_of(results[TASKS[0]]),
        "family_operations": operations(last["flops"].mean()),
        "family_size": f"{last['n'].max()} test problems, {last['samples'].max()} samples each",
        "family_findings": "\n".join(f"- {sentence}" for sentence in family_findings(results)),
        "family": markdown(columns, lines),
        "family_effects": markdown(["piece", "value", "compared with", *map(TASK_NAMES.get, TASKS), "methods"], worth),
        "family_fell": markdown(list(fallen), fallen.replace({"task": TASK_NAMES}).astype(str).to_numpy().tolist()),
    }


def methods_on_smollm2() -> Fields:
    """Return the fields of the family's methods that were also trained on SmolLM2, beside what they gained in the sandbox."""
    results, search = read_table("family_smollm2"), read_table("family_smollm2_search")
    tables = {"SmolLM2": results} | {task: read_table(f"family_{task}") for task in TASKS}
    by_task = {task: rows.set_index("arm") for task, rows in compare_methods(tables).groupby("task", sort=False)}
    ours, lines = by_task["SmolLM2"].sort_values("mean", ascending=False), []
    for arm, row in ours.iterrows():
        beside = "" if row["verdict"] == NEITHER else row["verdict"]
        gains = [interval(*of_task.loc[arm, NUMBERS]) for of_task in by_task.values()]
        lines.append([row["method"], f"{row['learning_rate']:g}", gains[0], beside, operations(row["flops"]), *gains[1:]])
    check("OPSD and TIP alone are sure to gain", set(ours.index[ours["low"] > 0]) == {OPSD, "tip"})
    lost = set(ours.index[(ours["high"] < 0) & (ours["verdict"] == WORSE)])
    check(
        "Purified OPSD and the clip end below the initial policy, and are worse than OPSD", lost == {"purified_opsd", "opsd_clipped"}
    )
    sandbox = [by_task[task] for task in TASKS]
    check(
        "TIP gains in the sandbox too, and the clip loses",
        all(of.loc["tip", "low"] > 0 > of.loc["opsd_clipped", "high"] for of in sandbox),
    )
    check("Purified OPSD gains on worksheets", sandbox[0].loc["purified_opsd", "low"] > 0)
    columns = ["method", "learning rate", "gain", "beside OPSD", "operations"]
    columns += [f"gain in the sandbox: {TASK_NAMES[task]}" for task in TASKS]
    last, named = final_rows(results).query("step > 0"), search.assign(method=search["method"].map(name_of_method))
    return {
        "real_command": study_command("family-smollm2", "family_smollm2", results),
        "real_methods": len(ours),
        "real_seeds": seeds_of(results),
        "real_steps": last["step"].max(),
        "real_size": f"{last['n'].max()} test problems",
        "real_base": accuracy(arm_table(results, "base").set_index("arm").loc["base"]),
        "real": markdown(columns, lines),
        "real_search_command": study_command("family-smollm2-search", "family_smollm2_search", search),
        "real_search": search_table(named),
    }


def _gaining(by_task: Mapping[str, pd.DataFrame]) -> list[str]:
    """Return the methods beside OPSD that gain on every task and are worse than OPSD on none, the best on average first."""
    every = pd.concat(by_task.values())
    check("no method is better than OPSD on any task", not (every["verdict"] == BETTER).any())
    good = ((every["low"] > 0) & (every["verdict"] != WORSE)).groupby(level=0).all()
    arms = every["mean"].groupby(level=0).mean()[good].sort_values(ascending=False).index.drop(OPSD)
    pieces = [pieces_of(recipe) for recipe in family_recipes(list(arms)).values()]
    check("their divergence is reverse KL, and none clips", all(p["signal"] == "reverse KL" and not p["clip"] for p in pieces))
    return [METHODS[arm].name for arm in arms]


def _worth(results: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return what each piece is worth: piece, value, against, `worth` (a list with an interval for each task), n."""
    found = []
    for table in results.values():
        found.append(marginal_effects(final_rows(table).query("arm != 'base'"), family_recipes()))
    shown = [[interval(*row) for row in effects[NUMBERS].to_numpy()] for effects in found]
    return found[0].assign(worth=list(zip(*shown, strict=True)))
