"""What the tables of several model sizes say, in sentences that are computed from them."""

from collections.abc import Mapping

import pandas as pd

from opsd_lab.experiments.capability import ALONE, OTHER, OVER_OTHER, WITH_GAP, WITH_OVER
from opsd_lab.experiments.premise import NONE
from opsd_lab.figures.words import NUMBERS, count, interval

VIEWS = ("reference", "answer hidden", "other problem", "wrong numbers")
DIFFERENCE = ["difference", "difference_low", "difference_high"]
PLACES = {
    ("correct", "before"): "correct steps before any error",
    ("incorrect", "first_error"): "the first error",
    ("correct", "after"): "correct steps after it",
}


def premise_findings(table: pd.DataFrame, name: str = "CHAMP") -> list[str]:
    """Return for each model on how many sets each view raises or lowers its accuracy, and its accuracies on one set.

    "Raises" and "lowers" mean an interval of the difference from no view on one side of zero. `table` has the rows of
    `premise_table`, and `model`; `name` is the set that is told of alone.

    Raises:
        ValueError: when a model was not asked for that set without a view and with the reference.
    """
    told = []
    for model, rows in table.groupby("model", sort=False):
        parts = []
        for view, of_view in rows[rows["view"].isin(VIEWS)].groupby("view", sort=False):
            up, down = (of_view["difference_low"] > 0).sum(), (of_view["difference_high"] < 0).sum()
            parts.append(f"{view} raises {up} and lowers {down}")
        told.append(f"{model}, accuracy on {count(rows['set'].nunique(), 'sets')}: {'; '.join(parts)}.")
        on = rows[rows["set"] == name].set_index("view")
        if missing := {NONE, "reference"} - set(on.index):
            raise ValueError(f"premise_findings: {model} has no row of {name} under the view {min(missing)!r}")
        without, shown = (interval(*on.loc[view, NUMBERS]) for view in (NONE, "reference"))
        told.append(f"{model}, {name}: {without} without a view, {shown} under the reference.")
    return told


def signal_findings(table: pd.DataFrame) -> list[str]:
    """Return for each model how well the gap finds the first wrong step, beside its control and what the student knows alone.

    `table` is that of `signal_table`. "Above chance" and "below chance" mean the whole interval.
    """
    told = []
    for model, rows in table.groupby("model", sort=False):
        of = rows.set_index("signal")
        gap, other, over = (
            f"{interval(*of.loc[name, NUMBERS])}, {_beside_chance(of.loc[name])}" for name in ("gap", OTHER, OVER_OTHER)
        )
        less, with_gap, with_over = (interval(*of.loc[name, DIFFERENCE]) for name in ("gap", WITH_GAP, WITH_OVER))
        told += [
            f"{model}: the gap finds the first wrong step with an AUROC of {gap}; under another problem's solution with {other}; the "
            f"difference of the two gaps with {over}.",
            f"{model}: the gap's AUROC minus that of the student's log-probability is {less}.",
            f"{model}: to what the student's numbers find together, {interval(*of.loc[ALONE, NUMBERS])}, the gap adds {with_gap}, "
            f"and its difference from that under another problem's solution {with_over}.",
        ]
    return told


def size_findings(table: pd.DataFrame, signal: str) -> list[str]:
    """Return how much better or worse each further model's signal finds the first wrong step than the first model's.

    `table` is that of `size_signals` of the `signal`, which says what the sentences call it.
    """
    first, *others = table.itertuples()
    return [
        f"The AUROC of {row.model}'s {signal} minus that of {first.model}'s is "
        f"{interval(row.difference, row.difference_low, row.difference_high)}."
        for row in others
    ]


def own_findings(tables: Mapping[str, pd.DataFrame], view: str = "reference") -> list[str]:
    """Return for each model what its own steps are told under a view: at the first error, and on correct steps after it.

    `tables` has the rows of `own_solutions` by model. Each token counts alike.

    Raises:
        ValueError: when a model has no row of the view.
    """
    told = []
    for model, rows in tables.items():
        of_view = rows[(rows["view"] == view) & (rows["per"] == "token")].set_index(["label", "error_phase"])
        if of_view.empty:
            raise ValueError(f"own_findings: {model} has no row of the view {view!r}")
        for (column, clip), of in of_view.groupby(["column", "clip"], sort=False):
            name = f"{column}, clipped at {clip:g}," if clip else column
            said = [f"{interval(*of.loc[key, NUMBERS])} on {words}" for key, words in PLACES.items() if key in of["mean"].dropna()]
            told.append(f"{model}, {view}: the {name} is {', '.join(said)}.")
    return told


def _beside_chance(row: pd.Series) -> str:
    return "above chance" if row["low"] > row["chance"] else "below chance" if row["high"] < row["chance"] else "not told from chance"
