"""Signal against capability: how well several models find the first wrong steps of CHAMP's solutions, by how well they solve them."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from opsd_lab.diagnostics.combined_signals import POSITION, by_slice, with_combination, with_position
from opsd_lab.diagnostics.first_wrong_step import first_wrong_step
from opsd_lab.evaluation.evaluate import Evaluation
from opsd_lab.experiments import RESULTS
from opsd_lab.experiments.premise import NONE

MODELS = {"SmolLM2 135M": "smollm2-135m-instruct", "Coder 0.5B": "coder-0.5b", "Coder 1.5B": "coder-1.5b"}
"""The models that are compared, by what figures call them; the coders are Qwen2.5-Coder-Instruct."""
OTHER, OVER_OTHER = "gap, other problem", "gap over other problem's"
ALONE, WITH_GAP, WITH_OVER = "student alone", "student and gap", "student and gap over other problem's"
TAUGHT = (WITH_GAP, WITH_OVER)
STUDENT = ("student_logprob", "student_entropy")
COMPARED: dict[str, int] = {
    "gap": -1,
    OTHER: -1,
    OVER_OTHER: -1,
    "student_logprob": -1,
    "student_entropy": 1,
    POSITION: 1,
    ALONE: 1,
    WITH_GAP: 1,
    WITH_OVER: 1,
}
"""What is compared, with the side on which a wrong step is expected."""


def measured(kind: str, folder: Path = RESULTS) -> dict[str, pd.DataFrame]:
    """Return the tables of a kind, "champ", "premise" or "solutions", of all `MODELS`, by what figures call these.

    Raises:
        FileNotFoundError: when one was not made; the message has the command that makes it.
    """
    found = {}
    for name, model in MODELS.items():
        path = folder / f"{kind}_{model}.parquet"
        if not path.exists():
            raise FileNotFoundError(f"there is no {path}; make it with `python -m opsd_lab {kind} --model {model} --out {path}`")
        found[name] = pd.read_parquet(path)
    return found


def champ_signals(steps: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each step of CHAMP's solutions with all that is `COMPARED`, from the rows of `step_rows`.

    "gap over other problem's" is the gap under the reference minus that under another problem's solution: the student's part falls
    out. "student alone" combines log-probability and entropy of the student, "student and gap" these and the gap, "student and gap
    over other problem's" these and that difference (`with_combination`).

    Raises:
        ValueError: where the views reference and other problem do not have the same steps.
    """
    shown = _by_view("champ_signals", steps, "all", ("reference", "other problem"))
    other = shown["other problem"]["gap"]
    joined = shown["reference"].assign(**{OTHER: other, OVER_OTHER: shown["reference"]["gap"] - other}).reset_index()
    found = with_combination(with_position(joined), STUDENT, ALONE)
    found = with_combination(found, (*STUDENT, "gap"), WITH_GAP)
    return with_combination(found, (*STUDENT, OVER_OTHER), WITH_OVER)


def signal_table(steps: Mapping[str, pd.DataFrame], measure: str = "auroc") -> pd.DataFrame:
    """Return how well each signal finds the first wrong step, by model, from `champ_signals` of each.

    Columns: model, signal, then those of `first_wrong_step`; the difference is from the student's log-probability, for what the gap
    or its difference is combined with from "student alone". `measure` is one of `first_wrong_step`.
    """
    found = []
    for model, of_model in steps.items():
        table = first_wrong_step(of_model, COMPARED)
        both = first_wrong_step(of_model, dict.fromkeys((ALONE, *TAUGHT), 1), ALONE)
        rows = pd.concat([table[~table["signal"].isin(TAUGHT)], both[both["signal"].isin(TAUGHT)]])
        found.append(rows[rows["measure"] == measure].assign(model=model))
    return _in_front(pd.concat(found, ignore_index=True), "model", "signal")


def slice_signals(steps: Mapping[str, pd.DataFrame], column: str, measure: str = "auroc") -> pd.DataFrame:
    """Return how well gaps and log-probability find the first wrong step in each part of the solutions, by model.

    Columns: model, the `column` that tells the parts apart ("author" or "category"), signal, then those of `first_wrong_step`; the
    difference is from the student's log-probability. `steps` has rows of `champ_signals` by model. A part without a right or without
    a wrong step is left out.

    Raises:
        ValueError: when no part has both.
    """
    found = []
    for model, of_model in steps.items():
        table = by_slice(of_model, column, {signal: COMPARED[signal] for signal in ("gap", OTHER, "student_logprob")}, least=1)
        found.append(table[table["measure"] == measure].assign(model=model))
    return _in_front(pd.concat(found, ignore_index=True), "model", column, "signal")


def view_signals(steps: Mapping[str, pd.DataFrame], measure: str = "auroc") -> pd.DataFrame:
    """Return how well the gap under each view finds the first wrong step, by model, from the steps that every view was shown on.

    Columns: model, view, then those of `first_wrong_step`; the difference is from the gap under another problem's solution, which
    says what the content of the view is worth. `steps` has rows of `step_rows` by model.

    Raises:
        ValueError: where the views do not have the same steps, or other problem is none of them.
    """
    found = []
    for model, of_model in steps.items():
        shown = _by_view("view_signals", of_model, "compared", ("other problem",))
        joined = shown["other problem"].assign(**{view: of["gap"] for view, of in shown.items()}).reset_index()
        table = first_wrong_step(joined, dict.fromkeys(shown, -1), "other problem")
        found.append(table[table["measure"] == measure].assign(model=model))
    return _in_front(pd.concat(found, ignore_index=True).rename(columns={"signal": "view"}), "model", "view")


def size_signals(steps: Mapping[str, pd.DataFrame], signal: str = OVER_OTHER, measure: str = "auroc") -> pd.DataFrame:
    """Return how well one signal of each model finds the first wrong step, and how far this is from the first model's.

    Columns: model, then those of `first_wrong_step`; the difference is paired on the same steps. `steps` has rows of `champ_signals`
    by model, the smallest model first. `signal` is one of `COMPARED`.

    Raises:
        ValueError: where the models do not have the same steps.
    """
    held = {model: rows.set_index(["rollout", "step"]).sort_index() for model, rows in steps.items()}
    first, *_ = held
    if any(not rows.index.equals(held[first].index) for rows in held.values()):
        raise ValueError("size_signals: all models need the same steps")
    joined = held[first].assign(**{model: rows[signal] for model, rows in held.items()}).reset_index()
    table = first_wrong_step(joined, dict.fromkeys(held, COMPARED[signal]), first)
    return _in_front(table[table["measure"] == measure].rename(columns={"signal": "model"}), "model")


def _by_view(name: str, steps: pd.DataFrame, scope: str, needed: tuple[str, ...]) -> dict[str, pd.DataFrame]:
    """Return the steps of a scope by view, each with the same index of rollout and step."""
    chosen = steps[steps["scope"] == scope]
    shown = {view: of.set_index(["rollout", "step"]).sort_index() for view, of in chosen.groupby("view", sort=False)}
    if set(needed) - set(shown) or any(not of.index.equals(shown[needed[0]].index) for of in shown.values()):
        raise ValueError(f"{name}: all views need the same steps with the scope {scope!r}, {' and '.join(needed)} among them")
    return shown


def _in_front(table: pd.DataFrame, *names: str) -> pd.DataFrame:
    return table[[*names, *(name for name in table if name not in names)]]


def capability_table(premise: Mapping[str, pd.DataFrame], name: str = "CHAMP") -> pd.DataFrame:
    """Return each model's accuracy on the set `name` without a view: model, then an estimate; `premise` has its rows by model."""
    found = []
    for model, rows in premise.items():
        own = rows[(rows["set"] == name) & (rows["view"] == NONE)].reset_index(drop=True)
        found.append({"model": model, **Evaluation(model, own.assign(text="")).accuracy().as_dict()})
    return pd.DataFrame(found)
