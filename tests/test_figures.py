import math
import xml.etree.ElementTree as ET
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient

from opsd_lab.evaluation.estimate import Estimate
from opsd_lab.figures.idea import DESCRIPTION, draw_idea
from opsd_lab.figures.training import TEMPLATE, LiveTraining, draw_accuracy, draw_top_tokens, draw_training, plain

RECORDS = pd.DataFrame({"step": [1, 2, 3], "loss": [0.9, 0.5, 0.3], "divergence": [0.8, 0.4, 0.2]})
EVALUATED = RECORDS.assign(accuracy=[0.25, math.nan, 0.5], accuracy_low=[0.2, math.nan, 0.4], accuracy_high=[0.3, math.nan, 0.6])


def interval(mean, low, high, n=200):
    return Estimate(mean, low, high, n)


def curves(figure):
    return {trace.name: (list(trace.x), list(trace.y)) for trace in figure.data if trace.name}


def test_training_curves_are_the_records():
    assert curves(draw_training(RECORDS)) == {
        "loss": ([1, 2, 3], [0.9, 0.5, 0.3]),
        "divergence": ([1, 2, 3], [0.8, 0.4, 0.2]),
    }


def test_accuracy_is_drawn_where_it_was_measured_with_its_interval():
    figure = draw_training(EVALUATED)
    assert curves(figure)["accuracy"] == ([1, 3], [0.25, 0.5])
    band = next(trace for trace in figure.data if trace.fill == "toself")
    assert (list(band.x), list(band.y)) == ([1, 3, 3, 1], [0.3, 0.6, 0.4, 0.2])


def test_an_accuracy_that_was_never_measured_gets_no_axes():
    assert "accuracy" not in curves(draw_training(EVALUATED.assign(accuracy=math.nan)))


def test_curves_differ_in_dash_and_marker_and_not_in_colour_alone():
    lines = [trace for trace in draw_training(EVALUATED).data if trace.name]
    assert len({trace.line.dash for trace in lines}) == len({trace.marker.symbol for trace in lines}) == 3


def test_records_without_a_loss_are_refused_by_name():
    with pytest.raises(ValueError, match=r"no column \['loss'\].*'step'"):
        draw_training(RECORDS[["step"]])


def test_accuracies_show_means_intervals_and_numbers_as_text():
    figure = draw_accuracy({"before": interval(0.27, 0.21, 0.34), "OPSD": interval(0.72, 0.65, 0.78)})
    assert [trace.x[0] for trace in figure.data] == [0.27, 0.72]
    assert figure.data[0].error_x.array[0] == pytest.approx(0.07)
    assert figure.data[0].error_x.arrayminus[0] == pytest.approx(0.06)
    assert [note.text for note in figure.layout.annotations] == ["27% [21%, 34%]", "72% [65%, 78%]"]
    assert figure.layout.title.text == "Held-out accuracy, 95 % intervals, n = 200"
    assert len({trace.marker.symbol for trace in figure.data}) == 2


def test_accuracies_over_different_numbers_of_problems_say_so():
    figure = draw_accuracy({"a": interval(0.2, 0.1, 0.3, n=10), "b": interval(0.2, 0.1, 0.3, n=20)})
    assert list(figure.layout.yaxis.ticktext) == ["a (n = 10)", "b (n = 20)"]
    with pytest.raises(ValueError, match="no intervals"):
        draw_accuracy({})


def test_top_tokens_are_sorted_limited_visible_and_escaped():
    frame = pd.DataFrame({"token": ["a", " <b>", "\n", "z"], "total": [1.0, 3.0, 2.0, 0.5], "count": [4, 5, 6, 7]})
    figure = draw_top_tokens(frame, limit=3)
    assert list(figure.layout.yaxis.ticktext) == ["·&lt;b&gt;", "⏎", "a"]
    assert list(figure.data[0].x) == [3.0, 2.0, 1.0]
    assert list(figure.data[0].text) == ["3 · 5×", "2 · 6×", "1 · 4×"]
    assert "3 of 4" in figure.layout.title.text


def test_top_tokens_without_their_columns_or_rows_are_refused():
    with pytest.raises(ValueError, match=r"no column \['total', 'count'\]"):
        draw_top_tokens(pd.DataFrame({"token": ["a"]}))
    with pytest.raises(ValueError, match="no rows"):
        draw_top_tokens(pd.DataFrame({"token": [], "total": [], "count": []}))


def test_labels_hold_nothing_that_plotly_reads_as_markup_or_mathematics():
    assert plain("<b>&$x$") == "&lt;b&gt;&amp;&#36;x&#36;"


@pytest.mark.parametrize("figure", [draw_training(EVALUATED), draw_accuracy({"a": interval(0.5, 0.4, 0.6)})])
def test_figures_share_one_template_on_white_with_nothing_clipped(figure):
    assert figure.layout.template == TEMPLATE
    assert TEMPLATE.layout.paper_bgcolor == "#ffffff"
    assert TEMPLATE.layout.yaxis.automargin is True


def test_live_training_outside_a_notebook_collects_and_shows_nothing(capsys):
    live = LiveTraining()
    for record in RECORDS.to_dict("records"):
        live.update(record)
    pd.testing.assert_frame_equal(live.records, RECORDS)
    assert curves(live.figure) == curves(draw_training(RECORDS))
    assert capsys.readouterr().out == ""


def test_live_training_leaves_one_static_figure_of_all_steps_in_a_notebook_run_without_a_browser(tmp_path):
    source = (
        "from opsd_lab.figures.training import LiveTraining\nlive = LiveTraining()\n"
        "for step in range(4):\n    live.update({'step': step, 'loss': 1.0 / (step + 1)})"
    )
    run = (
        "from opsd_lab.figures.runs import LiveRun\nfrom opsd_lab.runs import Run, train\nfrom tests.test_checkpoints import build\n"
        f"live = LiveRun(Run({str(tmp_path / 'run')!r}), rollout_every=2)\n"
        f"for record in train({str(tmp_path / 'run')!r}, build(), 3, progress=False):\n    live.update(record)"
    )
    cells = [nbformat.v4.new_code_cell(code) for code in (source, run)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    folder = {"metadata": {"path": str(Path(__file__).parents[1])}}
    NotebookClient(notebook, kernel_name="python3", timeout=300, resources=folder).execute()
    (output,) = notebook.cells[0].outputs
    curves, beside = (output.data for output in notebook.cells[1].outputs if output.output_type == "display_data")
    assert curves["application/vnd.plotly.v1+json"]["data"][0]["x"] == [1, 2, 3]
    assert "every rollout was cut" in beside["text/html"] and "step 3" in beside["text/html"]
    figure = output.data["application/vnd.plotly.v1+json"]
    assert figure["data"][0]["x"] == [0, 1, 2, 3]
    assert "widgets" not in notebook.metadata


def test_the_idea_is_well_formed_described_and_self_contained():
    idea = draw_idea()
    root = ET.fromstring(idea.svg)
    space = "{http://www.w3.org/2000/svg}"
    assert root.find(f"{space}title").text == idea.title
    assert root.find(f"{space}desc").text == DESCRIPTION
    assert not root.findall(f".//{space}script") and not root.findall(f".//{space}image")
    assert idea.svg.count("http") == 1
    assert DESCRIPTION in idea._repr_html_() and "data:image/svg+xml;base64," in idea.html
