"""The sentences about several model sizes, on tables that were made up."""

import pandas as pd
import pytest

from opsd_lab.experiments.capability import ALONE, OTHER, OVER_OTHER, WITH_GAP, WITH_OVER
from opsd_lab.experiments.capability_findings import own_findings, premise_findings, signal_findings, size_findings


def asked(name: str, view: str, mean: float, difference: float, half: float = 0.1) -> dict[str, object]:
    bounds = {"low": mean - half, "high": mean + half, "difference_low": difference - half, "difference_high": difference + half}
    return {"set": name, "view": view, "mean": mean, "difference": difference, **bounds}


def test_views_that_raise_or_lower_the_accuracy_are_counted():
    rows = [asked(name, "none", 0.3, 0.0) for name in ("sums", "CHAMP")]
    rows += [asked("sums", "reference", 0.8, 0.5), asked("CHAMP", "reference", 0.35, 0.05)]
    rows += [asked("sums", "other problem", 0.1, -0.2), asked("CHAMP", "other problem", 0.3, 0.0)]
    table = pd.DataFrame(rows).assign(model="small")
    counted, on = premise_findings(table)
    assert counted == "small, accuracy on 2 sets: reference raises 1 and lowers 0; other problem raises 0 and lowers 1."
    assert on == "small, CHAMP: 0.30 [0.20, 0.40] without a view, 0.35 [0.25, 0.45] under the reference."
    with pytest.raises(ValueError, match="small has no row of sums under the view 'reference'"):
        premise_findings(table[(table["view"] != "reference") | (table["set"] == "CHAMP")], "sums")


def test_the_gap_is_told_beside_chance_its_control_and_the_student():
    means = {"gap": 0.6, OTHER: 0.5, OVER_OTHER: 0.57, ALONE: 0.58, WITH_GAP: 0.62, WITH_OVER: 0.63}
    table = pd.DataFrame(
        [{"signal": name, **asked("", "", mean, 0.04, 0.05), "chance": 0.5, "model": "large"} for name, mean in means.items()]
    )
    gap, less, added = signal_findings(table)
    assert "0.60 [0.55, 0.65], above chance" in gap and "0.50 [0.45, 0.55], not told from chance" in gap
    assert gap.endswith("the difference of the two gaps with 0.57 [0.52, 0.62], above chance.")
    assert less.endswith("is 0.04 [−0.01, 0.09].")
    assert "together, 0.58 [0.53, 0.63], the gap adds 0.04 [−0.01, 0.09]" in added and added.endswith("solution 0.04 [−0.01, 0.09].")
    below = table.assign(mean=table["mean"] - 0.2, low=table["low"] - 0.2, high=table["high"] - 0.2)
    assert "0.40 [0.35, 0.45], below chance" in signal_findings(below)[0]


def test_larger_models_are_told_beside_the_smallest():
    rows = [{"model": name, **asked("", "", 0.5, difference, 0.05)} for name, difference in (("small", 0.0), ("large", 0.1))]
    assert size_findings(pd.DataFrame(rows), "gap") == ["The AUROC of large's gap minus that of small's is 0.10 [0.05, 0.15]."]


def test_what_a_models_own_steps_are_told_is_listed_by_column_clip_and_place():
    rows = []
    for column, clip in (("gap", 0.0), ("push", 0.0), ("push", 0.05)):
        for label, phase, mean in (
            ("correct", "before", 0.0),
            ("incorrect", "first_error", -0.5),
            ("correct", "after", float("nan")),
        ):
            numbers = {"mean": mean, "low": mean - 0.1, "high": mean + 0.1}
            rows.append({"column": column, "clip": clip, "label": label, "error_phase": phase, **numbers})
    table = pd.DataFrame(rows).assign(view="reference", per="token")
    gap, push, clipped = own_findings({"small": table})
    known = "0.00 [−0.10, 0.10] on correct steps before any error, −0.50 [−0.60, −0.40] on the first error."
    assert gap == f"small, reference: the gap is {known}"
    assert push == f"small, reference: the push is {known}" and clipped == f"small, reference: the push, clipped at 0.05, is {known}"
    with pytest.raises(ValueError, match="small has no row of the view 'answer'"):
        own_findings({"small": table}, "answer")
