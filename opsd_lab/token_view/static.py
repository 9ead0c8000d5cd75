"""Token tables as script-free HTML: each token coloured by what the teacher thinks of it.

What a reader needs to see (colours, layout, line breaks) is written into `style` attributes, because JupyterLab strips
style sheets, not attributes, from the outputs of a notebook that it does not trust yet, which a fresh clone is. The
style sheet only adds refinements.
"""

import html
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby, zip_longest
from operator import itemgetter

import numpy as np
import pandas as pd

from opsd_lab.token_view.colours import TEXT, colour, gradient
from opsd_lab.token_view.details import (
    VERDICTS,
    attribute,
    leading_tokens,
    number,
    step_words,
    sums,
    token_details,
    tokens_as_table,
    unbroken,
)
from opsd_lab.token_view.meanings import Meaning, meanings
from opsd_lab.token_view.page import CARD, MONO, NOTE, PANEL, StaticView
from opsd_lab.token_view.visible import visible_html, visible_text
from opsd_lab.tokens.table import TokenTable

SMALLEST_SCALE = 0.5
LONG_TOKEN = 24  # characters; longer ones may wrap inside
STYLE = """
.opsd-tokens bdi{white-space:pre;border-radius:3px;padding:2px 0;margin-right:2px}
.opsd-tokens bdi.long{white-space:pre-wrap}
.opsd-tokens bdi:hover{outline:2px solid #111;outline-offset:1px}
.opsd-tokens :is(bdi,.opsd-step){box-decoration-break:clone;-webkit-box-decoration-break:clone}
.opsd-tokens i{position:relative;font-style:normal}
.opsd-tokens i::before{content:"·";position:absolute;left:0;opacity:.4}
.opsd-view summary:focus-visible,.opsd-view [tabindex]:focus-visible{outline:3px solid #0b57a4;outline-offset:2px}
.opsd-view table :is(td,th){padding:2px 8px;border:1px solid #dfe3e8;text-align:right;white-space:pre}
.opsd-view thead{position:sticky;top:0}
.opsd-view th:first-child{text-align:left}
.opsd-view tbody th{font-weight:400;font-family:ui-monospace,monospace}
"""
NUMBER = "font-family:system-ui,sans-serif;font-weight:700;margin:0 3px 0 1px"
CHIP = "font-family:system-ui,sans-serif;font-size:11px;border-radius:4px;padding:2px 6px;margin-right:5px;vertical-align:1px"
BEYOND = f"border:2px dotted {TEXT}"
MASKED = "text-decoration:line-through;border:1px dashed #6b7280"


@dataclass(frozen=True)
class TokenView(StaticView):
    """The rendered rollouts, and the `scale` that their colours share (units of the column shown)."""

    scale: float


def render(table: TokenTable, *, column: str = "gap", titles: list[str] | None = None, scale: float | None = None) -> TokenView:
    """Show each rollout of `table` in a panel of its own, all coloured by `column` on one zero-centred scale.

    The scale ends at plus and minus `scale`; left out, that is the 98th percentile of the absolute values, rounded up
    to two digits and at least 0.5. A value beyond it is dotted and printed; a token of weight 0 is struck through.

    Raises:
        TypeError: for something else in place of a table; the message says what to pass.
        ValueError: for an empty table, a column that holds no real numbers, a scale that is not positive, a title that is no text,
            or a number of titles that is not the number of rollouts.
    """
    check_table(table, "render")
    if not len(table):
        raise ValueError("token view: the TokenTable has no rows, so there is nothing to show")
    panels = [table.rollout(index) for index in sorted(table.frame["rollout"].unique())]
    if titles is None:
        firsts = [panel.frame.iloc[0] for panel in panels]
        titles = [f"rollout {first['rollout']} · problem {first['problem_id']}" for first in firsts]
    if len(titles) != len(panels):
        raise ValueError(f"token view: {len(titles)} titles for {len(panels)} rollouts; give one for each")
    check_titles(dict(enumerate(titles)))
    return _view(panels, titles, column, scale)


def render_views(tables: Mapping[str, TokenTable], *, rollout: int, column: str = "gap", scale: float | None = None) -> TokenView:
    """Show one rollout as several tables score it, a panel for each under its name, all on one scale (see `render`).

    The tables hold the same completion under different privileged views, or before and after training. `rollout` is its number in all
    of them. `column` is what the tokens are coloured by.

    Raises:
        TypeError: for something else in place of a table; the message says what to pass.
        KeyError: when a table has no rollout of that number.
        ValueError: when there are no tables, when they hold different completions, and as `render` does.
    """
    if not tables:
        raise ValueError("render_views: no tables, so there is nothing to compare; give one for each view")
    check_titles(dict(enumerate(tables)))
    for name, table in tables.items():
        check_table(table, f"render_views: {name!r}")
        if rollout not in (there := set(table.frame["rollout"])):
            raise KeyError(f"render_views: the table {name!r} has no rollout {rollout}; it has {sorted(there)}")
    panels = {name: table.rollout(rollout) for name, table in tables.items()}
    model, *others = panels
    for name in others:
        pairs = zip_longest(panels[model].frame["token_id"], panels[name].frame["token_id"])
        for position, (wanted, found) in enumerate(pairs):
            if wanted != found:
                raise ValueError(
                    f"render_views: at position {position}, {model!r} has the token id {_or_end(wanted)} and {name!r} has "
                    f"{_or_end(found)}; score the same completion under every view"
                )
    return _view(list(panels.values()), list(panels), column, scale)


def check_table(table: object, who: str) -> None:
    """Raise TypeError, which says what to pass, for what is no TokenTable."""
    if not isinstance(table, TokenTable):
        remedy = "pass its .table" if isinstance(getattr(table, "table", None), TokenTable) else "score_rollouts makes them"
        raise TypeError(f"{who}: needs a TokenTable, not a {type(table).__name__}; {remedy}")


def check_titles(titles: Mapping[int, object]) -> None:
    """Raise ValueError for a title that is no text."""
    for place, title in titles.items():
        if not isinstance(title, str):
            raise ValueError(f"token view: title {place} is {title!r}, not text")


def _or_end(token_id: int | None) -> int | str:
    return "none (it has ended)" if token_id is None else token_id


def _view(panels: list[TokenTable], titles: list[str], column: str, scale: float | None) -> TokenView:
    if column not in (known := meanings(panels)):
        raise ValueError(f"token view: cannot colour by {column!r}; choose one of {sorted(known)}")
    frame = pd.concat([panel.frame for panel in panels])
    chosen = "chosen by the caller" if scale is not None else "98th percentile over all panels"
    scale = default_scale(frame[column].to_numpy()) if scale is None else float(scale)
    if not 0 < scale < np.inf:
        raise ValueError(f"token view: scale is {scale}, not a positive number")
    shown = "".join(_panel(panel, title, column, scale) for panel, title in zip(panels, titles, strict=True))
    fragment = (
        f'<div class="opsd-view" style="{CARD}"><style>{STYLE}</style>{_legend(frame, column, known[column], scale, chosen)}'
        f'<div style="display:flex;flex-wrap:wrap;gap:12px;align-items:stretch">{shown}</div></div>'
    )
    return TokenView(fragment, f"Token view: {', '.join(titles)}", scale)


def default_scale(values: np.ndarray) -> float:
    """Return the 98th percentile of the finite absolute values, rounded up to two digits, and at least 0.5."""
    finite = np.abs(values[np.isfinite(values)])
    largest = float(np.quantile(finite, 0.98)) if finite.size else 0.0
    if largest <= SMALLEST_SCALE:
        return SMALLEST_SCALE
    unit = 10.0 ** (np.floor(np.log10(largest)) - 1)
    return float(f"{np.ceil(largest / unit - 1e-9) * unit:.2g}")


def is_beyond(value: float | np.ndarray, scale: float) -> bool | np.ndarray:
    """Return whether a value lies outside the scale, rounding errors aside."""
    return np.abs(value) > scale * (1 + 1e-9)


def _legend(frame: pd.DataFrame, column: str, meaning: Meaning, scale: float, chosen: str) -> str:
    name, unit, below, above = map(html.escape, meaning)
    signed = column == "gap" or bool((frame[column] < 0).any())
    ends = (f"−{scale:g}", "0", f"+{scale:g}") if signed else ("0", f"{scale:g}")
    ticks = "".join(f"<span>{end}</span>" for end in ends)
    sample = "padding:0 4px;border-radius:3px;white-space:nowrap"
    marks = [below, above] if signed else [above]
    marks.append(f"scale ±{scale:g}{unit}, {chosen}" if signed else f"scale up to {scale:g}{unit}, {chosen}")
    if is_beyond(frame[column].to_numpy(), scale).any():
        marks.append(f'<span style="{sample};{BEYOND}">dotted</span> beyond the scale, its value beside it')
    if (frame["weight"] == 0).any():
        marks.append(f'<span style="{sample};{MASKED}">struck through</span> weight 0: not trained on')
    marks.append("hover over a token for its numbers, or open the table under each panel")
    notes = "".join(f'<span style="display:inline-block;margin-right:16px">{mark}</span>' for mark in marks)
    return (
        '<div style="display:flex;flex-wrap:wrap;gap:6px 20px;align-items:flex-start;margin-bottom:12px">'
        f'<div style="flex:0 0 auto;width:315px;max-width:100%"><div style="font-weight:600">{name}{unit and ","}{unit}'
        '</div><div style="height:12px;border:1px solid #6b7280;border-radius:3px;background:'
        f'{gradient(signed=signed)}"></div><div style="display:flex;justify-content:space-between;font-size:12px">'
        f'{ticks}</div></div><div style="flex:1 1 300px;font-size:13px;color:#374151">{notes}</div></div>'
    )


def _panel(panel: TokenTable, title: str, column: str, scale: float) -> str:
    rows = panel.frame.to_dict("records")
    leaders = leading_tokens(panel.top, panel.frame["token_id"]) if panel.top is not None else [{}] * len(rows)
    for row, both_sides in zip(rows, leaders, strict=True):
        row.update(both_sides)
    steps = groupby(rows, key=itemgetter("step", "label", "label_source", "error_phase"))
    tokens = "".join(_step(list(group), column, scale) for _, group in steps)
    shown_title = html.escape(visible_text(title))
    answer = f"final answer {VERDICTS[rows[0]['outcome']][0]}; " if rows[0]["outcome"] else ""
    return (
        f'<figure style="{PANEL}"><figcaption style="margin-bottom:6px"><bdi style="font-weight:600">{shown_title}</bdi>'
        f'<span style="{NOTE}">{answer}{len(rows):,} tokens; {sums(rows, column)}</span></figcaption>'
        f'<div class="opsd-tokens" translate="no" dir="ltr" style="font-family:{MONO};'
        f'font-size:15px;line-height:2;white-space:pre-wrap;overflow-wrap:anywhere">{tokens}</div>'
        f"{tokens_as_table(rows, shown_title, column)}</figure>"
    )


def _step(rows: list[dict], column: str, scale: float) -> str:
    tokens = "".join(_token(row, column, scale) for row in rows)
    if rows[0]["step"] < 0:
        return tokens
    _, line, ink = VERDICTS[rows[0]["label"]]
    verdict, source, phase = step_words(rows[0])
    words = unbroken(verdict) + html.escape(source)
    fill = f"background:#ffffff;color:{ink}"
    if rows[0]["error_phase"] in ("first_error", "after"):
        words += f", {unbroken(phase)}"
    if rows[0]["error_phase"] == "first_error":  # filled, so that it is found at a glance
        fill = f"background:{ink};color:#ffffff"
    return (
        f'<span class="opsd-step" style="{CHIP};{fill};border:1px {line} {ink}"><b>{words}:</b> '
        f"{sums(rows, column)}</span>"
        f'<span style="border-bottom:3px {line} {ink};padding-bottom:3px">{tokens}</span>'
    )


def _token(row: dict, column: str, scale: float) -> str:
    value = row[column]
    style = f"background:{colour(value, scale)}"
    printed = ""
    if is_beyond(value, scale):
        style += f";{BEYOND}"
        printed = f'<small style="{NUMBER}">{number(value)}</small>'
    if row["weight"] == 0:
        style += f";{MASKED}"
    extra = ""
    if len(row["token"]) > LONG_TOKEN or "\n" in row["token"].rstrip("\n"):
        extra = ' class="long"'
    # A token keeps its leading space when a line wraps, so the place to wrap is before it, as before a special token.
    wrap = "<wbr>" if row["token"].startswith((" ", "<")) else ""
    text, breaks = visible_html(row["token"])
    return f'{wrap}<bdi style="{style}"{extra} title="{attribute(token_details(row))}">{text}</bdi>{printed}{breaks}'
