"""What the family's tables say: the methods beside the initial policy and OPSD, and sentences that are computed from them."""

from collections.abc import Mapping
from math import atanh, sqrt, tanh

import pandas as pd
from scipy.stats import norm, spearmanr

from opsd_lab.experiments.family import TASK_NAMES
from opsd_lab.experiments.family_pieces import collapses
from opsd_lab.figures.family import BETTER, FAILED, NEITHER, WORSE
from opsd_lab.figures.words import interval, number
from opsd_lab.methods import METHODS
from opsd_lab.studies.results import arm_table, changes, choose, final_rows

BASE, OPSD = "base", "opsd"
SIGNIFICANCE = 0.05  # of p after Holm's correction


def compare_methods(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return each method on each task: what it gained, how it stands beside OPSD, and what it cost.

    One row per task and method, in the tables' order. `mean`, `low` and `high` are those of the accuracy minus the initial policy's,
    over seeds and problems (`paired_crossed`), `accuracy` is the mean over seeds. `minus_opsd` is the accuracy minus OPSD's and `p`
    its p-value after Holm's correction over the task's methods; `verdict` says "better than OPSD" or "worse than OPSD" where p is
    below .05, and "failed" of a method without a finished cell. `forgot` is what was lost on the task that was not trained on. Then
    the learning rate, the steps and the operations, over seeds. `tables` are those of the studies, by task.

    Raises:
        ValueError: when a table lacks the initial policy or OPSD.
    """
    return pd.concat([_of_task(task, tables[task], list(tables)) for task in tables], ignore_index=True)


def _of_task(task: str, table: pd.DataFrame, tasks: list[str]) -> pd.DataFrame:
    keys = [arm for arm in table["arm"].unique() if arm != BASE]
    over_base, over_opsd = (arm_table(table, baseline).set_index("arm").reindex(keys) for baseline in (BASE, OPSD))
    found = pd.DataFrame({"task": task, "method": [name_of_method(key) for key in keys]}, index=pd.Index(keys, name="arm"))
    found[["mean", "low", "high"]] = over_base[["difference", "difference_low", "difference_high"]]
    last = final_rows(table)
    found[["n", "unit"]] = int(last["n"].max()), "problems"
    found[["seeds", "accuracy"]] = over_base[["n", "mean"]]
    found[["minus_opsd", "p"]] = over_opsd[["difference", "p"]]
    found["verdict"] = [_verdict(row) for row in found.itertuples()]
    other = [name for name in tasks if name != task and (table["split"] == name).any()]
    if other:
        trained = [key for key in keys if found.loc[key, "verdict"] != FAILED]
        found["forgot"] = -changes(table, trained, other[:1]).set_index("arm")["mean"]
    return found.join(last.groupby("arm")[["learning_rate", "step", "flops"]].mean()).reset_index()


def _verdict(row: object) -> str:
    if row.mean != row.mean:
        return FAILED
    return NEITHER if not row.p < SIGNIFICANCE else BETTER if row.minus_opsd > 0 else WORSE


def family_findings(tables: Mapping[str, pd.DataFrame], best: int = 3) -> list[str]:
    """Return what the studies of the family say on each task, and how far the tasks agree; `tables` are theirs by task.

    Compared are the accuracies at the last evaluation. "Above" means an interval of the difference, over seeds and problems, that
    lies above zero; the comparisons with OPSD are those of `compare_methods`. The `best` are named.

    Raises:
        ValueError: when a table lacks the initial policy or OPSD.
    """
    told, compared = [], compare_methods(tables)
    for task, rows in compared.groupby("task", sort=False):
        fallen = collapses(tables[task])
        gone = fallen["arm"].nunique() if len(fallen) else 0
        start = (rows["accuracy"] - rows["mean"]).mean()  # of each method the same; NaN of one that failed
        where = f"On {TASK_NAMES.get(task, task)}"
        told.append(
            f"{where} {(rows['low'] > 0).sum()} of {len(rows)} methods end above the initial policy ({number(start, 2)}), "
            f"{(rows['high'] < 0).sum()} below it, and {gone} collapse with a seed or more."
        )
        top = rows.nlargest(best, "mean")
        told.append(f"{where} the largest gains are those of {_listed([_with_interval(row) for row in top.itertuples()])}.")
        better, worse = (rows.loc[rows["verdict"] == verdict, "method"].tolist() for verdict in (BETTER, WORSE))
        names = f" ({_listed(better)})" if 0 < len(better) <= 2 * best else ""
        told.append(
            f"{where} {len(better)} methods are better than OPSD{names} and {len(worse)} are worse, with p below {SIGNIFICANCE:g} "
            "after Holm's correction."
        )
    if compared["task"].nunique() == 2:
        both = compared.pivot(index="arm", columns="task", values="accuracy").dropna()
        told.append(f"Over {len(both)} methods the rank correlation of the two tasks' accuracies is {_rank_correlation(both)}.")
    return told


def collapsed_methods(tables: Mapping[str, pd.DataFrame], **where: str | float) -> pd.DataFrame:
    """Return the methods that collapsed, by task, with what their metrics said: a row for each, in words.

    `seeds` says with how many of its seeds, `step` at which evaluation first, from the earliest to the latest seed. The metrics stand
    as "first five steps → last five steps", the mean over the seeds that collapsed; `error` is that of a cell that failed. `tables`
    are those of the studies, by task; `where` are `split`, `share` and `watched` of `collapses`.

    Raises:
        ValueError: as `collapses` does.
    """
    rows = []
    for task, table in tables.items():
        fallen = collapses(table, **where)
        for arm, cells in fallen.groupby("arm", sort=False) if len(fallen) else ():
            steps, of = sorted({cells["step"].min(), cells["step"].max()}), table.loc[table["arm"] == arm, "seed"].nunique()
            row = {
                "task": task,
                "method": name_of_method(arm),
                "seeds": f"{len(cells)} of {of}",
                "step": " to ".join(map(str, steps)),
            }
            for first in (name for name in cells if name.endswith(", first")):
                metric, pair = first.removesuffix(", first"), (first, first.replace(", first", ", last"))
                row[metric] = " → ".join(number(cells[name].mean()) for name in pair)
            rows.append(row | {"error": "; ".join(dict.fromkeys(filter(None, cells["error"])))})
    return pd.DataFrame(rows, columns=None if rows else ["task", "method", "seeds", "step", "error"])


def search_gains(search: pd.DataFrame, split: str = "validation") -> pd.DataFrame:
    """Return what each method gained over the initial policy at each learning rate of a search, from the table of its study.

    Columns: method, learning_rate, `chosen` (whether it is the rate with the method's best accuracy), then the estimate. The interval
    is over problems; with one seed it says nothing of other seeds.

    Raises:
        ValueError: when the table lacks the initial policy.
    """
    found = arm_table(search, BASE, split).set_index("arm")
    last = final_rows(search, split).query("step > 0").drop_duplicates("arm").set_index("arm")
    best = set(zip(*(choose(search, split)[name] for name in ("method", "learning_rate")), strict=True))
    rows = pd.DataFrame({"method": last["method"].map(name_of_method), "learning_rate": last["learning_rate"]})
    rows["chosen"] = [pair in best for pair in zip(last["method"], last["learning_rate"], strict=True)]
    for name in ("mean", "low", "high"):
        rows[name] = found["difference" if name == "mean" else f"difference_{name}"].reindex(rows.index)
    return rows.assign(n=int(last["n"].max()), unit="problems").reset_index(drop=True)


def name_of_method(key: str) -> str:
    """Return a method's name by its key; the key itself of an arm that is none."""
    return METHODS[key].name if key in METHODS else {"grpo": "GRPO"}.get(key, key)


def _with_interval(row: object) -> str:
    return f"{row.method}, {interval(row.mean, row.low, row.high)}"


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, ["; ".join(words[:-1]), *words[-1:]]))


def _rank_correlation(both: pd.DataFrame) -> str:
    """Return Spearman's coefficient with its 95 % interval, by Fisher's transformation with the variance of Bonett and Wright."""
    found, count = float(spearmanr(both.iloc[:, 0], both.iloc[:, 1]).statistic), len(both)
    if count < 4:  # too few for an interval
        return number(found, 2)
    half = norm.ppf(0.975) * sqrt((1 + found**2 / 2) / (count - 3))
    centre = atanh(min(max(found, -1 + 1e-9), 1 - 1e-9))
    return interval(found, tanh(centre - half), tanh(centre + half))
