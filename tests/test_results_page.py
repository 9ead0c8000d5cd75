import re
from pathlib import Path

import nbformat
import pytest

from opsd_lab.experiments.results_page import TEMPLATE, results_page
from opsd_lab.experiments.results_page.notebook import intervals, parameter, printed, rows
from opsd_lab.experiments.results_page.text import check
from opsd_lab.experiments.walkthrough import Settings
from opsd_lab.figures.words import interval

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")


def test_the_committed_page_is_what_the_command_makes_now():
    assert results_page(ROOT / "notebooks") == PAGE, "run `python -m opsd_lab results` and commit docs/results.md"


def test_the_pages_text_holds_no_number_that_was_typed():
    text = re.sub(r"`[^`]*`|\{\w+\}", "", TEMPLATE.read_text(encoding="utf-8"))
    assert re.findall(r"(?<![A-Za-z\d-])\d[\d.,]*", text) == []


def test_both_learning_rates_of_the_control_stand_beside_its_two_accuracies():
    (sentence,) = re.findall(r"So the control stands on this page twice\..*?no gain\.", PAGE, re.DOTALL)
    tuned = re.search(r"^\| control: another problem's solution \| (\S+) \| (.+?) \|", PAGE, re.MULTILINE)
    rate = Settings().training.learning_rate
    assert f"At {float(tuned[1]):g}," in sentence.replace("\n", " ") and tuned[2] in sentence.replace("\n", " ")
    assert f"{rate:g}" in sentence and float(tuned[1]) != rate


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    table = (
        "<style>td {}</style><table><thead><tr><th></th><th>share</th></tr><tr><th>arm</th><th></th></tr></thead>"
        "<tbody><tr><th>a &amp; b</th><td>0.5</td></tr></tbody></table>"
    )
    # What draw_intervals gives: one trace with the errors, one with the labels.
    figure = {
        "data": [
            {"x": [-0.5, 0.25], "y": [0.0, 1.0], "error_x": {"array": [0.25, 0.5], "arrayminus": [0.125, 0.5]}},
            {
                "x": [-0.5, 0.25],
                "y": [0, 1],
                "customdata": ["valid, not the answer ·<br>half<br>−0.50 [−0.62, −0.25]<br>n = 4", "b<br>0.2 [−0.2, 0.8]<br>n = 4"],
            },
        ]
    }
    outputs = {
        "words": [nbformat.v4.new_output("stream", text="12 rollouts\n")],
        "table": [nbformat.v4.new_output("execute_result", data={"text/html": table})],
        "figure": [nbformat.v4.new_output("display_data", data={"application/vnd.plotly.v1+json": figure})],
        "empty": [],
    }
    cells = [nbformat.v4.new_code_cell("# Parameters\nSEED = 7\nMODEL = 'x'")]
    cells += [nbformat.v4.new_code_cell("run()", metadata={"tags": [tag]}, outputs=shown) for tag, shown in outputs.items()]
    path = tmp_path / "notebook.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[*cells, nbformat.v4.new_code_cell(metadata={"tags": ["empty"]})]), path)
    return path


def test_a_notebooks_tagged_outputs_are_read_back(notebook):
    assert parameter(notebook, "SEED") == 7 and printed(notebook, "words") == "12 rollouts"
    assert rows(notebook, "table") == [{"arm": "a & b", "share": "0.5"}]
    assert intervals(notebook, "figure") == {("valid, not the answer", "half"): (-0.5, -0.625, -0.25), ("b",): (0.25, -0.25, 0.75)}


@pytest.mark.parametrize(
    ("read", "tag", "message"),
    [
        (printed, "table", "'table' printed nothing; run the notebook"),
        (rows, "words", "'words' shows no table; run the notebook"),
        (intervals, "words", "'words' shows no figure of intervals; run the notebook"),
        (rows, "other", "0 cells have the tag 'other'"),
        (rows, "empty", "2 cells have the tag 'empty'"),
        (parameter, "COUNT", "does not set COUNT"),
    ],
)
def test_an_output_that_is_not_there_is_named_with_its_notebook(notebook, read, tag, message):
    with pytest.raises(ValueError, match=f"notebook.ipynb: .*{message}"):
        read(notebook, tag)


def test_a_sentence_that_the_numbers_do_not_bear_out_stops_the_page():
    with pytest.raises(ValueError, match="no longer say: 'more is better'"):
        check("more is better", 1 > 2)


def test_estimates_have_a_minus_sign_no_negative_zero_and_no_bounds_where_there_are_none():
    assert interval(-0.001, -0.257, 0.5) == "0.00 [−0.26, 0.50]" and interval(0.5, float("nan"), float("nan")) == "0.50"
