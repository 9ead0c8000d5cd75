import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from opsd_lab.evaluation.statistics import mean_interval
from opsd_lab.experiments.arms import (
    CANDIDATES,
    RATES,
    SMOLLM2_CANDIDATES,
    SMOLLM2_RATES,
    baselines,
    sandbox_study,
    smollm2_arms,
    smollm2_study,
)
from opsd_lab.experiments.catalogue import STUDIES
from opsd_lab.experiments.study_tables import seed_accuracies, seeds_table
from opsd_lab.studies.due import Due
from opsd_lab.studies.results import choose
from opsd_lab.studies.study import COLUMNS
from opsd_lab.training.ledger import Ledger

RESULTS = Path(__file__).parents[1] / "opsd_lab" / "experiments" / "results"


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_reaches_the_processes_of_its_workers(name):
    made, again = STUDIES[name], pickle.loads(pickle.dumps(STUDIES[name]))
    assert again is made or (again.func, again.args) == (made.func, made.args)


@pytest.mark.parametrize(
    ("search", "rates", "candidates", "arms", "study"),
    [
        ("sandbox_search", RATES, CANDIDATES, baselines, sandbox_study),
        ("smollm2_search", SMOLLM2_RATES, SMOLLM2_CANDIDATES, smollm2_arms, smollm2_study),
    ],
    ids=["sandbox", "smollm2"],
)
def test_every_trained_arm_has_the_rate_that_the_committed_search_chose_with_equal_budgets(search, rates, candidates, arms, study):
    found = pd.read_parquet(RESULTS / f"{search}.parquet")
    assert found.groupby("method")["arm"].nunique().unique() == [len(candidates)]
    chosen = choose(found).set_index("method")["learning_rate"].to_dict()
    assert chosen == rates and set(rates) == {arm for arm, recipe in arms().items() if recipe is not None}
    made = study().arms
    assert all(made[arm].training["learning_rate"] == rate for arm, rate in rates.items())


@pytest.mark.parametrize("path", sorted(RESULTS.glob("[fstw]*.parquet")), ids=lambda path: path.stem)
def test_committed_results_are_tables_of_studies_in_which_no_cell_failed(path):
    rows = pd.read_parquet(path)
    beside = [name for name in list(rows)[len(COLUMNS) :] if not name.startswith("trace_")]
    assert list(rows)[: len(COLUMNS)] == list(COLUMNS) and beside in ([], ["settings"]) and (rows["error"] == "").all()
    counted = rows["correct"].map(sum)
    assert ((counted / (rows["n"] * rows["samples"]) - rows["accuracy"]).abs() < 1e-9).all()


def rows(arm, seed, split, correct, samples=2, step=5, error=""):
    counts = np.array(correct)
    values = dict.fromkeys(COLUMNS, 0) | {"arm": arm, "seed": seed, "split": split, "step": step, "samples": samples}
    values |= {
        "n": len(counts),
        "correct": counts.tolist(),
        "accuracy": counts.mean() / samples if len(counts) else np.nan,
    }
    return pd.DataFrame([values | {"error": error}])[list(COLUMNS)].astype(COLUMNS)


def test_an_arms_accuracy_is_the_mean_of_its_seeds_with_an_interval_over_problems():
    table = pd.concat(
        [
            rows("base", 0, "test", [0, 2, 1, 1], step=0),
            rows("A | 0.1", 0, "test", [0, 0, 0, 0], step=2),  # an earlier checkpoint does not count
            rows("A | 0.1", 0, "test", [2, 2, 1, 1]),
            rows("A | 0.1", 1, "test", [2, 2, 1, 0]),
            rows("A | 0.1", 0, "test, boxed", [0, 0, 1, 0]),
            rows("A | 0.1", 1, "test, boxed", [0, 0, 0, 0]),
            rows("B", 0, "", [], error="RuntimeError: no luck"),
        ]
    )
    found = seed_accuracies(table).set_index(["arm", "split"])
    arm = found.loc[("A | 0.1", "test")]
    expected = mean_interval(np.array([1, 1, 0.5, 0.25]), 16)
    assert (arm["mean"], arm["low"], arm["high"], arm["n"]) == (expected.mean, expected.low, expected.high, 4)
    assert arm["seeds"] == "0.75, 0.62" and "B" not in found.index.get_level_values("arm")
    lines = seeds_table(table).splitlines()
    assert lines[0] == "| arm | test | test, boxed | test, by seed |" and len(lines) == 4
    assert lines[2].startswith("| base | 0.50 [") and lines[2].endswith(" |  | 0.50 |")
    assert lines[3].startswith("| A \\| 0.1 | 0.69 [") and "| 0.06 [" in lines[3] and lines[3].endswith("| 0.75, 0.62 |")


def test_a_table_without_an_evaluated_cell_has_no_accuracies():
    with pytest.raises(ValueError, match="no cell that was evaluated"):
        seed_accuracies(rows("B", 0, "", [], error="RuntimeError: no luck"))


def test_a_run_is_due_at_its_operations_and_over_at_the_last_of_them_or_the_last_step():
    def ledger(flops):
        return Ledger(flops_train=flops)

    due = Due((9,), (10.0, 20.0))
    assert [(due.now(step, ledger(5.0 * step)), due.over) for step in range(1, 5)] == [
        (False, False),
        (True, False),
        (False, False),
        (True, True),
    ]
    with pytest.raises(ValueError, match="operations of this model cannot be counted"):
        Due((9,), (10.0,)).now(1, ledger(float("nan")))
    short = Due((2,), (10.0, 20.0))
    assert (short.now(1, ledger(1.0)), short.now(2, ledger(2.0)), short.over) == (False, True, True)
    steps = Due((2, 3))
    assert [(steps.now(step, ledger(0.0)), steps.over) for step in (1, 2, 3)] == [(False, False), (True, False), (True, True)]
