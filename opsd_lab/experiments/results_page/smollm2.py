"""The page's fields about SmolLM2: the walkthrough over several seeds, and the study whose arms are tuned."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from opsd_lab.evaluation.statistics import Interval, mean_interval
from opsd_lab.experiments.results_page.text import (
    CONTROL,
    Fields,
    accuracy,
    check,
    estimate,
    markdown,
    operations,
    read_json,
    read_table,
    search_table,
    seeds_of,
    study_command,
)
from opsd_lab.figures.words import number
from opsd_lab.studies.results import arm_table, choose, final_rows


def walkthrough() -> Fields:
    """Return the fields of the walkthrough's runs over several seeds."""
    results = read_json("walkthrough_seeds.json")
    settings, by_arm = results["settings"], seed_accuracies(results)
    last = {arm: found["last_number"][0] for arm, found in by_arm.items()}
    check("OPSD helps and the control harms", last["OPSD"].low > last["base"].high and last["control"].mean < last["base"].mean)
    check("boxed answers lag", all(found["boxed"][0].mean < found["last_number"][0].mean for found in by_arm.values()))
    return {
        "model": settings["model"],
        "steps": settings["steps"],
        "batch": settings["training"]["batch_size"],
        "rate": f"{settings['training']['learning_rate']:g}",
        "seeds": len(by_arm["OPSD"]["last_number"][1]),
        "held_out": last["base"].n,
        "walkthrough": seeds_table(results),
        "base": number(last["base"].mean, 2),
        "opsd": number(last["OPSD"].mean, 2),
        "control_walkthrough": number(last["control"].mean, 2),
    }


def seed_accuracies(results: Mapping[str, dict]) -> dict[str, dict[str, tuple[Interval, list[float]]]]:
    """Return the mean over seeds with its interval over problems, and each seed's accuracy, by arm and by what is judged.

    `results` is what the command `seeds` writes. The interval leaves the spread between seeds out.
    """
    found = {}
    for arm in dict.fromkeys(name.split()[0] for name in results["correct"]):
        runs = [run for name, run in results["correct"].items() if name.split()[0] == arm]
        correct = {by: np.array([[int(c) for c in run[by]] for run in runs]) for by in ("last_number", "boxed")}
        found[arm] = {by: (mean_interval(v.mean(axis=0), v.size), v.mean(axis=1).tolist()) for by, v in correct.items()}
    return found


def seeds_table(results: Mapping[str, dict]) -> str:
    """Return what the command `seeds` wrote as a table in Markdown."""
    lines = []
    for arm, found in seed_accuracies(results).items():
        shown = [estimate(mean.mean, mean.low, mean.high) for mean, _ in found.values()]
        lines.append([arm, *shown, ", ".join(number(value, 2) for value in found["last_number"][1])])
    return markdown(["arm", "last number", "boxed", "last number by seed"], lines)


def tuned() -> Fields:
    """Return the fields of the study in which each arm has its own learning rate."""
    results, search = read_table("smollm2"), read_table("smollm2_search")
    rates = choose(search).set_index("method")["setting"]
    table, flops = arm_table(results, "OPSD").set_index("arm"), final_rows(results).groupby("arm")["flops"].mean()
    control = table.loc[CONTROL]
    check("the tuned control learns nothing", control["accuracy_low"] < table.loc["base", "accuracy"] < control["accuracy_high"])
    check("SFT is ahead of OPSD for fewer operations", _ahead(table, flops))
    lines = [[arm, _rate(rates.get(arm)), accuracy(row), operations(flops[arm])] for arm, row in table.iterrows()]
    return {
        "smollm2_command": study_command("smollm2", "smollm2", results),
        "smollm2_seeds": seeds_of(results),
        "smollm2": markdown(["arm", "learning rate", "accuracy", "operations"], lines),
        "control_rate": _rate(rates[CONTROL]),
        "control_tuned": accuracy(control),
        "sft_share": number(flops["SFT"] / flops["OPSD"], 2),
        "smollm2_search_size": f"{seeds_of(search)}, {search['n'].max()} validation problems",
        "smollm2_search_command": study_command("smollm2-search", "smollm2_search", search),
        "smollm2_search": search_table(search),
    }


def _ahead(table: pd.DataFrame, flops: pd.Series) -> bool:
    return table.loc["SFT", "accuracy"] > table.loc["OPSD", "accuracy"] and flops["SFT"] < flops["OPSD"]


def _rate(text: str | None) -> str:
    return f"{float(text):g}" if text else ""
