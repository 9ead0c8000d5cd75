"""What the family's tables say, in sentences that are computed from them."""

from collections.abc import Mapping
from math import atanh, sqrt, tanh

import pandas as pd
from scipy.stats import norm, spearmanr

from opsd_lab.experiments.family_pieces import collapses
from opsd_lab.figures.words import number
from opsd_lab.methods import METHODS
from opsd_lab.studies.results import arm_table

BASE, OPSD = "base", "opsd"


def family_findings(tables: Mapping[str, pd.DataFrame], best: int = 3) -> list[str]:
    """Return what the studies of the family say on each task, and how far the tasks agree; `tables` are theirs by task.

    Compared are the accuracies at the last evaluation. "Above" means an interval of the difference, over seeds and problems, that
    lies above zero; for the comparisons with OPSD the p-value after Holm's correction is below .05 as well. The `best` are named.

    Raises:
        ValueError: when a table lacks the initial policy or OPSD.
    """
    told, means = [], {}
    for task, table in tables.items():
        over_base = arm_table(table, BASE).set_index("arm").drop(index=BASE)
        over_opsd = arm_table(table, OPSD).set_index("arm").drop(index=[OPSD, BASE])
        means[task] = over_base["mean"]
        above, below = (over_base["difference_low"] > 0).sum(), (over_base["difference_high"] < 0).sum()
        fallen = collapses(table)
        gone = fallen["arm"].nunique() if len(fallen) else 0
        start, top = arm_table(table, BASE).set_index("arm").loc[BASE, "mean"], over_base.nlargest(best, "mean")
        told.append(
            f"{task}: of {len(over_base)} methods {above} end above the initial policy ({number(start, 2)}), {below} below it, and "
            f"{gone} collapse with a seed or more."
        )
        told.append(f"{task}: the highest are {_listed([_with_interval(row) for row in top.itertuples()])}.")
        sure = over_opsd["p"] < 0.05
        better, worse = over_opsd[sure & (over_opsd["difference_low"] > 0)], over_opsd[sure & (over_opsd["difference_high"] < 0)]
        names = f" ({_listed([name_of_method(key) for key in better.index])})" if 0 < len(better) <= 2 * best else ""
        told.append(
            f"{task}: {len(better)} methods are better than OPSD{names} and {len(worse)} are worse, with p below .05 after Holm's "
            "correction."
        )
    if len(means) == 2:
        both = pd.concat(means, axis=1).dropna()
        told.append(f"Over {len(both)} methods the rank correlation of the two tasks' accuracies is {_rank_correlation(both)}.")
    return told


def name_of_method(key: str) -> str:
    """Return a method's name by its key; the key itself of an arm that is none."""
    return METHODS[key].name if key in METHODS else {"grpo": "GRPO"}.get(key, key)


def _with_interval(row: object) -> str:
    return f"{name_of_method(row.Index)} at {number(row.mean, 2)} [{number(row.low, 2)}, {number(row.high, 2)}]"


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def _rank_correlation(both: pd.DataFrame) -> str:
    """Return Spearman's coefficient with its 95 % interval, by Fisher's transformation with the variance of Bonett and Wright."""
    found, count = float(spearmanr(both.iloc[:, 0], both.iloc[:, 1]).statistic), len(both)
    half = norm.ppf(0.975) * sqrt((1 + found**2 / 2) / (count - 3))
    centre = atanh(min(max(found, -1 + 1e-9), 1 - 1e-9))
    return f"{number(found, 2)} [{number(tanh(centre - half), 2)}, {number(tanh(centre + half), 2)}]"
