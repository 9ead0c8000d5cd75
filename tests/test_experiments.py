import dataclasses
import functools

import numpy as np
import pandas as pd
import pytest

from opsd_lab.contexts import ChatFormat, reference_solution
from opsd_lab.experiments.arms import sandbox_policy
from opsd_lab.identity.parts import differences
from opsd_lab.objectives import GRPO, OPSD, SFT
from opsd_lab.policies.policy import Policy, add_lora
from opsd_lab.problems.problem import Problem
from opsd_lab.rollouts import SamplingParams, Texts
from opsd_lab.sandbox import CHAT, worksheets
from opsd_lab.studies import study as study_module
from opsd_lab.studies.results import failures, final_rows
from opsd_lab.studies.study import COLUMNS, Study, run_cell, run_study
from opsd_lab.training.recipes import Recipe
from opsd_lab.training.records import TrainingParams
from tests.conftest import PROBLEMS, tiny_policy

SHARED = [name for name in COLUMNS if name not in ("seconds", "peak_memory_gib")]


def fresh(seed: int) -> Policy:
    return add_lora(tiny_policy(), rank=4, alpha=8, seed=seed)


def crashing(policy: Policy, problems):
    raise RuntimeError("out of luck")


def solution(problem: Problem) -> str:
    return problem.solution


ARMS = {
    "base": None,
    "OPSD": Recipe(OPSD(), reference_solution),
    "SFT: gold": Recipe(SFT(), source=Texts(solution), sampling={"max_new_tokens": 64}),
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
    assert list(rows) == [*COLUMNS, "settings"] and rows.groupby("arm")["settings"].nunique().eq(1).all()
    opsd = rows[rows["arm"] == "OPSD"]
    assert list(zip(opsd["step"], opsd["split"], strict=True)) == [(1, "test"), (3, "test"), (3, "other")]
    assert opsd["tokens_trained"].is_monotonic_increasing and (opsd["flops"] > 0).all() and (opsd["n"] == [12, 12, 3]).all()
    base = rows[rows["arm"] == "base"]
    assert base["step"].tolist() == [0, 0] and base["flops"].sum() == 0
    counted = opsd["correct"].map(sum)
    np.testing.assert_allclose(counted / (opsd["n"] * opsd["samples"]), opsd["accuracy"])


def test_another_verdict_has_a_split_of_its_own_with_the_same_completions():
    problems = {name: worksheets("easy", name, 8) for name in ("test", "validation")}
    study = small(("base",), policy=sandbox_policy, splits=problems, chat=CHAT, evaluation=SamplingParams(64, temperature=0))
    alone, both = (run_cell(dataclasses.replace(study, also=also), "base", 0) for also in ((), ("last_number",)))
    assert both["split"].tolist() == ["test", "test, last_number", "validation", "validation, last_number"]
    pd.testing.assert_frame_equal(both.iloc[::2].reset_index(drop=True)[SHARED], alone[SHARED])
    first, second = both.iloc[0], both.iloc[1]
    # The answer of a worksheet is four numbers, so that the last of them alone is wrong.
    assert first["accuracy"] > second["accuracy"] == 0 and first["length"] == second["length"]


def test_interrupting_and_resuming_gives_the_table_of_an_uninterrupted_run(tmp_path, monkeypatch):
    whole = run_study(small, [0, 1], tmp_path / "whole", progress=False)
    calls = []

    def interrupted(study, arm, seed, **options):
        calls.append((arm, seed))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return run_cell(study, arm, seed, **options)

    monkeypatch.setattr("opsd_lab.studies.study.run_cell", interrupted)
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


def test_a_study_goes_on_from_its_table_alone_with_more_arms_and_seeds(tmp_path, monkeypatch):
    first = run_study(small, [0], tmp_path / "one", arms=["base", "OPSD"], progress=False)
    path = tmp_path / "table.parquet"
    first.to_parquet(path)
    ran = []
    monkeypatch.setattr(study_module, "run_cell", lambda study, arm, seed: ran.append((arm, seed)) or run_cell(study, arm, seed))
    again = run_study(small, [0], tmp_path / "two", arms=["base", "GRPO"], finished=pd.read_parquet(path), progress=False)
    assert ran == [("GRPO", 0)] and set(again["arm"]) == {"base", "OPSD", "GRPO"}
    pd.testing.assert_frame_equal(
        again[again["arm"] == "OPSD"].reset_index(drop=True), first[first["arm"] == "OPSD"].reset_index(drop=True)
    )
    ran.clear()
    run_study(small, [1], tmp_path / "three", arms=["base"], finished=again, progress=False)
    assert ran == [("base", 1)]


def test_cells_of_a_table_that_failed_or_came_of_other_settings_are_run_anew(tmp_path):
    table = run_study(small, [0], tmp_path / "one", arms=["base", "OPSD"], progress=False)
    broken = table.assign(error=["", *["x"] * (len(table) - 1)], settings=table["settings"].where(table["arm"] != "base", "0" * 64))
    for amiss in (broken, table.drop(columns="settings"), table.assign(arm="another")):
        again = run_study(small, [0], tmp_path / "two", arms=["base", "OPSD"], finished=amiss, progress=False)
        assert (again["error"] == "").all() and again["settings"].equals(table["settings"])


def test_cells_of_other_settings_are_not_taken_for_these(tmp_path):
    run_study(functools.partial(small, ("base",)), [0], tmp_path, progress=False)
    with pytest.raises(
        ValueError, match=r"base\.0\.parquet was made with other settings: evaluation\.max_new_tokens \(5 there, 6 here\)"
    ):
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
        {"also": ("boxed",)},
        {"sampling": SamplingParams(6)},
    ):
        assert dataclasses.replace(study, **change).settings("OPSD") != study.settings("OPSD"), change
    for one, two in ((lambda p: "a", lambda p: "b"), (Shown("a"), Shown("b"))):
        arms = [{"OPSD": Recipe(OPSD(), view)} for view in (one, two)]
        assert differences(*(dataclasses.replace(study, arms=arm).settings("OPSD") for arm in arms)).startswith("arm.view")


class Shown:
    """A view that is an object of a plain class."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __call__(self, problem: Problem) -> str:
        return self.text


def shifted(seed: int) -> Policy:
    policy = fresh(seed)
    policy.causal_lm.get_input_embeddings().weight.data[0, 0] += 1
    return policy


def test_the_initial_policy_counts_by_content_for_every_seed(tmp_path):
    study = small()
    assert study.settings("OPSD", 0) != study.settings("OPSD", 1)
    assert (
        differences(study.settings("OPSD"), dataclasses.replace(study, policy=shifted).settings("OPSD"))
        == "the initial policy's weights"
    )
    run_study(functools.partial(small, ("base",)), [0], tmp_path, progress=False)
    with pytest.raises(ValueError, match="other settings: the initial policy's weights"):
        run_study(functools.partial(small, ("base",), policy=shifted), [0, 1], tmp_path, progress=False)


def test_a_view_that_is_a_plain_object_can_be_gone_on_with(tmp_path):
    def study() -> Study:
        return dataclasses.replace(small(), arms={"own view": Recipe(OPSD(), Shown("a"))}, checkpoints=(1,))

    first = run_study(study, [0], tmp_path, progress=False)
    pd.testing.assert_frame_equal(run_study(study, [0], tmp_path, progress=False), first)


def test_a_piece_that_cannot_be_identified_is_refused_before_anything_runs(tmp_path):
    def study() -> Study:
        return dataclasses.replace(small(), arms={"open": Recipe(OPSD(), Shown(iter(())))})

    with pytest.raises(TypeError, match=r"arm\.view\.text cannot be identified"):
        run_study(study, [0], tmp_path, progress=False)


def test_leftovers_of_a_full_disk_stop_nothing_and_a_damaged_cell_is_named(tmp_path):
    study = functools.partial(small, ("base",))
    (tmp_path / "base.settings").write_text("")
    (tmp_path / "base.0.77.partial").write_text("")
    rows = run_study(study, [0], tmp_path, progress=False)
    path = tmp_path / "base.0.parquet"
    for damaged in (b"", path.read_bytes()[:-20]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"base\.0\.parquet is damaged .*delete the file"):
            run_study(study, [0], tmp_path, progress=False)
    rows.to_parquet(path)
    with pytest.raises(ValueError, match="does not say with which settings"):
        run_study(study, [0], tmp_path, progress=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"checkpoints": (3, 1)}, "do not rise"),
        ({"checkpoints": ()}, "do not rise"),
        ({"during": ("validation",)}, "which are no splits"),
        ({"arms": {}}, "has no arms"),
        ({"also": ("final",)}, r"also is \('final',\); it may name boxed and last_number, each once"),
        ({"also": ("boxed", "boxed")}, "each once"),
        ({"arms": {"a b": None, "a/b": None}}, "differ in punctuation only"),
    ],
)
def test_a_faulty_study_is_refused(changes, message):
    study = small()
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(study, **changes)
