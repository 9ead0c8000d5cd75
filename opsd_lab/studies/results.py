"""Reading a study's table: accuracy per arm, differences between arms, and accuracy at matched cost. Knows no models."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from opsd_lab.evaluation.comparisons import CHANGE, SHARE, cohens_h, holm, paired_crossed, paired_seeds, seed_interval

Cost = Literal["step", "tokens_generated", "tokens_scored", "tokens_trained", "flops", "seconds"]


def final_rows(results: pd.DataFrame, split: str = "test") -> pd.DataFrame:
    """Return the rows of each arm's last checkpoint on one split; cells that failed are left out, see `failures`.

    Raises:
        ValueError: when no row is left.
    """
    rows = _finished(results, split)
    if rows.empty:
        raise ValueError(f"no finished cell was evaluated on {split!r}; the splits are {sorted(set(results['split']) - {''})}")
    return rows[rows["step"] == rows.groupby(["arm", "seed"])["step"].transform("max")].reset_index(drop=True)


def _finished(results: pd.DataFrame, split: str) -> pd.DataFrame:
    """Return the rows of one split, without the cells that failed: what they had evaluated before is of chosen seeds."""
    failed = set(map(tuple, failures(results)[["arm", "seed"]].itertuples(index=False)))
    rows = results[(results["split"] == split) & (results["error"] == "")]
    return rows[[(arm, seed) not in failed for arm, seed in zip(rows["arm"], rows["seed"], strict=True)]]


def failures(results: pd.DataFrame) -> pd.DataFrame:
    """Return arm, seed, the last step evaluated, and the error, of each cell that failed."""
    return results.loc[results["error"] != "", ["arm", "seed", "step", "error"]].reset_index(drop=True)


def correctness(rows: pd.DataFrame, arm: str, seeds: Sequence[int]) -> np.ndarray:
    """Return the share of correct samples [S, P] of an arm, seed by seed and problem by problem."""
    of_arm = rows[rows["arm"] == arm].set_index("seed")
    return np.array([np.asarray(of_arm.loc[s, "correct"], dtype=float) / of_arm.loc[s, "samples"] for s in seeds])


def arm_table(results: pd.DataFrame, baseline: str, split: str = "test", order: Sequence[str] | None = None) -> pd.DataFrame:
    """Return one row per arm: accuracy with its t interval over seeds, and the arm's minus that of the arm `baseline`.

    `difference` with `difference_low` and `difference_high` is over seeds and problems (`paired_crossed`), `p` its p-value after
    Holm's correction over the arms, `p_seeds` that of the t test over seeds on these problems, corrected likewise; `h` is Cohen's
    effect size. Arms are compared on the seeds that both have finished; where there are too few for a test, its columns are NaN, and
    where there are too few for what is said of other seeds, `note` says so. `results` is a study's table, of which the rows of one
    `split` are read. `order` chooses and orders the arms; left out, all are taken as they appear.

    Raises:
        ValueError: when the baseline is not among the arms, or an arm of `order` has no finished cell.
    """
    rows = final_rows(results, split)
    finished = list(dict.fromkeys(rows["arm"]))
    arms = list(order or finished)
    if baseline not in arms:
        raise ValueError(f"the baseline {baseline!r} has no finished cell; finished arms: {arms}")
    if lacking := [arm for arm in arms if arm not in finished]:
        raise ValueError(f"arm {lacking[0]!r} has no finished cell; finished arms: {finished}")
    seeds_of = {arm: sorted(rows.loc[rows["arm"] == arm, "seed"]) for arm in arms}
    found = []
    for arm in arms:
        of_arm = rows[rows["arm"] == arm]
        shared = sorted(set(seeds_of[arm]) & set(seeds_of[baseline]))
        row = {"arm": arm, **seed_interval(of_arm["accuracy"], int(of_arm["n"].min()), within=SHARE).as_dict(), "baseline": baseline}
        if arm != baseline and shared:
            theirs, ours = (correctness(rows, name, shared) for name in (baseline, arm))
            whole = paired_crossed(theirs, ours, int(rows["samples"].min()))
            row |= {"difference": whole.mean, "difference_low": whole.low, "difference_high": whole.high, "p": whole.p}
            row["p_seeds"] = paired_seeds(theirs.mean(1), ours.mean(1)).p if len(shared) > 1 else np.nan
            row["h"] = cohens_h(theirs.mean(), ours.mean())
            row["note"] = "; ".join(filter(None, [row["note"], whole.note and f"difference: {whole.note}"]))
        found.append(row)
    table = pd.DataFrame(found)
    for name in ("p", "p_seeds"):
        if name in table:
            tested = table[name].notna()
            table.loc[tested, name] = holm(table.loc[tested, name].tolist())
    return table[[*(column for column in table if column != "note"), "note"]]


def changes(results: pd.DataFrame, arms: Sequence[str], splits: Sequence[str]) -> pd.DataFrame:
    """Return each arm's accuracy at its last checkpoint minus the initial policy's, on each split, with its t interval over seeds.

    Seeds are compared with the initial policy's evaluation of the same seed.

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
            estimate = seed_interval(difference, within=CHANGE)
            found.append({"arm": arm, "baseline": "initial policy", "split": split, **estimate.as_dict()})
    return pd.DataFrame(found)


def curves(results: pd.DataFrame, arms: Sequence[str], cost: Cost = "step", split: str = "test") -> pd.DataFrame:
    """Return each arm's accuracy at each checkpoint with its t interval over seeds, and what it had spent by then.

    One row per arm and checkpoint: arm, split, step, cost (its name), spent (the mean over seeds), the estimate, then problems. Every
    arm's first row is the initial policy (step 0), where there is one; it has spent nothing. `results` is a study's table, and `arms`
    are those wanted, in this order. Cells that failed are left out.

    Raises:
        ValueError: when an arm has no finished cell on the split.
    """
    rows = _finished(results, split)
    start, found = rows[rows["step"] == 0], []
    for arm in arms:
        cells = rows[(rows["arm"] == arm) & (rows["step"] > 0)]
        if cells.empty:
            raise ValueError(f"arm {arm!r} was not trained and evaluated on {split!r}")
        cells = cells.sort_values("step").assign(at=lambda c: c.groupby("seed").cumcount() + 1)  # seeds may differ in the very step
        for _, at in pd.concat([start.assign(at=0), cells]).groupby("at"):
            step = round(at["step"].mean())
            about = {"arm": arm, "split": split, "step": step, "cost": cost, "spent": float(at[cost].mean()) if step else 0.0}
            found.append(about | seed_interval(at["accuracy"], within=SHARE).as_dict() | {"problems": int(at["n"].max())})
    return pd.DataFrame(found)


def at_matched_cost(results: pd.DataFrame, cost: Cost, split: str = "test", budget: float | None = None) -> pd.DataFrame:
    """Return each arm's accuracy after spending the same: arm, split, cost, budget, then the estimate over seeds (t interval).

    Between checkpoints the accuracy is interpolated; the initial policy costs nothing (rows of step 0, those of an arm that does not
    train, on the same seed). `budget` None takes what the cheapest trained cell spent in all, so that nothing is extrapolated; a cell
    that spent less than a budget given is left out, and so is one to which this cost does not apply, as it spent none. `results` is a
    study's table, of which the rows of one `split` are read; `cost` names the column that is spent. Cells that failed are left out.

    Raises:
        ValueError: when no arm was trained, or none spent any, when this cost could not be counted for some arm (NaN), or when an arm
            was not evaluated before the budget was spent.
    """
    rows = _finished(results, split)
    if uncounted := sorted(set(rows.loc[(rows["step"] > 0) & rows[cost].isna(), "arm"])):
        raise ValueError(f"{cost} could not be counted for {uncounted}; compare them by tokens or seconds, or leave these arms out")
    start, trained = rows[rows["step"] == 0].groupby("seed")["accuracy"].mean(), rows[rows["step"] > 0]
    trained = trained[trained[cost] > 0]
    if trained.empty:
        raise ValueError(f"no arm was trained, or none of them spent any {cost}")
    spent = trained.groupby(["arm", "seed"])[cost].max()
    budget = float(spent.min() if budget is None else budget)
    found: dict[str, list[float]] = {}
    for (arm, seed), cell in trained.groupby(["arm", "seed"], sort=False):
        if spent[arm, seed] < budget:
            continue
        cell = cell.sort_values("step")
        first = [start[seed]] if seed in start.index else ([start.mean()] if len(start) else [])
        costs = np.array([*[0.0] * len(first), *cell[cost]], dtype=float)
        if costs[0] > budget:
            raise ValueError(
                f"at_matched_cost: {arm!r} was first evaluated after {costs[0]:g} {cost}, more than the budget of {budget:g}, and "
                "the initial policy was not evaluated; give a larger budget, or evaluate the initial policy as well"
            )
        found.setdefault(arm, []).append(float(np.interp(budget, costs, [*first, *cell["accuracy"]])))
    about = {"split": split, "cost": cost, "budget": budget}
    return pd.DataFrame([{"arm": arm, **about, **seed_interval(values, within=SHARE).as_dict()} for arm, values in found.items()])


def choose(results: pd.DataFrame, split: str = "validation") -> pd.DataFrame:
    """Return, for each method of a search, whose arms differ in the learning rate, the rate with the best mean accuracy over seeds.

    One row per method: method, learning_rate, then the accuracy at that rate with its t interval over seeds.

    Raises:
        ValueError: when methods were given different numbers of rates or of seeds, so that the search would favour one.
    """
    rows = final_rows(results, split)
    trained = results["learning_rate"].notna()
    budgets = results.loc[trained, ["method", "learning_rate", "seed"]].drop_duplicates()["method"].value_counts()
    if budgets.nunique() > 1:
        raise ValueError(f"the methods were not searched with the same budget: {budgets.to_dict()} cells")
    found = []
    for (method, rate), values in rows.groupby(["method", "learning_rate"], sort=False)["accuracy"]:
        found.append({"method": method, "learning_rate": rate, **seed_interval(values, within=SHARE).as_dict()})
    means = pd.DataFrame(found)
    means = means[means["n"] == means.groupby("method")["n"].transform("max")]  # a rate that failed with a seed is no choice
    return means.loc[means.groupby("method", sort=False)["mean"].idxmax()].reset_index(drop=True)
