import json
from dataclasses import replace
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from opsd_lab.commands.evidence import show, summary
from opsd_lab.evaluation.estimate import Estimate
from opsd_lab.experiments import RESULTS
from opsd_lab.experiments.arms import walkthrough_study
from opsd_lab.experiments.study_tables import seeds_table
from opsd_lab.experiments.walkthrough import Settings, control_view, held_out_problems, reference_view, train_problems, write_report
from opsd_lab.figures.export import drop_widgets
from opsd_lab.problems.word_problems import key
from opsd_lab.training.ledger import Ledger
from opsd_lab.training.recipes import Recipe
from opsd_lab.training.start import Start, begun

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_the_held_out_problems_are_distinct_calculations_unseen_in_training():
    held_out, trained = held_out_problems(), {key(p) for p in train_problems()}
    keys = [key(p) for p in held_out]
    assert len(held_out) >= 200 and len(set(keys)) == len(keys) and not trained & set(keys)


def test_the_control_differs_from_opsd_in_the_solution_alone():
    for problem in train_problems()[:50]:
        right, wrong = reference_view()(problem), control_view()(problem)
        assert right.splitlines()[0] == wrong.splitlines()[0] and len(right.splitlines()) == len(wrong.splitlines()) == 2
        assert f"{{{problem.answer}}}" in right and f"{{{problem.answer}}}" not in wrong


def test_the_report_has_every_key_and_adds_the_arms_up(tmp_path):
    accuracy = {name: Estimate(0.5, 0.4, 0.6, 230) for name in ("before", "after", "control")}
    ledgers = [Ledger(10, 9, 8, 1.0, 2.0, 3.0), Ledger(1, 1, 1, 0.5, 0.5, 0.5)]
    report = write_report(tmp_path / "r.json", Settings(seed=4), accuracy, ledgers, evaluate_seconds=7.0, started=0.0)
    assert report == json.loads((tmp_path / "r.json").read_text())
    assert report["seed"] == 4 and report["n"] == 230 and report["accuracy"]["control"]["high"] == 0.6
    assert report["tokens"] == {"generated": 11, "scored": 10, "trained": 9}
    assert {"setup", "generate", "score", "train", "evaluate", "total"} == set(report["seconds"])
    assert report["seconds"]["train"] == 3.5 and report["peak_memory_gib"] > 0
    lines = summary(report, tmp_path / "page.html").splitlines()
    assert len(lines) == 5 and str(tmp_path / "page.html") in lines[-1] and "50% [40%, 60%]" in lines[1]


def test_the_study_trains_what_notebook_01_trains():
    study, settings = walkthrough_study(), Settings()
    assert list(study.arms) == ["base", "OPSD", "control"] and (study.by, study.also) == ("last_number", ("boxed",))
    assert (study.params, study.sampling, study.chat) == (settings.training, settings.sampling, settings.chat)
    assert study.rollouts == settings.training.batch_size and study.checkpoints == (settings.steps,)
    assert study.train == train_problems() and study.splits == {"test": held_out_problems()}
    for arm, view in (("OPSD", reference_view()), ("control", control_view())):
        default, start = Recipe(), Start(None, study.train, None, None, None, None)
        recipe = begun(study.arms[arm], start)
        assert [recipe.view(problem) for problem in study.train[:9]] == [view(problem) for problem in study.train[:9]]
        assert replace(recipe, view=default.view) == default


def test_the_committed_table_is_that_of_todays_study_and_shown_in_short(capsys):
    results = pd.read_parquet(RESULTS / "walkthrough.parquet")
    study = walkthrough_study()
    assert set(results["arm"]) == set(study.arms) and set(results["split"]) == {"test", "test, boxed"}
    assert set(results["n"]) == {len(study.splits["test"])} and set(results["step"]) == {0, *study.checkpoints}
    show()
    assert capsys.readouterr().out == seeds_table(results) + "\n"


def test_a_file_that_is_no_table_of_a_study_is_named_with_the_reason(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.parquet is not there; .* walkthrough\.parquet"):
        show(tmp_path / "none.parquet")
    with pytest.raises(ValueError, match=r"champ_coder-0\.5b\.parquet is no table of a study: it has no column accuracy"):
        show(RESULTS / "champ_coder-0.5b.parquet")


def test_widgets_without_a_static_form_leave_an_executed_notebook():
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "x"}, "text/plain": "bar"}
    kinds = [widget, widget | {"text/html": "<p>static</p>"}, {"text/plain": "7"}]
    cell = nbformat.v4.new_code_cell("run()", outputs=[nbformat.v4.new_output("display_data", data=data) for data in kinds])
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"widgets": {"state": {}}})
    drop_widgets(notebook)
    assert [output.data for output in cell.outputs] == kinds[1:]
    assert "widgets" not in notebook.metadata


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_committed_notebook_was_run_from_top_to_bottom_without_errors_and_is_small(path):
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [o for cell in code for o in cell.outputs if o.output_type == "error"]
    assert all(len(cell.source.splitlines()) <= 20 for cell in code)
    assert path.stat().st_size < 1_000_000
