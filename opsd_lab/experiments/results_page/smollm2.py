"""The page's fields about SmolLM2: the walkthrough over several seeds, and the study whose arms are tuned."""

import pandas as pd

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
from opsd_lab.experiments.study_tables import seed_accuracies, seeds_table
from opsd_lab.experiments.walkthrough import Settings
from opsd_lab.figures.words import number
from opsd_lab.studies.results import arm_table, choose, final_rows


def walkthrough() -> Fields:
    """Return the fields of the walkthrough's runs over several seeds."""
    results, settings = read_table("walkthrough"), Settings()
    found = {split: of_split.set_index("arm") for split, of_split in seed_accuracies(results).groupby("split", sort=False)}
    last, boxed = found["test"], found["test, boxed"]
    helped = last.loc["OPSD", "low"] > last.loc["base", "high"]
    check("OPSD helps and the control harms", helped and last.loc["control", "mean"] < last.loc["base", "mean"])
    check("boxed answers lag", bool((boxed["mean"] < last["mean"]).all()))
    return {
        "model": settings.model,
        "steps": settings.steps,
        "batch": settings.training.batch_size,
        "rate": f"{settings.training.learning_rate:g}",
        "seeds": results.loc[results["arm"] == "OPSD", "seed"].nunique(),
        "held_out": results["n"].max(),
        "walkthrough": seeds_table(results),
        "walkthrough_command": study_command("walkthrough", "walkthrough", results),
        "base": number(last.loc["base", "mean"], 2),
        "opsd": number(last.loc["OPSD", "mean"], 2),
        "control_walkthrough": number(last.loc["control", "mean"], 2),
    }


def tuned() -> Fields:
    """Return the fields of the study in which each arm has its own learning rate."""
    results, search = read_table("smollm2"), read_table("smollm2_search")
    rates = choose(search).set_index("method")["learning_rate"].map("{:g}".format)
    table, flops = arm_table(results, "OPSD").set_index("arm"), final_rows(results).groupby("arm")["flops"].mean()
    control = table.loc[CONTROL]
    check("the tuned control learns nothing", control["low"] < table.loc["base", "mean"] < control["high"])
    check("SFT is ahead of OPSD for fewer operations", _ahead(table, flops))
    lines = [[arm, rates.get(arm, ""), accuracy(row), operations(flops[arm])] for arm, row in table.iterrows()]
    return {
        "smollm2_command": study_command("smollm2", "smollm2", results),
        "smollm2_seeds": seeds_of(results),
        "smollm2": markdown(["arm", "learning rate", "accuracy", "operations"], lines),
        "control_rate": rates[CONTROL],
        "control_tuned": accuracy(control),
        "sft_share": number(flops["SFT"] / flops["OPSD"], 2),
        "smollm2_search_size": f"{seeds_of(search)}, {search['n'].max()} validation problems",
        "smollm2_search_command": study_command("smollm2-search", "smollm2_search", search),
        "smollm2_search": search_table(search),
    }


def _ahead(table: pd.DataFrame, flops: pd.Series) -> bool:
    return table.loc["SFT", "mean"] > table.loc["OPSD", "mean"] and flops["SFT"] < flops["OPSD"]
