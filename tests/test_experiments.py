import dataclasses
import functools
import math

import numpy as np
import pandas as pd
import pytest

from opsd_lab.baselines import GRPO, SFT
from opsd_lab.contexts import ChatFormat, reference_solution
from opsd_lab.experiments import COLUMNS, Study, run_cell, run_study
from opsd_lab.objectives import OPSD
from opsd_lab.policies import Policy, add_lora
from opsd_lab.problems import Problem
from opsd_lab.recipes import Recipe, texts_of
from opsd_lab.records import TrainingParams
from opsd_lab.results import arm_table, at_matched_cost, choose, failures, final_rows
from opsd_lab.rollouts import SamplingParams
from tests.conftest import PROBLEMS, tiny_policy

SHARED = [name for name in COLUMNS if name not in ("seconds", "peak_memory_gb")]


def fresh(seed: int) -> Policy:
    return add_lora(tiny_policy(), rank=4, alpha=8, seed=seed)


def crashing(policy: Policy, problems):
    raise RuntimeError("out of luck")


def solution(problem: Problem) -> str:
    return problem.solution


ARMS = {
    "base": None,
    "OPSD": Recipe(OPSD(), reference_solution),
    "SFT: gold": Recipe(SFT(), source=texts_of(solution), sampling={"max_new_tokens": 64}),
    "GRPO": Recipe(GRPO(), n=2),
    "crash": Recipe(problems=crashing),
    "diverge": Recipe(OPSD(), reference_solution, training={"learning_rate": 1e30, "max_grad_norm": 1e30}),
}


def small(arms: tuple[str, ...] = ("base", "OPSD", "SFT: gold", "GRPO"), **changes: object) -> Study:
    study = Study(
        name="small",
        policy=fresh,
        train=PROBLEMS[:6],
        splits={"test": PROBLEMS, "other": PROBLEMS[:3]},
        arms={arm: ARMS[arm] for arm in arms},
        chat=ChatFormat(),
        sampling=SamplingParams(5),
        evaluation=SamplingParams(5, n=2),
        params=TrainingParams(learning_rate=1e-2),
        rollouts=4,
        checkpoints=(1, 3),
    )
    return dataclasses.replace(study, **changes)


def test_a_cell_has_a_row_for_each_checkpoint_and_split(tmp_path):
    rows = run_study(small, [0], tmp_path, progress=False)
    assert list(rows) == list(COLUMNS)
    opsd = rows[rows["arm"] == "OPSD"]
    assert list(zip(opsd["step"], opsd["split"], strict=True)) == [(1, "test"), (3, "test"), (3, "other")]
    assert opsd["tokens_trained"].is_monotonic_increasing and (opsd["flops"] > 0).all() and (opsd["n"] == [12, 12, 3]).all()
    base = rows[rows["arm"] == "base"]
    assert base["step"].tolist() == [0, 0] and base["flops"].sum() == 0
    counted = opsd["correct"].map(lambda text: sum(map(int, text.split())))
    np.testing.assert_allclose(counted / (opsd["n"] * opsd["samples"]), opsd["accuracy"])


def test_interrupting_and_resuming_gives_the_table_of_an_uninterrupted_run(tmp_path, monkeypatch):
    whole = run_study(small, [0, 1], tmp_path / "whole", progress=False)
    calls = []

    def interrupted(study, arm, seed, **options):
        calls.append((arm, seed))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return run_cell(study, arm, seed, **options)

    monkeypatch.setattr("opsd_lab.experiments.run_cell", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_study(small, [0, 1], tmp_path / "parts", progress=False)
    resumed = run_study(small, [0, 1], tmp_path / "parts", progress=False)
    assert len(calls) == len(set(calls)) + 1  # only the cell under way was run twice
    pd.testing.assert_frame_equal(resumed[SHARED], whole[SHARED])


def test_two_workers_give_the_table_of_one(tmp_path):
    study = functools.partial(small, ("base", "OPSD"))
    one = run_study(study, [0, 1], tmp_path / "one", progress=False)
    two = run_study(study, [0, 1], tmp_path / "two", workers=2, progress=False)
    # Other numbers of threads add up in another order, so that in the long run a sampled token may differ; here none does.
    pd.testing.assert_frame_equal(two[SHARED], one[SHARED])


def test_a_seed_that_crashes_and_an_arm_that_diverges_are_reported_and_the_rest_is_kept(tmp_path):
    rows = run_study(functools.partial(small, ("base", "crash", "OPSD", "diverge")), [0], tmp_path, progress=False)
    failed = failures(rows).set_index("arm")["error"]
    assert (
        "RuntimeError: out of luck" in failed["crash"]
        and "FloatingPointError: the policy's logits are not finite" in failed["diverge"]
    )
    assert set(final_rows(rows)["arm"]) == {"base", "OPSD"}
    assert list(tmp_path.glob("crash.0.parquet"))  # not repeated until somebody deletes it


def test_cells_of_other_settings_are_not_taken_for_these(tmp_path):
    run_study(functools.partial(small, ("base",)), [0], tmp_path, progress=False)
    with pytest.raises(ValueError, match="other settings"):
        run_study(functools.partial(small, ("base",), evaluation=SamplingParams(6, n=2)), [0], tmp_path, progress=False)
    with pytest.raises(ValueError, match=r"has no arms \['unknown'\]"):
        run_study(small, [0], tmp_path, arms=["unknown"])


def test_settings_are_the_same_for_the_same_study_and_differ_with_every_part():
    study = small()
    assert study.settings("OPSD") == small().settings("OPSD") != study.settings("GRPO")
    for change in (
        {"rollouts": 8},
        {"checkpoints": (1, 2)},
        {"train": PROBLEMS[:5]},
        {"by": "boxed"},
        {"sampling": SamplingParams(6)},
    ):
        assert dataclasses.replace(study, **change).settings("OPSD") != study.settings("OPSD"), change


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"checkpoints": (3, 1)}, "do not rise"),
        ({"checkpoints": ()}, "do not rise"),
        ({"during": ("validation",)}, "which are no splits"),
        ({"arms": {}}, "has no arms"),
        ({"arms": {"a b": None, "a/b": None}}, "differ in punctuation only"),
    ],
)
def test_a_faulty_study_is_refused(changes, message):
    study = small()
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(study, **changes)


def table(arm, seed, step, correct, samples=2, split="test", **costs):
    correct = list(correct)
    row = dict.fromkeys(("tokens_generated", "tokens_scored", "tokens_trained", "flops", "seconds"), 0) | costs
    accuracy = sum(correct) / len(correct) / samples
    text = " ".join(map(str, correct))
    keys = {"arm": arm, "seed": seed, "step": step, "split": split, "accuracy": accuracy, "n": len(correct), "samples": samples}
    return {**keys, "correct": text, "truncated": 0.0, "length": 1.0, **row, "peak_memory_gb": 1.0, "error": ""}


def results(*rows):
    return pd.DataFrame(rows)[list(COLUMNS)].astype(COLUMNS)


def test_the_table_of_arms_compares_each_with_the_baseline_on_shared_seeds():
    rng = np.random.default_rng(0)
    low, high = ([rng.binomial(2, p, 40) for _ in range(3)] for p in (0.3, 0.7))
    rows = [table("base", s, 0, low[s]) for s in range(3)]
    rows += [table("ours", s, 10, high[s]) for s in range(3)] + [table("ours", s, 5, low[s]) for s in range(3)]
    found = arm_table(results(*rows), "base").set_index("arm")
    assert found.loc["ours", "accuracy"] == pytest.approx(np.mean(high) / 2)  # the last checkpoint, not the best
    assert found.loc["ours", "difference"] == pytest.approx(np.mean(high) / 2 - np.mean(low) / 2)
    assert found.loc["ours", "p"] < 0.01 and found.loc["ours", "low"] > 0.1 and math.isnan(found.loc["base", "difference"])
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
    assert found["budget"].unique() == [100] and found.loc["cheap", "accuracy"] == 0.5
    assert found.loc["dear", "accuracy"] == pytest.approx(0.25)
    assert at_matched_cost(results(base, *cheap, *dear), "flops", budget=300)["arm"].tolist() == ["dear"]
    with pytest.raises(ValueError, match="no arm was trained"):
        at_matched_cost(results(base), "flops")


def test_a_search_chooses_by_mean_accuracy_and_refuses_unequal_budgets():
    rows = [
        table(f"{arm} | {rate}", s, 5, [value] * 10, split="validation")
        for arm, rate, value in (("A", "1", 1), ("A", "2", 2), ("B", "1", 2), ("B", "2", 0))
        for s in (0, 1)
    ]
    assert choose(results(*rows)).set_index("method")["setting"].to_dict() == {"A": "2", "B": "1"}
    with pytest.raises(ValueError, match="same budget"):
        choose(results(*rows, table("A | 3", 0, 5, [1] * 10, split="validation")))
