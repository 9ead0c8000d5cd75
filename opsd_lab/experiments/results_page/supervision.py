"""The page's fields about what the teacher teaches: notebook 02's gaps."""

from collections.abc import Mapping
from pathlib import Path

from opsd_lab.experiments.results_page.notebook import Estimate, intervals, parameter, printed
from opsd_lab.experiments.results_page.text import Fields, check, markdown
from opsd_lab.figures.words import interval

WRONG, VALID = "wrong", "valid, not the answer"
VIEWS = {
    "reference": "the solution",
    "half": "half of it",
    "wrong": "it with a wrong answer",
    "other problem": "another problem's solution",
    "answer": "the answer alone",
    "hints": "hints",
}
PHASES = {
    ("correct", "before"): "correct, before the first error",
    ("correct", "after"): "correct, after it",
    ("incorrect", "first_error"): "the first error",
    ("incorrect", "after"): "incorrect, after it",
}


def supervision(notebook: Path) -> Fields:
    """Return the fields that only notebook 02 holds: gaps under each view, after training, and in the sandbox."""
    views, trained, sandbox, phases = (intervals(notebook, f"results-{name}") for name in ("views", "training", "sandbox", "phases"))
    wrong, other, valid = views[WRONG, "reference"], views[WRONG, "other problem"], views[VALID, "reference"]
    check("the teacher is stricter on wrong results", wrong.high < valid.low and abs(valid.mean) < 0.05)
    check("training removes gap on wrong results", trained[WRONG, "before"].mean < trained[WRONG, "after"].mean)
    check("the sandbox's gap is much larger", sandbox[WRONG, "reference"].high < 4 * wrong.low)
    check("the sandbox's model believes other numbers", sandbox[VALID, "wrong"].high < sandbox[WRONG, "wrong"].low)
    check("correct lines after an error are contradicted in chains alone", _contradicted(phases))
    lines = [[words, *(interval(*phases[task, *key]) for task in ("sheet", "chain"))] for key, words in PHASES.items()]
    return {
        "supervision_seed": parameter(notebook, "SEED"),
        "supervision_size": printed(notebook, "results-size"),
        "views": _by_view(views),
        "gap_wrong": interval(*wrong),
        "gap_valid": interval(*valid),
        "gap_other": interval(*other),
        "other_share": f"{other.mean / wrong.mean:.0%}".replace("%", " %"),
        "before": interval(*trained[WRONG, "before"]),
        "after": interval(*trained[WRONG, "after"]),
        "sandbox_views": _by_view(sandbox, VIEWS | {"wrong": "it with other numbers"}),
        "phases": markdown(["line", "worksheets", "chains"], lines),
    }


def _by_view(found: Mapping[tuple[str, ...], Estimate], named: Mapping[str, str] = VIEWS) -> str:
    lines = [[words, *(interval(*found[group, view]) for group in (WRONG, VALID))] for view, words in named.items()]
    return markdown(["the teacher sees", "wrong results", "valid results"], lines)


def _contradicted(phases: Mapping[tuple[str, ...], Estimate]) -> bool:
    sheet, chain = (phases[task, "correct", "after"] for task in ("sheet", "chain"))
    return chain.high < phases["chain", "incorrect", "first_error"].low < sheet.low
