"""The page's fields about models of several sizes: how well each finds the first wrong steps of CHAMP's solutions."""

import pandas as pd

from opsd_lab.diagnostics.first_wrong_step import first_wrong_step
from opsd_lab.experiments.capability import (
    ALONE,
    COMPARED,
    MODELS,
    OTHER,
    OVER_OTHER,
    TAUGHT,
    WITH_OVER,
    champ_signals,
    measured,
    signal_table,
    size_signals,
    slice_signals,
    view_signals,
)
from opsd_lab.experiments.capability_findings import DIFFERENCE, size_findings
from opsd_lab.experiments.results_page.text import Fields, check, markdown, read_json
from opsd_lab.figures.words import NUMBERS, interval, number

SHOWN = {
    "gap": "the gap",
    OTHER: "the gap under another problem's solution",
    OVER_OTHER: "the difference of these two gaps",
    "student_logprob": "the student's log-probability",
    "student_entropy": "the student's entropy",
    "position": "how late the step stands",
    ALONE: "both of the student's",
}
ADDED = dict(zip(TAUGHT, ("the gap adds to these", "the difference of the gaps adds to these"), strict=True))


def champ() -> Fields:
    """Return the fields of CHAMP's annotated solutions, scored by all models."""
    steps, runs = measured("champ"), read_json("capability_runs.json")
    signals = {model: champ_signals(rows) for model, rows in steps.items()}
    table = signal_table(signals).set_index(["signal", "model"])
    over, views, authors = size_signals(signals), view_signals(steps), slice_signals(signals, "author")
    smallest, *_, largest = MODELS
    alone = size_signals(signals, ALONE)
    beside = first_wrong_step(signals[largest], {ALONE: COMPARED[ALONE], OVER_OTHER: COMPARED[OVER_OTHER]}, OVER_OTHER)
    own = beside[(beside["signal"] == ALONE) & (beside["measure"] == "auroc")]
    check("the student's numbers find better with the largest model than with the smallest", alone["difference_low"].iloc[-1] > 0)
    check("the largest model's own numbers find better than the difference of gaps", own["difference_low"].item() > 0)
    _check(table, over, views, authors)
    lines = [[words, *(interval(*table.loc[(name, model), NUMBERS]) for model in MODELS)] for name, words in SHOWN.items()]
    lines += [[words, *(interval(*table.loc[(name, model), DIFFERENCE]) for model in MODELS)] for name, words in ADDED.items()]
    gap = table.loc[("gap", smallest)]
    return {
        "champ_models": ", ".join(f"`{file}`" for file in MODELS.values()),
        "champ_machine": runs["machine"],
        "champ_seconds": ", ".join(f"{runs['seconds'][f'champ_{file}']} s for {model}" for model, file in MODELS.items()),
        "champ_solutions": int(gap["n_solutions"]),
        "champ_problems": int(gap["n"]),
        "champ_compared": int(views["n"].max()),
        "chance": number(gap["chance"], 2),
        "model_small": smallest,
        "model_large": largest,
        "over_small": interval(*table.loc[(OVER_OTHER, smallest), NUMBERS]),
        "over_large": interval(*table.loc[(OVER_OTHER, largest), NUMBERS]),
        "alone_large": interval(*table.loc[(ALONE, largest), NUMBERS]),
        "champ": markdown(["signal", *MODELS], lines),
        "champ_sizes": "\n".join(f"- {sentence}" for sentence in size_findings(over, "difference of gaps")),
        "champ_views": _by(views, "view"),
        "champ_authors": _by(authors[authors["signal"] == "gap"], "author"),
        "champ_authors_known": _by(authors[authors["signal"] == "student_logprob"], "author"),
    }


def _by(table: pd.DataFrame, column: str) -> str:
    """Return a table with a row for each value of a column and a column for each model."""
    of = table.set_index([column, "model"])
    lines = [[name, *(interval(*of.loc[(name, model), NUMBERS]) for model in MODELS)] for name in table[column].unique()]
    return markdown([column, *MODELS], lines)


def _check(table: pd.DataFrame, over: pd.DataFrame, views: pd.DataFrame, authors: pd.DataFrame) -> None:
    smallest, *coders = MODELS
    gap, other, content = (table.loc[name] for name in ("gap", OTHER, OVER_OTHER))
    above = (gap["low"] > gap["chance"]).to_dict()
    check("the smallest model's gap finds no better than chance, the coders' better", above == {m: m in coders for m in MODELS})
    check("under another problem's solution no gap finds better than chance", (other["low"] < other["chance"]).all())
    check("the difference of the gaps finds better than chance at each size", (content["low"] > content["chance"]).all())
    check("it finds better the larger the model", content["mean"].is_monotonic_increasing and over["difference_low"].iloc[-1] > 0)
    check("no gap is shown to be better than the student's log-probability", (table.loc["gap", "difference_low"] < 0).all())
    check("the smallest model's is worse", table.loc[("gap", smallest), "difference_high"] < 0)
    check(
        "the difference of the gaps adds to what the student knows at each size", (table.loc[WITH_OVER, "difference_low"] > 0).all()
    )
    beside = views.set_index(["view", "model"])["difference_low"]
    ahead = beside.groupby("view").min() > 0
    check("the solution alone beats another problem's at each size", ahead[ahead].index.tolist() == ["reference"])
    of = authors.set_index(["signal", "author", "model"])["mean"]
    worst, best = (of[name].groupby("model") for name in ("gap", "student_logprob"))
    check(
        "the gap is worst on GPT-4 Turbo's solutions with the coders, and the log-probability best",
        {worst.idxmin()[model][0] for model in coders} | {best.idxmax()[model][0] for model in coders} == {"GPT-4 Turbo"},
    )
