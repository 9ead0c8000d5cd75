"""Signal against capability: how well several models find the first wrong steps of CHAMP's solutions, by how well they solve them."""

from collections.abc import Mapping

import pandas as pd

from opsd_lab.diagnostics.combined_signals import POSITION, with_combination, with_position
from opsd_lab.diagnostics.first_wrong_step import first_wrong_step
from opsd_lab.evaluation.evaluate import Evaluation
from opsd_lab.experiments.premise import NONE

OTHER = "gap, other problem"
ALONE, WITH_TEACHER = "student alone", "student and teacher"
STUDENT = ("student_logprob", "student_entropy")
COMPARED: dict[str, int] = {
    "gap": -1,
    OTHER: -1,
    "student_logprob": -1,
    "student_entropy": 1,
    POSITION: 1,
    ALONE: 1,
    WITH_TEACHER: 1,
}
"""What is compared, with the side on which a wrong step is expected."""


def champ_signals(steps: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each step of CHAMP's solutions with all that is `COMPARED`, from the rows of `step_rows`.

    "student alone" combines log-probability and entropy of the student, "student and teacher" these and the gap (`with_combination`).

    Raises:
        ValueError: where the views reference and other problem do not have the same steps.
    """
    whole = steps[steps["scope"] == "all"]
    shown = {view: of.set_index(["rollout", "step"]).sort_index() for view, of in whole.groupby("view")}
    if {"reference", "other problem"} - set(shown) or not shown["reference"].index.equals(shown["other problem"].index):
        raise ValueError("champ_signals: the views reference and other problem need the same steps, with the scope all")
    joined = shown["reference"].assign(**{OTHER: shown["other problem"]["gap"]}).reset_index()
    found = with_combination(with_position(joined), STUDENT, ALONE)
    return with_combination(found, (*STUDENT, "gap"), WITH_TEACHER)


def signal_table(steps: Mapping[str, pd.DataFrame], measure: str = "auroc") -> pd.DataFrame:
    """Return how well each signal finds the first wrong step, by model, from `champ_signals` of each.

    Columns: model, signal, then those of `first_wrong_step`; the difference is from the student's log-probability, for "student and
    teacher" from "student alone". `measure` is one of `first_wrong_step`.
    """
    found = []
    for model, of_model in steps.items():
        table = first_wrong_step(of_model, COMPARED)
        both = first_wrong_step(of_model, {ALONE: 1, WITH_TEACHER: 1}, ALONE)
        rows = pd.concat([table[table["signal"] != WITH_TEACHER], both[both["signal"] == WITH_TEACHER]])
        found.append(rows[rows["measure"] == measure].assign(model=model))
    table = pd.concat(found, ignore_index=True)
    return table[["model", "signal", *(name for name in table if name not in ("model", "signal"))]]


def capability_table(premise: Mapping[str, pd.DataFrame], name: str = "CHAMP") -> pd.DataFrame:
    """Return each model's accuracy on the set `name` without a view: model, then an estimate; `premise` has its rows by model."""
    found = []
    for model, rows in premise.items():
        own = rows[(rows["set"] == name) & (rows["view"] == NONE)].reset_index(drop=True)
        found.append({"model": model, **Evaluation(model, own.assign(text="")).accuracy().as_dict()})
    return pd.DataFrame(found)
