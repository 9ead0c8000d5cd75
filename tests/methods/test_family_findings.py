"""What is said of the family, on tables that were made up so that it is known."""

import re

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from opsd_lab.experiments.family_findings import collapsed_methods, compare_methods, family_findings, search_gains
from opsd_lab.figures.family import draw_effects, draw_methods, draw_search
from tests.test_results import results, table

ARMS = {"base": 0.3, "opsd": 0.5, "rlsd": 0.52, "tip": 0.9, "srpo": 0.02, "grpo": 0.3}


def made(shares, seed):
    rng, rows = np.random.default_rng(seed), []
    for arm, share in shares.items():
        for number in range(3):
            rows.append(table(arm, number, 0 if arm == "base" else 50, rng.binomial(2, share, 400)))
    return results(*rows).assign(**{"trace_loss": [[] for _ in rows]})


def test_the_sentences_say_what_the_tables_hold():
    sheet, chain = made(ARMS, 0), made({**ARMS, "tip": 0.4, "rlsd": 0.48}, 1)
    told = family_findings({"sheet": sheet, "chain": chain}, best=2)
    means = [t.groupby("arm")["accuracy"].mean() for t in (sheet, chain)]
    assert (
        told[0].startswith("On worksheets 3 of 5 methods end above the initial policy (0.")
        and "1 below it, and 1 collapse" in told[0]
    )
    gains = [mean - mean["base"] for mean in means]
    assert (
        told[1].startswith(f"On worksheets the largest gains are those of TIP, {gains[0]['tip']:.2f} [") and " and RLSD, " in told[1]
    )
    assert told[2].startswith("On worksheets 1 methods are better than OPSD (TIP) and 2 are worse")
    assert told[5].startswith("On chains 0 methods are better than OPSD and ")
    both = pd.concat(means, axis=1).drop(index="base")
    assert f"Over 5 methods the rank correlation of the two tasks' accuracies is {spearmanr(both).statistic:.2f} [" in told[6]


def test_methods_are_compared_with_the_initial_policy_and_with_opsd_and_those_that_failed_are_named():
    whole = made(ARMS, 0)
    lost = whole[(whole["arm"] != "npo") & (whole["seed"] < 3)].copy()
    failed = pd.concat([whole[whole["arm"] == "tip"].assign(arm="npo", error="no rollout is right", split=""), lost])
    found = compare_methods({"sheet": failed}).set_index("arm")
    assert found.loc["npo", "verdict"] == "failed" and np.isnan(found.loc["npo", "mean"])
    assert found.loc["tip", "verdict"] == "better than OPSD" and found.loc["srpo", "verdict"] == "worse than OPSD"
    assert found.loc["opsd", "verdict"] == "neither" and found.loc["rlsd", "verdict"] == "neither"
    means = whole.groupby("arm")["accuracy"].mean()
    assert found.loc["tip", "mean"] == pytest.approx(means["tip"] - means["base"])
    assert found.loc["tip", "minus_opsd"] == pytest.approx(means["tip"] - means["opsd"])
    assert found["step"].drop("npo").eq(50).all()


def test_the_figures_of_methods_and_pieces_have_a_panel_for_each_task_and_mark_what_is_sure():
    frame = compare_methods({"sheet": made(ARMS, 0), "chain": made({**ARMS, "tip": 0.4}, 1)})
    frame.loc[(frame["task"] == "chain") & (frame["arm"] == "rlsd"), ["mean", "low", "high", "p", "verdict"]] = [
        *[np.nan] * 4,
        "failed",
    ]
    figure = draw_methods(frame)
    assert [re.sub("<.*?>", "", note.text) for note in figure.layout.annotations] == ["sheet", "chain", "no value"]
    better = next(trace for trace in figure.data if trace.name == "better than OPSD")
    assert better.x[0] == frame.set_index(["task", "arm"]).loc[("sheet", "tip"), "mean"] and better.showlegend
    order = list(figure.layout.yaxis.ticktext)
    assert order[better.y[0]] == "TIP" and order == list(frame.groupby("method")["mean"].mean().sort_values(ascending=False).index)
    assert [line.x0 for line in figure.layout.shapes if line.line.dash == "dot"] == frame.loc[frame["arm"] == "opsd", "mean"].tolist()

    effects = pd.DataFrame(
        [
            {"task": "sheet", "piece": "signal", "value": "gap", "mean": -0.1, "low": -0.2, "high": -0.05},
            {"task": "sheet", "piece": "clip", "value": "yes", "mean": 0.1, "low": -0.1, "high": 0.3},
            {"task": "chain", "piece": "signal", "value": "gap", "mean": 0.2, "low": 0.1, "high": 0.3},
        ]
    ).assign(against=["reverse KL", "", "reverse KL"], n=5, unit="methods")
    figure = draw_effects(effects)
    assert "compared with: signal reverse KL" in figure.layout.title.text.replace("<br>", " ")
    assert list(figure.layout.yaxis.ticktext) == ["signal: gap", "clip"]
    assert {t.name: t.x for t in figure.data if t.showlegend} == {"above 0": (0.2,), "below 0": (-0.1,), "neither": (0.1,)}
    with pytest.raises(ValueError, match="draw_effects: several rows have"):
        draw_effects(pd.concat([effects, effects]))


def test_a_search_tells_what_each_method_gained_at_each_rate_and_which_rate_is_taken():
    shares = {"base": 0.3, "tip, slow": 0.5, "tip, fast": 0.9, "rlsd, slow": 0.31, "rlsd, fast": 0.02}
    whole = made(shares, 0).query("seed == 0")
    about = [("base", np.nan) if arm == "base" else (arm[:-6], 1e-4 if arm.endswith("fast") else 1e-5) for arm in whole["arm"]]
    search = whole.assign(split="validation", **dict(zip(("method", "learning_rate"), zip(*about, strict=True), strict=True)))
    found = search_gains(search).set_index(["method", "learning_rate"])
    accuracy = whole.set_index("arm")["accuracy"]
    assert found.loc[("TIP", 1e-4), "mean"] == pytest.approx(accuracy["tip, fast"] - accuracy["base"])
    assert found.loc[("TIP", 1e-4), "low"] > 0 > found.loc[("RLSD", 1e-4), "high"]
    assert found["chosen"].to_dict() == {("TIP", 1e-5): False, ("TIP", 1e-4): True, ("RLSD", 1e-5): True, ("RLSD", 1e-4): False}
    (cells,) = draw_search(found.reset_index()).data
    assert list(cells.x) == ["1e-05", "0.0001"] and list(cells.y) == ["TIP", "RLSD"]
    assert [text.startswith("<b>") for line in cells.text for text in line] == [False, True, True, False]


def test_a_table_without_opsd_is_refused():
    with pytest.raises(ValueError, match="the baseline 'opsd' has no finished cell"):
        family_findings({"sheet": made({"base": 0.3, "tip": 0.5}, 0)})


def test_collapsed_methods_are_told_with_their_seeds_steps_and_metrics():
    whole = made(ARMS, 0).drop(columns="trace_loss")
    early = [table("srpo", seed, 20 + seed, [1] + [0] * 399, split="watched") for seed in range(3)]
    watched = [table("base", seed, 0, [1] * 400, split="watched") for seed in range(3)]
    frame = pd.concat([whole, results(*early, *watched)], ignore_index=True)
    entropies = [[2.0] * 5 + [1.0] * 9 + [0.25] * 5 if arm == "srpo" else [] for arm in frame["arm"]]
    frame = frame.assign(trace_entropy=entropies)
    found = collapsed_methods({"sheet": frame}, watched="watched").to_dict("records")
    assert found == [{"task": "sheet", "method": "SRPO", "seeds": "3 of 3", "step": "20 to 22", "entropy": "2 → 0.25", "error": ""}]
    frame.loc[(frame["arm"] == "tip") & (frame["seed"] == 1), "error"] = "no rollout is right"
    both = collapsed_methods({"sheet": frame, "chain": whole.assign(trace_entropy=[[]] * len(whole))}).set_index(["task", "method"])
    assert both.loc[("sheet", "TIP"), ["seeds", "error"]].tolist() == ["1 of 3", "no rollout is right"]
    assert both.loc[("chain", "SRPO"), "seeds"] == "3 of 3"
    at_once = frame.assign(step=frame["step"].where(frame["error"] == "", 0), split=frame["split"].where(frame["error"] == "", ""))
    assert collapsed_methods({"sheet": at_once}).set_index("method").loc["TIP", "seeds"] == "1 of 3"  # before any evaluation
    none = made({"base": 0.3, "opsd": 0.5}, 0)
    empty = collapsed_methods({"sheet": none})
    assert empty.empty and {"task", "method", "seeds"} <= set(empty)


def test_two_tasks_with_few_methods_in_common_have_a_rank_correlation_without_an_interval():
    frames = {"sheet": made({"base": 0.3, "opsd": 0.5, "tip": 0.6}, 0), "chain": made({"base": 0.3, "opsd": 0.5, "tip": 0.6}, 1)}
    assert family_findings(frames)[-1] == "Over 2 methods the rank correlation of the two tasks' accuracies is 1.00."
