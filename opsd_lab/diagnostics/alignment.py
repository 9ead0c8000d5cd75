"""Does the signal know right from wrong: between rollouts, between steps, and on the answer's own tokens."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Literal

import numpy as np
import pandas as pd

from opsd_lab.diagnostics.estimates import UNJUDGED, UNLABELLED, Estimates, Prepared, prepare
from opsd_lab.grading.found import THINKING_ENDS
from opsd_lab.grading.places import answer_spans
from opsd_lab.tokens.classes import SPECIAL
from opsd_lab.tokens.table import TokenTable

FACETS = {"all": (0, 1, 2, 3), "first 25 %": (0,), "middle 50 %": (1, 2), "last 25 %": (3,)}
LABEL_GROUPS = ("correct", "incorrect", "unverifiable", "none")
CONTRAST = "incorrect - correct"
PHASE_GROUPS = ("before", "first_error", "after")
RESULTS = ("valid, not the answer", "wrong", "the answer")

By = Literal["label", "error_phase"] | tuple[Literal["label"], Literal["error_phase"]]


def with_outcomes(table: TokenTable, outcomes: Sequence[str] | Mapping[int, str]) -> TokenTable:
    """Return the table with the verdict on each rollout's final answer, such as `Grade.final`, in its column `outcome`.

    `outcomes` holds one verdict per rollout, in ascending order of the rollouts' numbers, or maps those numbers to verdicts.
    "missing", no answer at all, is an incorrect outcome.

    Raises:
        ValueError: when a rollout is without a verdict or a verdict without a rollout, or a verdict is unknown.
    """
    numbers = np.unique(table.frame["rollout"]).tolist()
    if not isinstance(outcomes, Mapping):
        if len(outcomes) != len(numbers):
            raise ValueError(f"with_outcomes: {len(outcomes)} outcomes for the table's {len(numbers)} rollouts")
        outcomes = dict(zip(numbers, outcomes, strict=True))
    if wrong := sorted(set(numbers) ^ set(outcomes)):
        where = "is not in the table" if wrong[0] in outcomes else "has no outcome"
        raise ValueError(f"with_outcomes: rollout {wrong[0]} {where} ({len(wrong)} rollouts do not match)")
    verdicts = {number: "incorrect" if verdict == "missing" else verdict for number, verdict in outcomes.items()}
    return table.with_columns(outcome=table.frame["rollout"].map(verdicts))


def correctness_alignment(table: TokenTable, column: str = "gap") -> pd.DataFrame:
    """Return how much higher a column lies on a problem's correct rollouts than on its incorrect ones (arXiv 2609.20612).

    Per problem that has both: the mean over its correct rollouts of a rollout's mean over tokens, minus the same for its
    incorrect rollouts, as the column `contrast` says; then the mean over those problems. `facet` takes the tokens of the whole
    rollout, its first quarter, its middle half or its last quarter; token i of n lies in quarter floor(4 i / n), so a rollout of
    fewer than four tokens has quarters without tokens, and does not count there.

    Raises:
        ValueError: for an empty table, one without outcomes, or a column without numbers.
    """
    rows = prepare(table, "correctness_alignment")
    values = rows.values(column, "correctness_alignment")
    outcome = _outcomes(rows, "correctness_alignment")
    estimates = Estimates(["contrast", "facet"])
    for facet, quarters in FACETS.items():
        units, means, first = rows.units.averages(values, np.where(np.isin(rows.quarter, quarters), rows.units.rollout, -1))
        verdicts = outcome[first]
        sides = np.stack([verdicts == "correct", verdicts == "incorrect"])
        per_problem = np.stack([np.bincount(units.problem[side], minlength=rows.units.problem.max() + 1) for side in sides])
        chosen = sides.any(axis=0) & (per_problem > 0).all(axis=0)[units.problem]
        share = np.where(chosen, 1 / np.maximum(1, np.where(sides[0], *per_problem[:, units.problem])), 0.0)
        # The shares of a problem's rollouts add up to 1 on each side, so half of them count the problems.
        estimates.add(("correct - incorrect", facet), units, np.where(sides[0], share, -share) * means, chosen, share / 2)
    return estimates.frame()


def step_gap(table: TokenTable, column: str = "gap", by: By = "label") -> pd.DataFrame:
    """Return a column's mean by the verdict on the step that each token belongs to, and by where the first error lies.

    `per` says what counts alike: each "token", or each "step" by the mean of its tokens. `label` is the step's verdict, "none"
    holding the tokens in no step or in one without a verdict; `error_phase` is the table's column, and `by=("label",
    "error_phase")` crosses the two. The rows "incorrect - correct" and, for phases, "first_error - before" and "after - before" are
    paired differences; their counts are those of both sides together.

    Raises:
        ValueError: for an empty table, one without labels (or without phases), a column without numbers, or an unknown `by`.
    """
    names = [by] if isinstance(by, str) else list(by)
    if names not in (["label"], ["error_phase"], ["label", "error_phase"]):
        raise ValueError(f'step_gap: by is {by!r}; it is "label", "error_phase" or ("label", "error_phase")')
    rows = prepare(table, "step_gap")
    values = rows.values(column, "step_gap")
    groups = {name: rows.frame[name].to_numpy(dtype=object) for name in names}
    for name, found in groups.items():
        if not (found != "").any():
            raise ValueError(f"step_gap: the column {name!r} is empty: {UNLABELLED}")
    if "label" in groups:
        groups["label"] = np.where(groups["label"] == "", "none", groups["label"])
    known = [LABEL_GROUPS if name == "label" else PHASE_GROUPS for name in names]
    estimates = Estimates(["per", *names], ["n_rollouts", "n_steps", "n_tokens"])
    for per in ("token", "step"):
        units, means, first = (rows.units, values, np.arange(len(values)))
        if per == "step":
            units, means, first = rows.units.averages(values, rows.units.step)
            if "error_phase" in groups:  # a step that holds the first error is its step, wherever in it the error begins
                erring = np.unique(rows.units.step[groups["error_phase"] == "first_error"])
                groups["error_phase"] = np.where(np.isin(rows.units.step, erring[erring >= 0]), "first_error", groups["error_phase"])
        for keys in product(*known):
            if per == "step" and keys[0] == "none":
                continue  # tokens in no step are no step
            chosen = np.logical_and.reduce([groups[name][first] == key for name, key in zip(names, keys, strict=True)])
            estimates.add((per, *keys), units, means, chosen)
        if names[0] == "label":
            for rest in product(*known[1:]):
                estimates.subtract((per, CONTRAST, *rest), (per, "incorrect", *rest), (per, "correct", *rest))
        else:
            for phase in PHASE_GROUPS[1:]:
                estimates.subtract((per, f"{phase} - before"), (per, phase), (per, "before"))
    return estimates.frame()


def result_digits(table: TokenTable, column: str = "gap") -> pd.DataFrame:
    """Return a column's mean over the digits of equations' results: valid ones, wrong ones, and the one that is the answer.

    The result of an equation is what follows its step's last "=" up to the first letter; its tokens that hold a digit count.
    "wrong" are the results of incorrect equations; "the answer" is the result of a rollout's last equation where that is correct
    and so is the rollout's outcome; all other correct equations are "valid, not the answer". Unverifiable equations, and
    rollouts without a verdict on their outcome, count nowhere.

    Raises:
        ValueError: for an empty table, one without labels or outcomes, or a column without numbers.
    """
    rows = prepare(table, "result_digits")
    values = rows.values(column, "result_digits")
    outcome = _outcomes(rows, "result_digits")
    label = rows.frame["label"].to_numpy(dtype=object)
    if not (label != "").any():
        raise ValueError(f"result_digits: {UNLABELLED}")
    digits, last = _results(rows)
    judged = digits & np.isin(outcome, ("correct", "incorrect"))
    answer = last & (outcome == "correct")
    estimates = Estimates(["group"], ["n_rollouts", "n_steps", "n_tokens"])
    chosen = ((label == "correct") & ~answer, label == "incorrect", (label == "correct") & answer)
    for group, mask in zip(RESULTS, chosen, strict=True):
        estimates.add((group,), rows.units, values, judged & mask)
    estimates.subtract((f"{RESULTS[1]} - {RESULTS[0]}",), (RESULTS[1],), (RESULTS[0],))
    return estimates.frame()


def _results(rows: Prepared) -> tuple[np.ndarray, np.ndarray]:
    """Return which tokens hold digits of an equation's result [N], and which belong to their rollout's last equation [N]."""
    step, tokens = rows.units.step, rows.frame["token"]
    equals = tokens.str.contains("=", regex=False).to_numpy(dtype=bool) & (step >= 0)
    index = np.arange(len(step))
    end = np.full(step.max() + 2, -1)  # of each step, its last "="; the last entry, of no step, stays -1
    end[step[equals]] = index[equals]  # of equal places the last is kept
    after = tokens.where(index != end[step], tokens.str.rpartition("=")[2])
    following = (step >= 0) & (end[step] >= 0) & (index >= end[step])
    letters = following & after.str.contains(r"[^\W\d_]", regex=True).to_numpy(dtype=bool)
    stop = np.full(len(end), len(step))
    np.minimum.at(stop, step[letters], index[letters])
    digits = following & (index < stop[step]) & after.str.contains("[0-9]", regex=True).to_numpy(dtype=bool)
    equation = np.where(end[step] >= 0, step, -1)
    final = np.full(rows.units.rollout.max() + 1, -1)
    np.maximum.at(final, rows.units.rollout, equation)
    return digits, (step >= 0) & (step == final[rows.units.rollout])


def sign_noise(table: TokenTable) -> pd.DataFrame:
    r"""Return the share of answer tokens whose gap has the wrong sign for the rollout's outcome (arXiv 2608.31046).

    Wrong are a positive gap where the outcome is incorrect and a negative one where it is correct; a gap of 0 is neither, and
    counts as a token. Answer tokens lie inside the box that the grader reads, else they hold the digits of the number that it reads
    (`opsd_lab.grading.places.answer_spans`). Rollouts without an answer, or without a verdict on it, count nowhere.

    Raises:
        ValueError: for an empty table, or one without outcomes.
    """
    rows = prepare(table, "sign_noise")
    outcome = _outcomes(rows, "sign_noise")
    gap = rows.frame["gap"].to_numpy()
    wrong = np.where(outcome == "correct", gap < 0, gap > 0)
    answers = _answer_tokens(rows)
    estimates = Estimates(["outcome"])
    for group, verdicts in {"all": ("correct", "incorrect"), "correct": ("correct",), "incorrect": ("incorrect",)}.items():
        estimates.add((group,), rows.units, wrong, answers & np.isin(outcome, verdicts), share=True)
    return estimates.frame()


def _answer_tokens(rows: Prepared) -> np.ndarray:
    found = []
    for tokens in np.split(rows.frame["token"].to_numpy(dtype=object), rows.firsts()[1:]):
        # A special token is no part of the text that is graded, and may hold digits; but the grader looks for where thinking ends.
        pieces = ["" if SPECIAL.fullmatch(token) and not THINKING_ENDS.fullmatch(token) else token for token in tokens]
        text = "".join(pieces)
        inside = np.zeros(len(text) + 1, dtype=np.int64)
        for start, end in answer_spans(text):
            inside[start + 1 : end + 1] = 1
        covered = inside.cumsum()
        ends = np.cumsum([len(piece) for piece in pieces])
        found.append(covered[ends] > covered[np.append(0, ends[:-1])])
    return np.concatenate(found)


def _outcomes(rows: Prepared, name: str) -> np.ndarray:
    outcome = rows.frame["outcome"].to_numpy(dtype=object)
    if not (outcome != "").any():
        raise ValueError(f"{name}: {UNJUDGED}")
    return outcome
