"""Executed notebooks as self-contained HTML pages, which show their figures without a network."""

import hashlib
import html
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import plotly.io as pio
from nbconvert.exporters import HTMLExporter
from nbformat import NotebookNode
from plotly.offline import get_plotlyjs

from opsd_lab.basics.files import write_whole
from opsd_lab.token_view.visible import visible_text

PLOTLY_MIME = "application/vnd.plotly.v1+json"
WIDGET_MIME = "application/vnd.jupyter.widget-view+json"
LIVE_ONLY = "<p><em>A live view stands here when the notebook runs in JupyterLab.</em></p>"
PLOTLY_PLACE = "opsd-lab:plotly.js"
# nbconvert's page loads MathJax, require.js, Mermaid and widgets from the network; this one may load nothing at all.
TEMPLATE = f"""
{{%- extends 'lab/index.html.j2' -%}}
{{%- block html_head_js -%}}
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline'; \
style-src 'unsafe-inline'; img-src data: blob:; font-src data:">
<!--{PLOTLY_PLACE}-->
{{%- endblock html_head_js -%}}
{{%- block jupyter_widgets -%}}{{%- endblock jupyter_widgets -%}}
{{%- block html_head_js_mathjax -%}}{{%- endblock html_head_js_mathjax -%}}
{{%- block html_head_js_mermaidjs -%}}{{%- endblock html_head_js_mermaidjs -%}}
"""


def export_html(notebook: Path, out: Path) -> None:
    """Write an executed notebook as one HTML file that makes no network request.

    Plotly figures are drawn by a copy of plotly.js inside the page; images of Markdown cells are embedded; a live
    widget becomes a note that it was one. Mathematics in TeX is not typeset: write formulas as text. Needs the
    `notebooks` extra.

    Raises:
        FileNotFoundError: when the notebook does not exist.
        nbformat.reader.NotJSONError: when it is not a notebook.
        OSError: when the page cannot be written.
    """
    notebook, out = Path(notebook), Path(out)
    document = nbformat.read(notebook, as_version=4)
    figures = sum(_prepare_cell(cell) for cell in document.cells)
    document.metadata.pop("widgets", None)
    exporter = HTMLExporter(raw_template=TEMPLATE, embed_images=True)
    about = {"name": visible_text(_title(document) or notebook.stem), "path": str(notebook.parent)}
    page, _ = exporter.from_notebook_node(document, resources={"metadata": about})
    script = f'<script charset="utf-8">{get_plotlyjs()}</script>' if figures else ""
    # Put in last: the exporter parses its whole page once more, and plotly.js is most of it.
    page = page.replace(f"<!--{PLOTLY_PLACE}-->", script, 1)
    write_whole(out, page)


def _prepare_cell(cell: NotebookNode) -> int:
    """Replace the cell's plotly and widget outputs by HTML; return how many figures there were."""
    figures = 0
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        if PLOTLY_MIME in data:
            output.data = NotebookNode({"text/html": figure_html(data[PLOTLY_MIME])})
            figures += 1
        elif WIDGET_MIME in data:
            kept = {kind: value for kind, value in data.items() if kind not in (WIDGET_MIME, "text/plain")}
            output.data = NotebookNode(kept or {"text/html": LIVE_ONLY})
    return figures


def figure_html(bundle: Mapping[str, Any]) -> str:
    """Return a plotly figure's data and layout as HTML, for a page that holds plotly.js."""
    figure = {"data": bundle.get("data", []), "layout": bundle.get("layout", {})}
    drawn = pio.to_html(
        figure,
        config={"responsive": True, "displaylogo": False},
        include_plotlyjs=False,
        full_html=False,
        validate=False,
        default_height=f"{figure['layout'].get('height', 450)}px",
        div_id=f"figure-{hashlib.sha256(pio.to_json(figure, validate=False).encode()).hexdigest()[:16]}",
    )
    name = html.escape(html.unescape(figure["layout"].get("title", {}).get("text", "figure")))
    return f'<div role="img" aria-label="{name}">{drawn}</div>'


def _title(document: NotebookNode) -> str:
    for cell in document.cells:
        if cell.cell_type == "markdown" and (heading := re.search(r"^# (.+)$", cell.source, re.MULTILINE)):
            return heading.group(1).strip()
    return ""


def drop_widgets(notebook: NotebookNode) -> None:
    """Take the progress bars and other widgets without a static form out of an executed notebook: they need its kernel."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if not _is_widget_alone(o.get("data", {}))]


def _is_widget_alone(data: dict) -> bool:
    return WIDGET_MIME in data and "text/html" not in data
