"""The page's fields about the sandbox: OPSD beside simpler methods, and with one part changed."""

from pathlib import Path

import pandas as pd

from opsd_lab.experiments.results_page.notebook import rows
from opsd_lab.experiments.results_page.text import (
    CONTROL,
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
from opsd_lab.figures.words import interval, number
from opsd_lab.studies.results import arm_table, at_matched_cost, changes, final_rows

SFT = "SFT in own words"
SPLITS = {"easy": "easy", "chain": "chains", "recall": "lists"}
USELESS = ("SFT on references", CONTROL)  # they come to nothing at any learning rate


def baselines() -> Fields:
    """Return the fields of the study that compares OPSD with simpler methods."""
    results, search = read_table("sandbox_baselines"), read_table("sandbox_search")
    last, table = final_rows(results), arm_table(results, "OPSD").set_index("arm").sort_values("mean", ascending=False)
    matched, budget = _matched(results)
    flops = last.groupby("arm")["flops"].mean()
    check("SFT in own words is not behind OPSD after as many steps", table.loc[SFT, "p"] > 0.05)
    check("SFT in own words is ahead of OPSD for as many operations", matched[SFT].low > matched["OPSD"].high)
    check("SFT on references and the control come to nothing", (table.loc[list(USELESS), "mean"] < 0.01).all())
    lines = [[arm, *row, operations(flops[arm])] for arm, row in _with_changes(results, table).items()]
    at_cost = sorted(matched.items(), key=lambda item: -item[1].mean)
    return {
        "baselines_command": study_command("sandbox-baselines", "sandbox_baselines", results),
        "baselines_seeds": seeds_of(results),
        "sandbox_steps": int(last["step"].max()),
        "sandbox_size": f"{last['n'].max()} test worksheets, {last['samples'].max()} samples each",
        "candidates": search["learning_rate"].nunique(),
        "baselines": markdown(["arm", "accuracy", *SPLITS.values(), "operations"], lines),
        "budget": operations(budget),
        "matched": markdown(["arm", "accuracy"], [[arm, interval(i.mean, i.low, i.high)] for arm, i in at_cost]),
        "opsd_sandbox": accuracy(table.loc["OPSD"]),
        "sft_sandbox": accuracy(table.loc[SFT]),
        "opsd_matched": number(matched["OPSD"].mean, 2),
        "sft_matched": number(matched[SFT].mean, 2),
        "sandbox_search_size": f"{seeds_of(search)}, {search['n'].max()} validation worksheets",
        "sandbox_search_command": study_command("sandbox-search", "sandbox_search", search),
        "sandbox_search": search_table(search),
    }


def ablations() -> Fields:
    """Return the fields of the study that changes one part of OPSD at a time; OPSD itself is that of the other study, same seeds."""
    changed, beside = read_table("sandbox_ablations"), read_table("sandbox_baselines")
    shared = beside[beside["arm"].isin(["base", "OPSD"]) & beside["seed"].isin(changed["seed"])]
    results = pd.concat([shared, changed])
    table = arm_table(results, "OPSD").set_index("arm")
    check("a teacher that is the student itself collapses", table.loc["teacher: live", "mean"] < table.loc["base", "mean"])
    check("correct rollouts alone teach nothing", table.loc["gate: correct rollouts", "mean"] < 0.01)
    lines = [[arm, *row] for arm, row in _with_changes(results, table).items()]
    return {
        "ablations_command": study_command("sandbox-ablations", "sandbox_ablations", changed),
        "ablations_seeds": seeds_of(changed),
        "ablations_count": changed["arm"].nunique(),
        "ablations": markdown(["arm", "accuracy", *SPLITS.values()], lines),
    }


def contradicting(notebook: Path) -> Fields:
    """Return the field that only notebook 03 holds: how often the box contradicts the lines, after a few steps of each divergence."""
    found = rows(notebook, "results-contradicting")
    share = {row["trained with"]: float(row["contradicting"]) for row in found}
    check("forward KL makes the box contradict the lines", share["forward_kl"] > 2 * share["reverse_kl"])
    lines = [[text.replace("NaN", "") for text in row.values()] for row in found]
    return {"contradicting": markdown(list(found[0]), lines)}


def _matched(results: pd.DataFrame) -> tuple[dict, float]:
    """Return each useful arm's accuracy, over seeds, at the operations that the cheapest of them spends in all; and these."""
    found = at_matched_cost(results[~results["arm"].isin(USELESS)], "flops")
    return {row.arm: row for row in found.itertuples()}, found["budget"].iloc[0]


def _with_changes(results: pd.DataFrame, table: pd.DataFrame) -> dict[str, list[str]]:
    """Return each arm's accuracy and, on the splits that no arm trains on, what training changed."""
    trained = [arm for arm in table.index if arm != "base"]
    found = changes(results, trained, list(SPLITS)).set_index(["arm", "split"])
    shown = {"base": [accuracy(table.loc["base"]), *[""] * len(SPLITS)]}
    for arm in trained:
        shown[arm] = [accuracy(table.loc[arm]), *(interval(*found.loc[(arm, split), ["mean", "low", "high"]]) for split in SPLITS)]
    return {arm: shown[arm] for arm in table.index}
