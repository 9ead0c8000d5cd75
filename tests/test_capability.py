"""Signal against capability, on steps that were made up so that the teacher knows something that the student does not."""

import numpy as np
import pandas as pd
import pytest

from opsd_lab.diagnostics.first_wrong_step import first_wrong_step
from opsd_lab.experiments.capability import (
    ALONE,
    COMPARED,
    MODELS,
    OTHER,
    OVER_OTHER,
    WITH_GAP,
    WITH_OVER,
    capability_table,
    champ_signals,
    measured,
    signal_table,
    size_signals,
    slice_signals,
    view_signals,
)
from opsd_lab.experiments.premise import premise_table
from opsd_lab.figures.capability import NAMES, draw_capability, draw_premise
from opsd_lab.figures.words import wrapped
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
                rows.append({**keys, **verdicts, "answer": "1", "truncated": False, "tokens": 9, "copied": 0.0, "shared": 0.0})
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
    both = table[table["signal"] == WITH_GAP].set_index("model")
    assert (both["baseline"] == ALONE).all() and both.loc["knows", "difference_low"] > 0.1
    assert both.loc["does not", "difference_low"] < 0.05
    over = table[table["signal"] == WITH_OVER].set_index("model")  # the other gap is noise here
    assert (over["baseline"] == ALONE).all() and 0 < over.loc["knows", "mean"] < both.loc["knows", "mean"]


def test_views_with_other_steps_are_refused():
    steps = two_views()
    with pytest.raises(ValueError, match="all views need the same steps"):
        champ_signals(steps.drop(index=3))
    with pytest.raises(ValueError, match="reference and other problem among them"):
        champ_signals(steps[steps["view"] == "reference"])


def test_capability_is_the_accuracy_without_a_view_and_the_figure_has_a_point_for_each_model():
    accuracy = capability_table({"small": answers(0.1), "large": answers(0.6)}).set_index("model")
    assert accuracy["mean"].to_dict() == pytest.approx({"small": 0.1, "large": 0.6}, abs=0.1)
    table = signal_table({"small": champ_signals(two_views(1, 0.1)), "large": champ_signals(two_views(2, 1.5))})
    figure = draw_capability(table, accuracy.reset_index())
    lines = [trace for trace in figure.data if trace.showlegend]
    names = [wrapped(NAMES.get(name, name)) for name in COMPARED]
    assert [trace.name for trace in lines] == names
    places = np.array([trace.x for trace in lines])  # those of a model lie around its accuracy, none on another
    assert places.mean(0) == pytest.approx(sorted(accuracy["mean"])) and (np.diff(places, axis=0) > 0).all()
    assert {annotation.text.split("<br>")[0] for annotation in figure.layout.annotations} >= {"small", "large"}
    with pytest.raises(ValueError, match="there is no accuracy of 'large'"):
        draw_capability(table, accuracy.loc[["small"]].reset_index())


def test_the_gap_over_that_under_another_problem_is_the_teachers_alone():
    steps = champ_signals(two_views())
    assert steps[OVER_OTHER].to_numpy() == pytest.approx((steps["gap"] - steps[OTHER]).to_numpy())
    table = signal_table({"a": steps}).set_index("signal")
    assert table.loc[OVER_OTHER, "mean"] < table.loc["gap", "mean"]  # the other gap is noise here


def test_each_part_of_the_solutions_is_measured_alone():
    steps = champ_signals(two_views())
    author = np.where(steps["problem_id"].isin(steps["problem_id"].unique()[:30]), "first", "second")
    steps = steps.assign(author=author)
    table = slice_signals({"a": steps}, "author").set_index(["author", "signal"])
    for part in ("first", "second"):
        alone = first_wrong_step(steps[steps["author"] == part], {"gap": -1}).set_index("measure")
        assert table.loc[(part, "gap"), "mean"] == alone.loc["auroc", "mean"] and table.loc[(part, "gap"), "n"] == 30
    lonely = pd.concat([steps, steps[steps["label"] == "correct"].head(3).assign(author="third")])
    assert set(slice_signals({"a": lonely}, "author")["author"]) == {"first", "second"}
    with pytest.raises(ValueError, match="no value of 'author' has mistakes"):
        slice_signals({"a": lonely[lonely["author"] == "third"]}, "author")


def test_views_are_compared_with_another_problems_solution_on_the_same_steps():
    whole = two_views().query("scope == 'all'")
    steps = whole.assign(scope="compared")
    table = view_signals({"a": pd.concat([steps, whole])}).set_index("view")
    alone = first_wrong_step(steps[steps["view"] == "reference"], {"gap": -1}).set_index("measure").loc["auroc"]
    assert list(table.index) == ["reference", "other problem"] and table.loc["reference", "mean"] == alone["mean"]
    assert table.loc["reference", "difference_low"] > 0 == table.loc["other problem", "difference"]
    with pytest.raises(ValueError, match="all views need the same steps"):
        view_signals({"a": steps.iloc[1:]})


def test_the_premises_figure_says_what_each_view_adds():
    rows = answers(0.2)
    frame = premise_table(rows).assign(model="small")
    figure = draw_premise(frame)
    (cells,) = figure.data
    none, reference = frame.set_index("view").loc[["none", "reference"], "mean"]
    assert list(cells.x) == ["none", "reference"] and list(cells.y) == ["CHAMP, small"]
    assert cells.z[0] == pytest.approx([0, reference - none]) and f"{reference:.2f}" == cells.text[0][1]
    assert "color" in cells.text[0][0] and f"{reference - none:.2f} [" in cells.customdata[0][1]
    with pytest.raises(ValueError, match="has no column"):
        draw_premise(frame.drop(columns="difference_low"))


def test_a_table_that_was_not_made_is_named_with_its_command(tmp_path):
    for model in [*MODELS.values()][:2]:
        pd.DataFrame({"model": [model]}).to_parquet(tmp_path / f"premise_{model}.parquet")
    with pytest.raises(FileNotFoundError, match=r"premise --model coder-1\.5b --out .*premise_coder-1\.5b\.parquet`"):
        measured("premise", tmp_path)
    pd.DataFrame({"model": ["coder-1.5b"]}).to_parquet(tmp_path / "premise_coder-1.5b.parquet")
    assert {name: table["model"].item() for name, table in measured("premise", tmp_path).items()} == MODELS


def test_models_are_compared_on_the_same_steps_with_the_first():
    knows = champ_signals(two_views(1, 1.5))
    guesses = knows.assign(gap=np.random.default_rng(3).normal(size=len(knows)))
    table = size_signals({"small": guesses, "large": knows.sample(frac=1, random_state=0)}, "gap").set_index("model")
    alone = first_wrong_step(knows, {"gap": -1}).set_index("measure").loc["auroc"]
    assert table.loc["large", "mean"] == pytest.approx(alone["mean"]) and table.loc["large", "baseline"] == "small"
    assert table.loc["large", "difference_low"] > 0 == table.loc["small", "difference"]
    with pytest.raises(ValueError, match="all models need the same steps"):
        size_signals({"small": guesses, "large": knows.iloc[1:]})
