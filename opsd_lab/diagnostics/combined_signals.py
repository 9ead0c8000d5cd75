"""What a teacher's numbers are compared with when they look for a wrong step: the step's position, and several numbers together."""

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
import statsmodels.api as sm

from opsd_lab.basics.options import whole
from opsd_lab.diagnostics.first_wrong_step import first_wrong_step

POSITION = "position"


def with_position(steps: pd.DataFrame) -> pd.DataFrame:
    """Return rows of `score_steps` with `position`, the share of a rollout's steps that stand before this one, in [0, 1).

    What it finds alone is what lateness gives: mistakes come late.
    """
    later = steps.sort_values("step", kind="stable").groupby("rollout")["step"]
    return steps.assign(**{POSITION: later.cumcount().reindex(steps.index) / later.transform("size").reindex(steps.index)})


def with_combination(
    steps: pd.DataFrame, signals: Sequence[str], name: str = "combination", *, folds: int = 5, seed: int = 0
) -> pd.DataFrame:
    """Return `steps`, rows of `score_steps`, with a column `name` in which several signals are combined: larger is more suspicious.

    A logistic regression of "incorrect" against "correct" on the standardised `signals`, fitted without the problem that it is asked
    about: problems are dealt into `folds` with the `seed`, and each fold is told by the others. Unverifiable steps are told and not
    learnt from. Intervals of what the column finds take the fits as they are.

    Raises:
        ValueError: when there are fewer problems than folds, or the steps that a fold learns from are all right or all wrong.
        TypeError: for a number of folds that is none.
    """
    whole("folds", folds, least=2)
    problems, names = pd.factorize(steps["problem_id"])
    if len(names) < folds:
        raise ValueError(f"with_combination: there are {len(names)} problems for {folds} folds")
    fold = np.random.default_rng(seed).permutation(len(names))[problems] % folds
    values = steps[list(signals)].to_numpy(float)
    wrong, judged = (steps["label"] == "incorrect").to_numpy(), (steps["label"] != "unverifiable").to_numpy()
    spread = values.std(0)
    # The intercept stays out of what is told: it would carry a fold's share of mistakes, which is high where the asked fold's is low.
    scaled = (values - values.mean(0)) / np.where(spread > 0, spread, 1)
    found = np.empty(len(steps))
    for number in range(folds):
        learnt, asked = judged & (fold != number), fold == number
        if len(set(wrong[learnt])) < 2:
            raise ValueError("with_combination: a fold learns from steps that are all right or all wrong; take fewer folds")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of signals that tell right from wrong perfectly
            known = sm.add_constant(scaled[learnt], has_constant="add")
            fitted = sm.GLM(wrong[learnt].astype(float), known, family=sm.families.Binomial()).fit()
        found[asked] = scaled[asked] @ fitted.params[1:]
    return steps.assign(**{name: found})


def by_slice(steps: pd.DataFrame, column: str, signals: dict[str, int], least: int = 10) -> pd.DataFrame:
    """Return `first_wrong_step` of each value of a `column` of `steps`, such as author.

    Values with mistakes in fewer problems than `least` are left out. `signals` are those of `first_wrong_step`.

    Raises:
        ValueError: when no value is left.
    """
    found = []
    for value, part in steps.groupby(column, sort=True):
        mistaken = part.loc[part["label"] == "incorrect", "problem_id"].nunique()
        if mistaken >= least and (part["label"] == "correct").any():
            found.append(first_wrong_step(part.reset_index(drop=True), signals).assign(**{column: value}))
    if not found:
        raise ValueError(f"by_slice: no value of {column!r} has mistakes in {least} problems or more")
    return pd.concat(found, ignore_index=True)[[column, *(name for name in found[0] if name != column)]]
