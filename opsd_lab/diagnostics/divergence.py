"""Where the divergence lies: in which tokens, under the clip or not, and how far the two sides' likely tokens agree."""

import numpy as np
import pandas as pd

from opsd_lab.diagnostics.estimates import Estimates, Prepared, prepare
from opsd_lab.tokens.classes import CLASSES, token_classes
from opsd_lab.tokens.table import TokenTable
from opsd_lab.tokens.top import TopTokens

QUANTILES = {"median": 0.5, "90 %": 0.9, "99 %": 0.99}


def divergence_by_quarter(table: TokenTable) -> pd.DataFrame:
    """Return the share of the table's total divergence that lies in each quarter of its rollouts.

    Token i of a rollout's n tokens in the table lies in quarter floor(4 i / n). The shares add up to 1; they are NaN where the
    total is not positive, as with equal sides.

    Raises:
        ValueError: for an empty table.
    """
    rows = prepare(table, "divergence_by_quarter")
    divergence = rows.frame["divergence"].to_numpy()
    estimates = Estimates(["quarter"])
    for quarter in range(4):
        estimates.add((quarter + 1,), rows.units, divergence, rows.quarter == quarter, divergence, share=True)
    return estimates.frame()


def divergence_by_class(table: TokenTable) -> pd.DataFrame:
    """Return the mean divergence (nats) of each class of tokens, and the class's share of the table's total divergence.

    The classes are those of `opsd_lab.tokens.classes`, read rollout by rollout. The shares add up to 1; they are NaN where the
    total is not positive.

    Raises:
        ValueError: for an empty table.
    """
    rows = prepare(table, "divergence_by_class")
    divergence = rows.frame["divergence"].to_numpy()
    per_rollout = np.split(rows.frame["token"].to_numpy(dtype=object), rows.firsts()[1:])
    classes = np.array([name for tokens in per_rollout for name in token_classes(tokens)])
    estimates = Estimates(["measure", "token_class"])
    for measure, bottom in {"divergence": None, "share": divergence}.items():
        for name in CLASSES:
            estimates.add((measure, name), rows.units, divergence, classes == name, bottom, share=bottom is not None)
    return estimates.frame()


def clipping(table: TokenTable) -> pd.DataFrame:
    """Return what the point-wise clip takes: `clip_fraction` of the tokens, `clipped_mass` of the unclipped divergence.

    A token counts as clipped when `clipped` is positive; the mass is sum(clipped) / sum(divergence + clipped), NaN where that
    total is not positive.

    Raises:
        ValueError: for an empty table.
    """
    rows = prepare(table, "clipping")
    divergence, clipped = (rows.frame[name].to_numpy() for name in ("divergence", "clipped"))
    every = np.ones(len(clipped), dtype=bool)
    estimates = Estimates(["measure"])
    estimates.add(("clip_fraction",), rows.units, clipped > 0, every, share=True)
    estimates.add(("clipped_mass",), rows.units, clipped, every, divergence + clipped, share=True)
    return estimates.frame()


def top_k_overlap(table: TokenTable, k: int = 16, bins: int = 10) -> pd.DataFrame:
    """Return how far the sides' k most probable tokens agree, S for the student's set and T for the teacher's (arXiv 2604.13016).

    `overlap` is |S & T| / k, `student_mass` and `teacher_mass` are the probability that each side gives to S & T, `entropy_gap`
    is the absolute difference of the sides' entropies (nats): means over all tokens and, by relative position, over `bins` bins;
    token i of n lies in bin floor(bins * i / n). `start` and `end` bound the bin, as fractions of the rollout.

    Raises:
        ValueError: for an empty table, `bins` < 1, or a table without the k most probable tokens.
    """
    rows = prepare(table, "top_k_overlap")
    top = _top(rows, k, "top_k_overlap")
    if bins < 1:
        raise ValueError(f"top_k_overlap: bins is {bins}; it must be at least 1")
    shared = {side: np.zeros((len(top), k), dtype=bool) for side in ("student", "teacher")}
    for i in range(k):  # [N, k] at a time, not [N, k, k]
        same = top.student_top_ids[:, :k] == top.teacher_top_ids[:, i : i + 1]
        shared["student"] |= same
        shared["teacher"][:, i] = same.any(axis=1)
    measures = {
        "overlap": shared["student"].mean(axis=1),
        "student_mass": (np.exp(top.student_top_logprobs[:, :k], dtype=np.float64) * shared["student"]).sum(axis=1),
        "teacher_mass": (np.exp(top.teacher_top_logprobs[:, :k], dtype=np.float64) * shared["teacher"]).sum(axis=1),
        "entropy_gap": np.abs(rows.frame["student_entropy"] - rows.frame["teacher_entropy"]).to_numpy(),
    }
    place = bins * rows.place // rows.length
    estimates = Estimates(["measure", "position", "start", "end"])
    for measure, values in measures.items():
        estimates.add(
            (measure, "all", 0.0, 1.0), rows.units, values, np.ones(len(values), dtype=bool), share=measure != "entropy_gap"
        )
        for i in range(bins):
            name = f"{100 * i / bins:.3g}-{100 * (i + 1) / bins:.3g} %"
            estimates.add((measure, name, i / bins, (i + 1) / bins), rows.units, values, place == i, share=measure != "entropy_gap")
    return estimates.frame()


def top_tokens(table: TokenTable) -> pd.DataFrame:
    """Return how much divergence (nats) each text of a token holds in all, largest first: token, total, count.

    Raises:
        ValueError: for an empty table.
    """
    rows = prepare(table, "top_tokens").frame.groupby("token", sort=False)["divergence"]
    found = rows.agg(total="sum", count="size").reset_index()
    return found.sort_values("total", ascending=False, kind="stable", ignore_index=True)


def teacher_mass_outside(table: TokenTable, k: int = 16) -> pd.DataFrame:
    """Return the probability that the teacher gives to tokens outside the student's k most probable: its mean and quantiles.

    A quantile is the smallest value that at least that share of the tokens does not exceed; it stands in the column `mean`. Its
    bounds are the quantiles at the bounds of that share (Woodruff 1952), which are over problems like the mean's.

    Raises:
        ValueError: for an empty table, or one without the k most probable tokens.
    """
    rows = prepare(table, "teacher_mass_outside")
    top = _top(rows, k, "teacher_mass_outside")
    inside = np.exp(top.student_top_elsewhere[:, :k], dtype=np.float64).sum(axis=1)
    values = np.maximum(0.0, 1 - inside)  # rounding can put the sum above 1
    every = np.ones(len(values), dtype=bool)
    estimates, shares = Estimates(["statistic"]), Estimates(["statistic"])
    estimates.add(("mean",), rows.units, values, every, share=True)
    for name, share in QUANTILES.items():
        below = values <= np.quantile(values, share, method="inverted_cdf")
        shares.add((name,), rows.units, below, every, share=True, around=share)
    quantiles = shares.frame()
    for column in ("mean", "low", "high"):
        known = quantiles[column].notna()
        quantiles.loc[known, column] = np.quantile(values, quantiles.loc[known, column], method="inverted_cdf")
    return pd.concat([estimates.frame(), quantiles], ignore_index=True)


def _top(rows: Prepared, k: int, name: str) -> TopTokens:
    top = rows.table.top
    if top is None:
        raise ValueError(f"{name}: the table has no most probable tokens; score the rollouts with top_k={k} (score_rollouts)")
    if not 1 <= k <= top.k:
        raise ValueError(f"{name}: k is {k}, but the table holds the {top.k} most probable tokens; score with top_k={k} or lower k")
    return top
