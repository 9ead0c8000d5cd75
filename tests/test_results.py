import math

import numpy as np
import pandas as pd
import pytest

from opsd_lab.evaluation.comparisons import SHARE, seed_interval
from opsd_lab.evaluation.estimate import ESTIMATE
from opsd_lab.figures.studies import draw_arm_table, draw_changes, draw_curves
from opsd_lab.studies.results import arm_table, at_matched_cost, changes, choose, curves
from opsd_lab.studies.study import COLUMNS


def table(arm, seed, step, correct, samples=2, split="test", **costs):
    correct = list(correct)
    row = dict.fromkeys(("tokens_generated", "tokens_scored", "tokens_trained", "flops", "seconds"), 0) | costs
    accuracy = sum(correct) / len(correct) / samples
    method, _, rate = arm.partition(" at ")
    about = {"arm": arm, "method": method, "recipe": "", "learning_rate": float(rate or 1)}
    keys = {**about, "seed": seed, "step": step, "split": split, "accuracy": accuracy, "n": len(correct), "samples": samples}
    return {**keys, "correct": correct, "truncated": 0.0, "length": 1.0, **row, "peak_memory_gib": 1.0, "error": ""}


def results(*rows):
    return pd.DataFrame(rows)[list(COLUMNS)].astype(COLUMNS)


def test_the_table_of_arms_compares_each_with_the_baseline_on_shared_seeds():
    rng = np.random.default_rng(0)
    low, high = ([rng.binomial(2, p, 40) for _ in range(3)] for p in (0.3, 0.7))
    rows = [table("base", s, 0, low[s]) for s in range(3)]
    rows += [table("ours", s, 10, high[s]) for s in range(3)] + [table("ours", s, 5, low[s]) for s in range(3)]
    found = arm_table(results(*rows), "base").set_index("arm")
    assert found.loc["ours", "mean"] == pytest.approx(np.mean(high) / 2)  # the last checkpoint, not the best
    assert found.loc["ours", "difference"] == pytest.approx(np.mean(high) / 2 - np.mean(low) / 2)
    assert found.loc["ours", "p"] < 0.01 and found.loc["ours", "difference_low"] > 0.1 and math.isnan(found.loc["base", "difference"])
    with pytest.raises(ValueError, match="the baseline 'none' has no finished cell"):
        arm_table(results(*rows), "none")


def test_p_values_are_corrected_for_the_number_of_arms():
    rng = np.random.default_rng(1)
    rows = [table("base", s, 0, rng.binomial(2, 0.4, 30)) for s in range(4)]
    ours = [table("a", s, 9, rng.binomial(2, 0.5, 30)) for s in range(4)]
    alone = arm_table(results(*rows, *ours), "base").set_index("arm").loc["a", "p_seeds"]
    copies = [{**row, "arm": name} for name in ("b", "c") for row in ours]
    together = arm_table(results(*rows, *ours, *copies), "base").set_index("arm").loc["a", "p_seeds"]
    assert together == pytest.approx(min(1, 3 * alone))


def test_matched_cost_interpolates_between_checkpoints_and_extrapolates_nothing():
    base = table("base", 0, 0, [0] * 10)
    cheap = [table("cheap", 0, 1, [1] * 10, flops=100)]
    dear = [table("dear", 0, 1, [1] * 10, flops=200), table("dear", 0, 2, [2] * 10, flops=400)]
    found = at_matched_cost(results(base, *cheap, *dear), "flops").set_index("arm")
    assert found["budget"].unique() == [100] and found.loc["cheap", "mean"] == 0.5
    assert found.loc["dear", "mean"] == pytest.approx(0.25)
    assert at_matched_cost(results(base, *cheap, *dear), "flops", budget=300)["arm"].tolist() == ["dear"]
    with pytest.raises(ValueError, match="no arm was trained, or none of them spent any"):
        at_matched_cost(results(base), "flops")
    uncounted = [table("moe", 0, 1, [1] * 10, flops=float("nan"))]
    with pytest.raises(ValueError, match=r"flops could not be counted for \['moe'\]; compare them by tokens or seconds"):
        at_matched_cost(results(base, *cheap, *uncounted), "flops")


def test_an_arm_that_spends_none_of_a_cost_does_not_make_the_budget_zero():
    rows = [table("base", 0, 0, [0] * 10), table("SFT", 0, 1, [1] * 10), table("OPSD", 0, 1, [2] * 10, tokens_generated=50)]
    found = at_matched_cost(results(*rows), "tokens_generated")
    assert found[["arm", "mean", "budget"]].values.tolist() == [["OPSD", 1.0, 50.0]]


def test_changes_are_measured_from_the_initial_policy_of_the_same_seed():
    rows = [table("base", s, 0, [s] * 10, split="easy") for s in (0, 1, 2)]
    rows += [table("ours", s, 7, [s] * 9 + [s + 1 - s], split="easy") for s in (0, 1)]
    found = changes(results(*rows), ["ours", "base"], ["easy"]).set_index("arm")
    assert found.loc["ours", ["mean", "n"]].tolist() == pytest.approx([0.025, 2]) and found.loc["ours", "low"] < 0
    assert found.loc["base", ["mean", "n"]].tolist() == [0, 3] and math.isnan(found.loc["base", "low"])
    with pytest.raises(ValueError, match="'other' and the initial policy were not evaluated on 'easy' with the same seed"):
        changes(results(*rows), ["other"], ["easy"])


HOSTILE = "<b>us</b> & $x$"


@pytest.fixture
def studied():
    rng = np.random.default_rng(3)
    rows = [table("base", s, 0, rng.binomial(2, 0.3, 20), split=split) for s in range(3) for split in ("test", "easy")]
    for arm, p in (("OPSD", 0.6), (HOSTILE, 0.5)):
        for s in range(3):
            rows += [table(arm, s, step, rng.binomial(2, p * step / 10, 20), flops=step * 100 + s) for step in (5, 10)]
            rows.append(table(arm, s, 10, rng.binomial(2, 0.1, 20), split="easy"))
    return results(*rows)


def test_curves_begin_at_the_initial_policy_and_go_through_the_mean_of_the_seeds(studied):
    figure = draw_curves(curves(studied, ["OPSD"], "flops"))
    (line,) = [trace for trace in figure.data if trace.mode == "lines+markers"]
    rows = studied[studied["split"] == "test"].groupby(["arm", "step"])["accuracy"].mean()
    assert list(line.x) == [0, 501, 1001]
    assert list(line.y) == pytest.approx([rows["base", 0], rows["OPSD", 5], rows["OPSD", 10]])
    with pytest.raises(ValueError, match="arm 'base' was not trained"):
        curves(studied, ["base"])
    many = pd.concat([curves(studied, ["OPSD"]).assign(arm=f"arm {i}") for i in range(13)])
    with pytest.raises(ValueError, match="draw_curves: 13 values of 'arm', but at most 12"):
        draw_curves(many)


def test_an_arm_that_spends_none_of_a_cost_is_named_and_the_others_keep_their_colours(studied):
    arms = [HOSTILE, "OPSD"]
    studied.loc[studied["arm"] != "base", "tokens_generated"] = (studied["arm"] == "OPSD").astype(int) * studied["step"]
    colours = [
        {trace.line.color for trace in draw_curves(curves(studied, arms, cost)).data if trace.name == "OPSD"}
        for cost in ("step", "tokens_generated")
    ]
    figure = draw_curves(curves(studied, arms, "tokens_generated"))
    assert colours[0] == colours[1] and len({trace.name for trace in figure.data if trace.name}) == 1
    assert "no tokens generated: " in figure.layout.title.text and "<b>us" not in figure.layout.title.text
    with pytest.raises(ValueError, match="spent any tokens scored by the teacher"):
        draw_curves(curves(studied, arms, "tokens_scored"))


def test_arms_stand_beside_each_other_with_what_the_tests_say(studied):
    found = arm_table(studied, "OPSD")
    figure = draw_arm_table(found)
    places = {y: x for trace in figure.data if trace.customdata is not None for x, y in zip(trace.x, trace.y, strict=True)}
    assert [places[i] for i in range(3)] == pytest.approx(found["mean"].tolist())
    words = [note.text for note in figure.layout.annotations]
    assert (
        words[1] == ""
        and words[0].startswith(f"−{-found['difference'][0]:.2f} [−")
        and words[0].endswith(f"p = {found['p'][0]:.3f}".replace("0.", "."))
    )
    assert figure.layout.shapes[0].x0 == pytest.approx(found["mean"][1])
    with pytest.raises(ValueError, match="'GRPO' is not among the arms"):
        draw_arm_table(found.assign(baseline="GRPO"))


def test_the_table_of_changes_shows_each_with_half_its_interval(studied):
    figure = draw_changes(changes(studied, ["OPSD", HOSTILE], ["test", "easy"]))
    (trace,) = figure.data
    expected = changes(studied, ["OPSD"], ["easy"]).iloc[0]
    assert trace.z[0][1] == pytest.approx(expected["mean"])
    assert trace.text[0][1] == f"−{-expected['mean']:.2f} ± {expected['high'] - expected['mean']:.2f}"


def test_names_of_arms_are_shown_letter_by_letter(studied):
    arms = ["OPSD", HOSTILE]
    drawn = [
        draw_curves(curves(studied, arms)),
        draw_arm_table(arm_table(studied, HOSTILE)),
        draw_changes(changes(studied, arms, ["test"])),
    ]
    for figure in drawn:
        assert "<b>us" not in figure.to_json().replace("\\u003c", "<") and "$" not in figure.to_json()


def test_one_seed_is_drawn_without_an_interval(studied):
    one = studied[studied["seed"] == 0]
    draw_curves(curves(one, ["OPSD"]))
    (note,) = draw_arm_table(arm_table(one, "base")).layout.title.text.split("<span")[1:]
    assert "over problems, for these seeds only" in note.replace("<br>", " ")
    assert "±" not in draw_changes(changes(one, ["OPSD"], ["test"])).data[0].text[0][0]


def test_a_search_chooses_by_mean_accuracy_and_refuses_unequal_budgets():
    rows = [
        table(f"{arm} at {rate}", s, 5, [value] * 10, split="validation")
        for arm, rate, value in (("A", "1", 1), ("A", "2", 2), ("B", "1", 2), ("B", "2", 0))
        for s in (0, 1)
    ]
    assert choose(results(*rows)).set_index("method")["learning_rate"].to_dict() == {"A": 2, "B": 1}
    with pytest.raises(ValueError, match="same budget"):
        choose(results(*rows, table("A at 3", 0, 5, [1] * 10, split="validation")))


def test_every_table_of_a_study_has_the_columns_of_estimates(studied):
    tables = {
        "arm_table": arm_table(studied, "OPSD"),
        "changes": changes(studied, ["OPSD"], ["test", "easy"]),
        "curves": curves(studied, ["OPSD", HOSTILE], "flops"),
        "at_matched_cost": at_matched_cost(studied, "flops"),
        "choose": choose(studied[studied["split"] == "test"], "test"),
    }
    for name, table in tables.items():
        at = list(table).index("mean")
        assert list(table)[at : at + 5] == list(ESTIMATE) and "note" in table, name
        assert set(table["unit"]) == {"seeds"} and (table["n"] == 3).all(), name
    for row, (_, cells) in zip(
        tables["curves"].iloc[1:3].itertuples(), studied[studied["arm"] == "OPSD"].groupby("step"), strict=True
    ):
        known = seed_interval(cells.loc[cells["split"] == "test", "accuracy"], within=SHARE)
        assert (row.mean, row.low, row.high) == pytest.approx((known.mean, known.low, known.high))
        assert row.spent == pytest.approx(cells.loc[cells["split"] == "test", "flops"].mean())


def test_an_arm_compared_on_two_seeds_says_what_its_difference_holds_for(studied):
    two = arm_table(studied[studied["seed"] < 2], "OPSD").set_index("arm")
    assert (
        two.loc["base", "note"].startswith("difference: other problems, but only these 2 seed(s)") and two.loc["OPSD", "note"] == ""
    )


def test_a_cell_that_failed_is_in_no_curve_sets_no_budget_and_takes_no_method_out_of_a_search():
    base, rows = table("base", 0, 0, [0] * 10), []
    for seed in (0, 1):
        rows += [table("ours", seed, step, [1] * 10, flops=100 * step) for step in (1, 2)]
    early = table("broken", 0, 1, [2] * 10, flops=1)
    failed = results(base, *rows, early, {**table("broken", 0, 2, [0] * 10, flops=2), "error": "died", "split": ""})
    assert at_matched_cost(failed, "flops")[["arm", "budget"]].values.tolist() == [["ours", 200.0]]
    with pytest.raises(ValueError, match="'broken' was not trained and evaluated"):
        curves(failed, ["broken"])
    half = results(base, *rows, {**table("ours", 1, 2, [0] * 10), "error": "died", "split": ""})
    assert curves(half, ["ours"])["n"].tolist() == [1, 1, 1]

    search = [table(f"a at {rate}", seed, 1, [1] * 10, split="validation") for rate in (0.1, 0.2) for seed in (0, 1)]
    search += [table(f"b at {rate}", 0, 1, [1] * 10, split="validation") for rate in (0.1, 0.2)]
    search += [{**table(f"b at {rate}", 1, 1, [0] * 10), "error": "died", "split": ""} for rate in (0.1, 0.2)]
    assert choose(results(*search))["method"].tolist() == ["a", "b"]


def test_seeds_that_were_evaluated_at_other_steps_are_one_point_of_a_curve_and_a_budget_before_the_first_is_refused():
    rows = [table("ours", 0, step, [share] * 10, flops=100) for step, share in ((9, 0), (20, 1))]
    rows += [table("ours", 1, step, [share] * 10, flops=100) for step, share in ((11, 1), (21, 2))]
    found = curves(results(*rows), ["ours"])
    assert found[["step", "n", "mean"]].values.tolist() == [[10, 2, 0.25], [20, 2, 0.75]]
    late = results(table("cheap", 0, 1, [1] * 10, flops=10), table("dear", 0, 1, [1] * 10, flops=50))
    with pytest.raises(
        ValueError, match="'dear' was first evaluated after 50 flops, more than the budget of 10, and the initial policy"
    ):
        at_matched_cost(late, "flops")
