import json
from dataclasses import asdict
from pathlib import Path

import nbformat
import pytest

from opsd_lab.__main__ import summary, table
from opsd_lab.evaluation.estimate import Estimate
from opsd_lab.experiments.walkthrough import Settings, control_view, held_out_problems, reference_view, train_problems, write_report
from opsd_lab.figures.export import drop_widgets
from opsd_lab.problems.word_problems import key
from opsd_lab.training.ledger import Ledger

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "opsd_lab/experiments/results/walkthrough_seeds.json"
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


def test_the_table_averages_over_seeds():
    def run(bits: str) -> dict:
        return {"last_number": bits, "boxed": "0" * len(bits)}

    runs = {"base": "0011", "OPSD 0": "1111", "OPSD 1": "0111", "control 0": "0000"}
    results = {"correct": {name: run(bits) for name, bits in runs.items()}}
    rows = table(results).splitlines()
    assert (
        "| base | 0.500" in rows[2] and "| OPSD | 0.875" in rows[3] and "1.000, 0.750" in rows[3] and "| control | 0.000" in rows[4]
    )


def test_the_readmes_table_is_that_of_the_committed_results():
    results = json.loads(RESULTS.read_text())
    assert table(results) in (ROOT / "README.md").read_text()
    assert results["settings"] == json.loads(json.dumps(asdict(Settings()), default=str))
    assert results["problem_ids"] == [p.id for p in held_out_problems()]
    assert all(len(run["last_number"]) == len(results["problem_ids"]) for run in results["correct"].values())


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
