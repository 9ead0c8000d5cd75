"""Where in a rollout a number is large or small."""

import numpy as np
import pandas as pd

from opsd_lab.diagnostics.estimates import Estimates, prepare
from opsd_lab.tokens.table import TokenTable


def mean_by_position(table: TokenTable, column: str = "gap", bins: int = 10) -> pd.DataFrame:
    """Return a column's mean over all tokens, and by relative position: token i of n lies in bin floor(bins * i / n).

    `start` and `end` bound the bin, as fractions of the rollout.

    Raises:
        ValueError: for an empty table, a column without numbers, or `bins` < 1.
    """
    rows = prepare(table, "mean_by_position")
    values = rows.values(column, "mean_by_position")
    if bins < 1:
        raise ValueError(f"mean_by_position: bins is {bins}; it must be at least 1")
    place = bins * rows.place // rows.length
    estimates = Estimates(["position", "start", "end"])
    estimates.add(("all", 0.0, 1.0), rows.units, values, np.ones(len(values), dtype=bool))
    for i in range(bins):
        name = f"{100 * i / bins:.3g}-{100 * (i + 1) / bins:.3g} %"
        estimates.add((name, i / bins, (i + 1) / bins), rows.units, values, place == i)
    return estimates.frame()
