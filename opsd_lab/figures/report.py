"""A page of tables, figures and token views under headings: one HTML file that makes no network request."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from opsd_lab.basics.files import write_whole
from opsd_lab.figures.export import figure_html
from opsd_lab.figures.words import number
from opsd_lab.token_view.page import StaticView
from opsd_lab.token_view.visible import visible_text

Part = pd.DataFrame | go.Figure | StaticView
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:"
STYLE = """
body { margin: 0 auto; max-width: 1100px; padding: 16px 24px 48px; background: #ffffff; color: #111111; line-height: 1.5;
  font-family: system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif; font-size: 15px }
h1 { font-size: 26px } h2 { font-size: 20px; margin-top: 40px } p { max-width: 75ch }
table { border-collapse: collapse; font-size: 14px; display: block; overflow-x: auto } caption { text-align: left }
th, td { border-bottom: 1px solid #dfe3e8; padding: 4px 10px; text-align: right; white-space: nowrap }
td:first-child { text-align: left }
"""


@dataclass(frozen=True)
class Section:
    """A heading, what there is to see under it, and the tables, figures and views that show it."""

    title: str
    text: str
    parts: Sequence[Part]


def write_report(path: str | Path, title: str, text: str, sections: Sequence[Section]) -> Path:
    """Write the sections as a page and return its path; the file appears whole or not at all.

    `title` is the page's, and `text` stands under it.

    Raises:
        OSError: when it cannot be written.
    """
    body = [f"<h1>{_shown(title)}</h1>", f"<p>{_shown(text)}</p>"]
    for section in sections:
        body += [f"<h2>{_shown(section.title)}</h2>", f"<p>{_shown(section.text)}</p>", *map(_part, section.parts)]
    figures = any(isinstance(part, go.Figure) for section in sections for part in section.parts)
    script = f'<script charset="utf-8">{get_plotlyjs()}</script>' if figures else ""
    page = (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" '
        f'content="{POLICY}">\n<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{_shown(title)}</title>\n'
        f"<style>{STYLE}</style>\n{script}\n</head>\n<body>\n<main>\n" + "\n".join(body) + "\n</main>\n</body>\n</html>\n"
    )
    return write_whole(path, page)


def _part(part: Part) -> str:
    if isinstance(part, go.Figure):
        return figure_html(part.to_plotly_json())
    if isinstance(part, StaticView):
        return part.html
    numbers = part.select_dtypes("number").columns
    told = part.assign(**{name: [_number(value) for value in part[name]] for name in numbers}).astype(object)
    texts = told.map(lambda value: value if isinstance(value, str) else "" if pd.isna(value) else str(value))
    return texts.map(lambda text: text and visible_text(text)).to_html(index=False, border=0)


def _number(value: float) -> str:
    return "" if pd.isna(value) else f"{value:,.0f}" if float(value).is_integer() else number(value, 3)


def _shown(text: str) -> str:
    return html.escape(visible_text(text))
