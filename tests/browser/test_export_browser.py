from types import SimpleNamespace

import nbformat
import pandas as pd
import pytest

from opsd_lab.figures.export import export_html
from opsd_lab.figures.idea import draw_idea
from opsd_lab.figures.training import draw_accuracy, draw_top_tokens

LABELS = ("<b>bold</b>", "<script>alert(1)</script>", '<a href="javascript:1">', "&lt;", "$x$", "<br>", " 7")
SHOWN = ["<b>bold</b>", "<script>alert(1)</script>", '<a·href="javascript:1">', "&lt;", "$x$", "<br>", "·7"]
PLOTLY = "application/vnd.plotly.v1+json"
WIDGET = "application/vnd.jupyter.widget-view+json"


def code_cell(source, *bundles):
    outputs = [nbformat.v4.new_output("display_data", data=bundle) for bundle in bundles]
    return nbformat.v4.new_code_cell(source, outputs=outputs, execution_count=1)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    tokens = pd.DataFrame({"token": LABELS, "total": range(len(LABELS), 0, -1), "count": 3})
    figures = [draw_top_tokens(tokens), draw_accuracy({"OPSD": SimpleNamespace(mean=0.7, low=0.6, high=0.8, n=9)})]
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell("# A walk & more\n\nText, and `loss = mean(divergence)`."),
            code_cell("draw()", *({PLOTLY: figure.to_plotly_json()} for figure in figures)),
            code_cell("draw_idea()", {"text/html": draw_idea().html, "text/plain": "IdeaFigure"}),
            code_cell("bar", {WIDGET: {"model_id": "1", "version_major": 2, "version_minor": 0}, "text/plain": "0%"}),
        ],
        metadata={"widgets": {"application/vnd.jupyter.widget-state+json": {"state": {}}}},
    )
    folder = tmp_path_factory.mktemp("export")
    nbformat.write(notebook, folder / "walk.ipynb")
    export_html(folder / "walk.ipynb", folder / "build" / "walk.html")
    return folder / "build" / "walk.html"


@pytest.fixture(scope="module")
def opened(chromium, exported):
    context = chromium.new_context(viewport={"width": 1200, "height": 900})
    page = context.new_page()
    page.requests, page.problems = [], []
    page.on("request", lambda request: page.requests.append(request.url))
    page.on("console", lambda entry: page.problems.append(entry.text) if entry.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("dialog", lambda dialog: (page.problems.append(dialog.message), dialog.dismiss()))
    page.goto(exported.as_uri())
    page.wait_for_selector(".main-svg .ytick text")
    page.wait_for_timeout(500)
    yield page
    context.close()


def test_the_page_asks_nothing_of_any_network(opened, exported):
    outside = [url for url in opened.requests if not url.startswith(("data:", "blob:"))]
    assert outside == [exported.as_uri()]
    assert opened.problems == []


def test_plotly_is_in_the_page_once_and_every_figure_is_drawn(opened, exported):
    assert exported.read_text(encoding="utf-8").count('<script charset="utf-8">') == 1
    assert opened.locator(".js-plotly-plot").count() == 2
    for figure in opened.locator(".js-plotly-plot").all():
        assert figure.locator(".main-svg").first.bounding_box()["width"] > 500


def test_token_labels_show_letter_by_letter(opened):
    figure = opened.locator(".js-plotly-plot").first
    assert figure.locator(".ytick text").evaluate_all("all => all.map(e => e.textContent)") == SHOWN
    assert figure.locator("a:not(.modebar-btn)").count() == 0


def test_figures_are_named_for_a_screen_reader(opened):
    assert opened.get_by_role("img", name="Held-out accuracy, 95 % intervals, n = 9").count() == 1


def test_a_live_widget_becomes_a_note_and_loads_nothing(opened):
    assert opened.get_by_text("A live view stands here").count() == 1
    assert opened.title() == "A walk & more"


def test_a_page_without_figures_does_not_carry_plotly(tmp_path):
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("text")]), tmp_path / "plain.ipynb")
    export_html(tmp_path / "plain.ipynb", tmp_path / "plain.html")
    page = (tmp_path / "plain.html").read_text(encoding="utf-8")
    assert len(page) < 1_000_000 and "https://cdn" not in page and "<title>plain</title>" in page


def test_a_notebook_that_is_not_there_is_an_error_and_leaves_no_page(tmp_path):
    with pytest.raises(FileNotFoundError):
        export_html(tmp_path / "none.ipynb", tmp_path / "out.html")
    assert not (tmp_path / "out.html").exists()
