"""Reading a study's table: accuracy per arm, differences between arms, and accuracy at matched cost. Knows no models."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from opsd_lab.evaluation.comparisons import cohens_h, holm, paired_crossed, paired_seeds, seed_interval

Cost = Literal["step", "tokens_generated", "tokens_scored", "tokens_trained", "flops", "seconds"]


def final_rows(results: pd.DataFrame, split: str = "test") -> pd.DataFrame:
    """Return the rows of each arm's last checkpoint on one split; cells that failed are left out, see `failures`.

    Raises:
        ValueError: when no row is left.
    """
    failed = set(map(tuple, failures(results)[["arm", "seed"]].itertuples(index=False)))
    rows = results[(results["split"] == split) & (results["error"] == "")]
    rows = rows[[(arm, seed) not in failed for arm, seed in zip(rows["arm"], rows["seed"], strict=True)]]
    if rows.empty:
        raise ValueError(f"no finished cell was evaluated on {split!r}; the splits are {sorted(set(results['split']) - {''})}")
    return rows[rows["step"] == rows.groupby("arm")["step"].transform("max")].reset_index(drop=True)


def failures(results: pd.DataFrame) -> pd.DataFrame:
    """Return arm, seed, the last step evaluated, and the error, of each cell that failed."""
    return results.loc[results["error"] != "", ["arm", "seed", "step", "error"]].reset_index(drop=True)


def correctness(rows: pd.DataFrame, arm: str, seeds: Sequence[int]) -> np.ndarray:
    """Return the share of correct samples [S, P] of an arm, seed by seed and problem by problem."""
    of_arm = rows[rows["arm"] == arm].set_index("seed")
    return np.array([np.array(of_arm.loc[s, "correct"].split(), dtype=float) / of_arm.loc[s, "samples"] for s in seeds])


def arm_table(results: pd.DataFrame, baseline: str, split: str = "test", order: Sequence[str] | None = None) -> pd.DataFrame:
    """Return one row per arm: accuracy with its t interval over seeds, and the difference from a baseline arm.

    `difference` with `low` and `high` is over seeds and problems (`paired_crossed`), `p` its p-value after Holm's correction over the
    arms, `p_seeds` that of the t test over seeds on these problems, corrected likewise; `h` is Cohen's effect size. Arms are compared
    on the seeds that both have finished; where there are too few for a test, its columns are NaN.

    Raises:
        ValueError: when the baseline is not among the arms.
    """
    rows = final_rows(results, split)
    arms = list(order or dict.fromkeys(rows["arm"]))
    if baseline not in arms:
        raise ValueError(f"the baseline {baseline!r} has no finished cell; finished arms: {arms}")
    seeds_of = {arm: sorted(rows.loc[rows["arm"] == arm, "seed"]) for arm in arms}
    found = []
    for arm in arms:
        of_arm = rows[rows["arm"] == arm]
        shared = sorted(set(seeds_of[arm]) & set(seeds_of[baseline]))
        interval = seed_interval(of_arm["accuracy"], int(of_arm["n"].min()))
        row = {
            "arm": arm,
            "seeds": interval.n,
            "accuracy": interval.mean,
            "accuracy_low": interval.low,
            "accuracy_high": interval.high,
        }
        if arm != baseline and shared:
            ours, theirs = correctness(rows, arm, shared), correctness(rows, baseline, shared)
            whole = paired_crossed(ours, theirs, int(rows["samples"].min()))
            row |= {"difference": whole.mean, "low": whole.low, "high": whole.high, "p": whole.p}
            row["p_seeds"] = paired_seeds(ours.mean(1), theirs.mean(1)).p if len(shared) > 1 else np.nan
            row["h"] = cohens_h(ours.mean(), theirs.mean())
        found.append(row)
    table = pd.DataFrame(found)
    for name in ("p", "p_seeds"):
        if name in table:
            tested = table[name].notna()
            table.loc[tested, name] = holm(table.loc[tested, name].tolist())
    return table


def changes(results: pd.DataFrame, arms: Sequence[str], splits: Sequence[str]) -> pd.DataFrame:
    """Return how far each arm's last checkpoint lies from the initial policy: arm, split, mean, low, high, seeds.

    Seeds are compared with the initial policy's evaluation of the same seed, and the interval is Student's over seeds.

    Raises:
        ValueError: when an arm and the initial policy (rows of step 0) have no seed of a split in common.
    """
    found = []
    for split in splits:
        rows = final_rows(results, split)
        start = rows[rows["step"] == 0].groupby("seed")["accuracy"].mean()
        for arm in arms:
            difference = (rows[rows["arm"] == arm].set_index("seed")["accuracy"] - start).dropna()
            if difference.empty:
                raise ValueError(f"{arm!r} and the initial policy were not evaluated on {split!r} with the same seed")
            interval = seed_interval(difference)
            bounds = {"mean": interval.mean, "low": interval.low, "high": interval.high}
            found.append({"arm": arm, "split": split, **bounds, "seeds": interval.n})
    return pd.DataFrame(found)


def at_matched_cost(results: pd.DataFrame, cost: Cost, split: str = "test", budget: float | None = None) -> pd.DataFrame:
    """Return each cell's accuracy after spending the same: arm, seed, accuracy, budget.

    Between checkpoints the accuracy is interpolated; the initial policy costs nothing (rows of step 0, those of an arm that does not
    train, on the same seed). `budget` None takes what the cheapest trained cell spent in all, so that nothing is extrapolated; a cell
    that spent less than a budget given is left out, and so is one to which this cost does not apply, as it spent none.

    Raises:
        ValueError: when no arm was trained, or none spent any, or when this cost could not be counted for some arm (NaN).
    """
    rows = results[(results["split"] == split) & (results["error"] == "")]
    if uncounted := sorted(set(rows.loc[(rows["step"] > 0) & rows[cost].isna(), "arm"])):
        raise ValueError(f"{cost} could not be counted for {uncounted}; compare them by tokens or seconds, or leave these arms out")
    start, trained = rows[rows["step"] == 0].groupby("seed")["accuracy"].mean(), rows[rows["step"] > 0]
    trained = trained[trained[cost] > 0]
    if trained.empty:
        raise ValueError(f"no arm was trained, or none of them spent any {cost}")
    spent = trained.groupby(["arm", "seed"])[cost].max()
    budget = float(spent.min() if budget is None else budget)
    found = []
    for (arm, seed), cell in trained.groupby(["arm", "seed"], sort=False):
        if spent[arm, seed] < budget:
            continue
        cell = cell.sort_values("step")
        first = [start[seed]] if seed in start.index else ([start.mean()] if len(start) else [])
        costs = np.array([*[0.0] * len(first), *cell[cost]], dtype=float)
        accuracy = np.interp(budget, costs, [*first, *cell["accuracy"]], left=np.nan)
        found.append({"arm": arm, "seed": seed, "accuracy": float(accuracy), "budget": budget})
    return pd.DataFrame(found)


def choose(results: pd.DataFrame, split: str = "validation") -> pd.DataFrame:
    """Return, for each arm of a search, whose cells are named "arm | setting", the setting with the best mean accuracy over seeds.

    Raises:
        ValueError: when arms were given different numbers of settings or of seeds, so that the search would favour one.
    """
    rows = final_rows(results, split)
    names = rows["arm"].str.split(" | ", n=1, regex=False, expand=True)
    rows = rows.assign(method=names[0], setting=names[1])
    tried = results[results["arm"].str.contains(" | ", regex=False)][["arm", "seed"]].drop_duplicates()
    budgets = tried["arm"].str.split(" | ", n=1, regex=False).str[0].value_counts()
    if budgets.nunique() > 1:
        raise ValueError(f"the arms were not searched with the same budget: {budgets.to_dict()} cells")
    means = rows.groupby(["method", "setting"], sort=False)["accuracy"].agg(["mean", "count"]).reset_index()
    means = means[means["count"] == means["count"].max()]  # a setting that failed with a seed is no choice
    return means.loc[means.groupby("method", sort=False)["mean"].idxmax()].reset_index(drop=True)
