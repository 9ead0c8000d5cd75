import pickle
from pathlib import Path

import pandas as pd
import pytest

from opsd_lab.experiments.arms import (
    BASELINES,
    CANDIDATES,
    RATES,
    SMOLLM2_ARMS,
    SMOLLM2_CANDIDATES,
    SMOLLM2_RATES,
    STUDIES,
    sandbox_study,
    smollm2_study,
)
from opsd_lab.studies.results import choose
from opsd_lab.studies.study import COLUMNS

RESULTS = Path(__file__).parents[1] / "opsd_lab" / "experiments" / "results"


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_reaches_the_processes_of_its_workers(name):
    assert pickle.loads(pickle.dumps(STUDIES[name])) is STUDIES[name]


@pytest.mark.parametrize(
    ("search", "rates", "candidates", "arms", "study"),
    [
        ("sandbox_search", RATES, CANDIDATES, BASELINES, sandbox_study),
        ("smollm2_search", SMOLLM2_RATES, SMOLLM2_CANDIDATES, SMOLLM2_ARMS, smollm2_study),
    ],
    ids=["sandbox", "smollm2"],
)
def test_every_trained_arm_has_the_rate_that_the_committed_search_chose_with_equal_budgets(search, rates, candidates, arms, study):
    found = pd.read_parquet(RESULTS / f"{search}.parquet")
    assert found.groupby(found["arm"].str.partition(" | ")[0])["arm"].nunique().unique() == [len(candidates)]
    chosen = choose(found).set_index("method")["setting"].astype(float).to_dict()
    assert chosen == rates and set(rates) == {arm for arm, recipe in arms.items() if recipe is not None}
    made = study().arms
    assert all(made[arm].training["learning_rate"] == rate for arm, rate in rates.items())


@pytest.mark.parametrize("path", sorted(RESULTS.glob("s[am]*.parquet")), ids=lambda path: path.stem)
def test_committed_results_are_tables_of_studies_in_which_no_cell_failed(path):
    rows = pd.read_parquet(path)
    assert list(rows) == list(COLUMNS) and (rows["error"] == "").all()
    counted = rows["correct"].map(lambda text: sum(map(int, text.split())))
    assert ((counted / (rows["n"] * rows["samples"]) - rows["accuracy"]).abs() < 1e-9).all()
