"""Signal against capability, on steps that were made up so that the teacher knows something that the student does not."""

import numpy as np
import pandas as pd
import pytest

from opsd_lab.diagnostics.first_wrong_step import first_wrong_step
from opsd_lab.experiments.capability import ALONE, COMPARED, OTHER, WITH_TEACHER, capability_table, champ_signals, signal_table
from opsd_lab.figures.capability import draw_capability
from tests.test_first_wrong_step import random_steps


def two_views(seed=0, shift=1.0):
    reference = random_steps(60, seed, shift)
    other = reference.assign(gap=np.random.default_rng(seed + 100).normal(size=len(reference)), view="other problem", scope="all")
    compared = random_steps(5, seed).assign(view="reference", scope="compared")
    return pd.concat([reference.assign(view="reference", scope="all"), other, compared], ignore_index=True)


def answers(right, seed=0, problems=30, n=4):
    rng, rows = np.random.default_rng(seed), []
    for view in ("none", "reference"):
        for problem in range(problems):
            for sample in range(n):
                verdict = "correct" if rng.random() < (right if view == "none" else 0.9) else "incorrect"
                verdicts = {"final": verdict, "boxed": verdict, "last_number": verdict}
                keys = {"set": "CHAMP", "view": view, "problem_id": f"p{problem}", "sample": sample}
                rows.append({**keys, **verdicts, "answer": "1", "truncated": False, "tokens": 9})
    return pd.DataFrame(rows)


def test_each_signal_is_measured_on_the_same_steps():
    steps = champ_signals(two_views())
    assert len(steps) == len(random_steps(60)) and set(COMPARED) <= set(steps)
    table = signal_table({"a": steps}).set_index("signal")
    assert list(table.index) == list(COMPARED)
    alone = first_wrong_step(steps, {"gap": -1})
    assert table.loc["gap", "mean"] == alone.loc[alone["measure"] == "auroc", "mean"].item()
    assert table.loc[OTHER, "low"] < 0.5 < table.loc[OTHER, "high"] and table.loc["gap", "low"] > 0.6


def test_what_the_teacher_adds_is_said_beside_the_student_alone():
    table = signal_table({"knows": champ_signals(two_views(1, 1.5)), "does not": champ_signals(two_views(2, 0.0))})
    both = table[table["signal"] == WITH_TEACHER].set_index("model")
    assert (both["baseline"] == ALONE).all() and both.loc["knows", "difference_low"] > 0.1
    assert both.loc["does not", "difference_low"] < 0.05


def test_views_with_other_steps_are_refused():
    steps = two_views()
    with pytest.raises(ValueError, match="need the same steps"):
        champ_signals(steps.drop(index=3))
    with pytest.raises(ValueError, match="the views reference and other problem"):
        champ_signals(steps[steps["view"] == "reference"])


def test_capability_is_the_accuracy_without_a_view_and_the_figure_has_a_point_for_each_model():
    accuracy = capability_table({"small": answers(0.1), "large": answers(0.6)}).set_index("model")
    assert accuracy["mean"].to_dict() == pytest.approx({"small": 0.1, "large": 0.6}, abs=0.1)
    table = signal_table({"small": champ_signals(two_views(1, 0.1)), "large": champ_signals(two_views(2, 1.5))})
    figure = draw_capability(table, accuracy.reset_index())
    lines = [trace for trace in figure.data if trace.showlegend]
    names = [*COMPARED]
    names[names.index("student_logprob")], names[names.index("student_entropy")] = (
        "student's log-<br>probability",
        "student's entropy",
    )
    assert [trace.name for trace in lines] == names
    places = np.array([trace.x for trace in lines])  # those of a model lie around its accuracy, none on another
    assert places.mean(0) == pytest.approx(sorted(accuracy["mean"])) and (np.diff(places, axis=0) > 0).all()
    assert {annotation.text.split("<br>")[0] for annotation in figure.layout.annotations} >= {"small", "large"}
    with pytest.raises(ValueError, match="there is no accuracy of 'large'"):
        draw_capability(table, accuracy.loc[["small"]].reset_index())
