"""What methods would teach: the same rollouts for all, means by place against one-by-one sums, and figures that show them."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from opsd_lab.experiments.family_lessons import PLACES, family_lessons, likeness, places, pushes_by_place
from opsd_lab.figures.family import draw_likeness, draw_pushes
from opsd_lab.methods import METHODS

KEYS = ["opsd", "opsd_sampled_token", "incorrect_rollouts", "grpo", "brts"]


@pytest.fixture(scope="module")
def lessons():
    return family_lessons("chain", problems=4, n=4, keys=KEYS)


def name(key: str) -> str:
    return METHODS[key].name if key in METHODS else "GRPO"


def test_every_method_is_shown_the_same_rollouts_and_others_say_why_not(lessons):
    assert len(lessons.rollouts) == 16 and set(lessons.left_out) == {"brts"} and "learns from Together" in lessons.left_out["brts"]
    assert set(lessons.tables) == set(KEYS) - {"brts"}
    whole, part = lessons.tables["opsd"].frame, lessons.tables["incorrect_rollouts"].frame
    assert whole["rollout"].nunique() == 16 and 0 < part["rollout"].nunique() < 16
    assert set(part["outcome"]) == {"incorrect"} and set(whole["outcome"]) == {"correct", "incorrect"}
    for table in lessons.tables.values():
        for number, rows in table.frame.groupby("rollout"):
            assert tuple(rows["token_id"]) == lessons.rollouts[number].completion_ids


def test_a_place_is_told_by_the_verdict_on_the_step_and_by_what_stands_before_it(lessons):
    table = lessons.tables["opsd"]
    found = places(table)
    for row, place in zip(table.frame.to_dict("records"), found, strict=True):
        if row["step"] < 0:
            assert place == PLACES[4]
        elif row["label"] == "unverifiable":
            assert place == ""
        else:
            after = row["error_phase"] == "after"
            assert place == (PLACES[2 if after else 0] if row["label"] == "correct" else PLACES[3 if after else 1])
    first = table.frame[(found == PLACES[1]).to_numpy()]
    assert len(first) and set(first["error_phase"]) == {"first_error"}


def test_the_mean_push_of_a_place_is_that_over_its_tokens_and_methods_are_as_alike_as_their_ranks(lessons):
    frame = pushes_by_place(lessons.tables).set_index(["method", "place"])
    for key, table in lessons.tables.items():
        found = places(table)
        for place in PLACES:
            own = table.frame["push"][(found == place).to_numpy()]
            row = frame.loc[(name(key), place)]
            assert row["n_tokens"] == len(own) and (not len(own) or row["mean"] == pytest.approx(own.mean()))
    matrix = likeness(lessons.tables)
    one, other = (lessons.tables[key].frame["push"] for key in ("opsd", "opsd_sampled_token"))
    assert matrix.loc["OPSD, JSD", "OPSD, sampled token"] == pytest.approx(spearmanr(one, other).statistic)
    assert (np.diag(matrix) == 1).all()


def test_the_figures_show_each_method_and_say_what_is_not_known(lessons):
    frame = pushes_by_place(lessons.tables)
    pushes = draw_pushes(frame)
    assert pushes.data[0].y == tuple(name(key) for key in lessons.tables) and pushes.data[0].x == PLACES
    sure = frame.set_index(["method", "place"]).loc[("OPSD, JSD", PLACES[0])]
    cell = pushes.data[0].text[list(lessons.tables).index("opsd")][0]
    assert ("span" in cell) == (sure["low"] <= 0 <= sure["high"])
    matrix = likeness(lessons.tables)
    matrix.loc["none", "none"] = np.nan
    alike = draw_likeness(matrix)
    assert alike.data[0].y[-1] == "none" and sorted(alike.data[0].x) == sorted(matrix) and alike.data[0].z[-1][-1] is None
    with pytest.raises(ValueError, match="draw_pushes: several rows have"):
        draw_pushes(pd.concat([frame, frame]))
    with pytest.raises(ValueError, match="the same methods, two at least"):
        draw_likeness(matrix.iloc[:1])
