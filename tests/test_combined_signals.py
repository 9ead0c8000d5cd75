import numpy as np
import pandas as pd
import pytest

from opsd_lab.diagnostics.combined_signals import by_slice, with_combination, with_position
from opsd_lab.diagnostics.first_wrong_step import first_wrong_step
from tests.test_first_wrong_step import random_steps, row_of


def test_a_position_is_the_share_of_steps_before_it_in_whatever_order_rows_come():
    steps = pd.DataFrame({"rollout": [0, 1, 0, 0, 1], "step": [5, 0, 1, 3, 9]})
    assert with_position(steps)["position"].tolist() == [2 / 3, 0, 0, 1 / 3, 1 / 2]


def test_a_combination_finds_what_each_of_its_signals_finds_in_part():
    steps, rng = random_steps(problems=80, shift=1.0), np.random.default_rng(1)
    steps["divergence"] += 1.5 * ((steps["label"] == "incorrect") & (rng.random(len(steps)) < 0.7))
    steps = with_combination(steps, ["gap", "divergence"])
    table = first_wrong_step(steps, {"gap": -1, "divergence": 1, "combination": 1})
    one, other, both = (row_of(table, "auroc", name)["mean"] for name in ("gap", "divergence", "combination"))
    assert both > max(one, other) > 0.6
    assert row_of(table, "auroc", "combination")["low"] < both


def test_a_combination_of_noise_finds_nothing_for_it_is_asked_about_problems_that_it_has_not_seen():
    noise = [random_steps(60, seed, 0.0) for seed in range(8)]
    found = [first_wrong_step(with_combination(steps, ["gap", "divergence"], "c"), {"c": 1}) for steps in noise]
    assert np.mean([row_of(table, "auroc", "c")["mean"] for table in found]) == pytest.approx(0.5, abs=0.03)


def test_no_step_of_a_problem_tells_how_it_is_judged():
    steps = random_steps(20)
    first = with_combination(steps, ["gap"])
    asked = steps["problem_id"] == "p3"
    swapped = steps["label"].map({"correct": "incorrect", "incorrect": "correct", "unverifiable": "unverifiable"})
    second = with_combination(steps.assign(label=steps["label"].where(~asked, swapped)), ["gap"])
    assert np.array_equal(first.loc[asked, "combination"], second.loc[asked, "combination"])
    assert not np.array_equal(first["combination"], second["combination"])


def test_what_cannot_be_combined_is_refused():
    with pytest.raises(ValueError, match="there are 3 problems for 5 folds"):
        with_combination(random_steps(3), ["gap"])
    with pytest.raises(ValueError, match="all right or all wrong"):
        with_combination(random_steps(9).assign(label="correct"), ["gap"])


def test_a_slice_is_the_table_of_its_rows_alone():
    steps = random_steps(40)
    steps["author"] = np.where(steps["rollout"] % 2, "a", "b")
    steps.loc[steps["problem_id"].isin(["p0", "p1"]), "author"] = "c"
    table = by_slice(steps, "author", {"gap": -1})
    assert table["author"].unique().tolist() == ["a", "b"]
    alone = first_wrong_step(steps[steps["author"] == "a"].reset_index(drop=True), {"gap": -1})
    pd.testing.assert_frame_equal(table[table["author"] == "a"].drop(columns="author").reset_index(drop=True), alone)
    with pytest.raises(ValueError, match="no value of 'author' has mistakes in 50 problems or more"):
        by_slice(steps, "author", {"gap": -1}, least=50)
