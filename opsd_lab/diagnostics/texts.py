"""What rollouts read like, and how they change while the student trains."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from opsd_lab.diagnostics.estimates import Estimates, Prepared, prepare
from opsd_lab.tokens.classes import SPECIAL
from opsd_lab.tokens.table import TokenTable

MARKERS = ("wait", "hmm", "perhaps", "maybe", "actually", "alternatively", "seems", "might", "likely", "check")
MARKER = re.compile(rf"\b(?:{'|'.join(MARKERS)})\b", re.IGNORECASE)

# A student that speaks of a solution has been shown none: it imitates a teacher that was.
LEAKAGE_PHRASES = (
    "the reference",
    "reference solution",
    "reference answer",
    "verified solution",
    "verified answer",
    "the given solution",
    "the provided solution",
    "the solution provided",
    "the solution above",
    "the answer above",
    "the solution given",
    "the hints",
)
LEAKAGE = re.compile(r"\b(?:" + "|".join(LEAKAGE_PHRASES).replace(" ", r"\s+") + r")\b", re.IGNORECASE)
REPEATED = 4  # tokens of the n-grams whose repetition is counted


def epistemic_markers(table: TokenTable) -> pd.DataFrame:
    """Return how often each of `MARKERS` stands in a rollout, and all of them together in "total" (arXiv 2603.24472).

    Whole words of the joined tokens count, in any case. `outcome` is "all" and, where some rollout of the table has an outcome,
    each outcome too; longer rollouts hold more words, so compare `n_tokens` as well.

    Raises:
        ValueError: for an empty table.
    """
    rows = prepare(table, "epistemic_markers")
    found = [Counter(word.lower() for word in MARKER.findall(text)) for text in rows.texts()]
    counts = {marker: np.array([counter[marker] for counter in found]) for marker in MARKERS}
    counts["total"] = np.sum(list(counts.values()), axis=0)
    units, _, first = rows.units.averages(np.zeros(len(rows.units)), rows.units.rollout)
    outcome = rows.frame["outcome"].to_numpy(dtype=object)[first]
    groups = {"all": np.ones(len(outcome), dtype=bool)}
    if (outcome != "").any():
        groups |= {verdict: outcome == verdict for verdict in ("correct", "incorrect", "unverifiable")}
    estimates = Estimates(["outcome", "marker"])
    for group, chosen in groups.items():
        for marker, values in counts.items():
            estimates.add((group, marker), units, values, chosen)
    return estimates.frame()


def drift(tables: Sequence[TokenTable] | Mapping[int, TokenTable], max_new_tokens: int) -> pd.DataFrame:
    """Return how the rollouts of each training step read: one table per step, numbered from 1, or a mapping from the step's number.

    `length` is the mean number of tokens; `truncation_rate` the share of rollouts of `max_new_tokens` tokens that do not end in a
    special token; `repetition` the mean over rollouts of the share of 4-grams of tokens that occurred in the rollout before
    (seq-rep-4, arXiv 1908.04319; rollouts of fewer tokens have none and do not count); `student_entropy` the mean over tokens
    (nats); `leakage_rate` the share of rollouts that hold one of `LEAKAGE_PHRASES`. All of it is of what the tables hold: where a
    run leaves cut rollouts or their last tokens out (`TrainingParams.truncated`), or a gate keeps rollouts back, they do not count.

    Raises:
        ValueError: when there is no table, one is empty, or one has a rollout of more than `max_new_tokens` tokens.
    """
    tables = tables if isinstance(tables, Mapping) else dict(enumerate(tables, start=1))
    if not tables:
        raise ValueError("drift: there are no tables; give it one for each training step, such as StepRecord.table")
    parts = []
    for number, table in tables.items():
        part = _drift(prepare(table, f"drift, step {number}"), number, max_new_tokens).frame()
        part.insert(0, "training_step", number)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _drift(rows: Prepared, number: int, max_new_tokens: int) -> Estimates:
    units, repeated, _ = rows.units.averages(_repeated(rows), np.where(rows.place >= REPEATED - 1, rows.units.rollout, -1))
    estimates = Estimates(["measure"])
    rollouts, _, starts = rows.units.averages(np.zeros(len(rows.units)), rows.units.rollout)
    length = rollouts.tokens
    if (length > max_new_tokens).any():
        longest = int(rows.frame["rollout"].iloc[starts[length.argmax()]])
        raise ValueError(
            f"drift, step {number}: rollout {longest} has {length.max()} tokens, more than max_new_tokens = {max_new_tokens}; give "
            "the limit that the rollouts were sampled with"
        )
    last = rows.frame["token"].to_numpy(dtype=object)[starts + length - 1]
    ended = np.array([SPECIAL.fullmatch(token) is not None for token in last])
    leaks = np.array([LEAKAGE.search(text) is not None for text in rows.texts()])
    every = np.ones(len(rollouts), dtype=bool)
    estimates.add(("length",), rollouts, length, every)
    estimates.add(("truncation_rate",), rollouts, (length == max_new_tokens) & ~ended, every, share=True)
    estimates.add(("repetition",), units, repeated, np.ones(len(units), dtype=bool), share=True)
    estimates.add(("student_entropy",), rows.units, rows.frame["student_entropy"].to_numpy(), np.ones(len(rows.units), dtype=bool))
    estimates.add(("leakage_rate",), rollouts, leaks, every, share=True)
    return estimates


def _repeated(rows: Prepared) -> np.ndarray:
    """Return for each token whether the 4-gram that it ends has occurred in its rollout before [N]."""
    ids = rows.frame["token_id"]
    grams = pd.DataFrame({"rollout": rows.units.rollout} | {i: ids.shift(i, fill_value=-1) for i in range(REPEATED)})
    whole = rows.place >= REPEATED - 1
    repeated = np.zeros(len(whole))
    repeated[whole] = grams[whole].duplicated()
    return repeated
