"""Token tables as script-free HTML: each token coloured by what the teacher thinks of it.

What a reader needs to see (colours, layout, line breaks) is written into `style` attributes, because JupyterLab strips
style sheets, not attributes, from the outputs of a notebook that it does not trust yet, which a fresh clone is. The
style sheet only adds refinements.
"""

import html
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType

import numpy as np
import pandas as pd

from opsd_lab.token_table import TokenTable
from opsd_lab.token_view.colours import TEXT, colour, gradient
from opsd_lab.token_view.details import number, token_details, tokens_as_table
from opsd_lab.token_view.page import StaticView
from opsd_lab.token_view.visible import visible_html, visible_text

# For each column: its name, its unit, and what the two ends of the scale mean.
MEANINGS = MappingProxyType(
    {
        "gap": (
            "teacher − student log-probability",
            " nats",
            "orange: the teacher finds the student’s token less likely",
            "blue: the teacher finds it more likely",
        ),
        "divergence": ("divergence of teacher and student", " nats", "below zero", "blue: the two disagree more"),
        "clipped": ("divergence that the clip took off", " nats", "below zero", "blue: more was taken off"),
        "loss": ("the token’s term of the loss", "", "orange: negative", "blue: larger"),
        "weight": ("the token’s weight in the loss", "", "orange: negative", "blue: counts more"),
        "student_logprob": ("student log-probability", " nats", "orange: less likely", "blue: above zero"),
        "teacher_logprob": ("teacher log-probability", " nats", "orange: less likely", "blue: above zero"),
        "student_entropy": ("student entropy", " nats", "below zero", "blue: the student is less certain"),
        "teacher_entropy": ("teacher entropy", " nats", "below zero", "blue: the teacher is less certain"),
    }
)
VERDICTS = MappingProxyType(
    {
        "correct": ("✓ correct", "solid", "#1f2937"),
        "incorrect": ("✗ incorrect", "dashed", "#86198f"),
        "unverifiable": ("? unverifiable", "dotted", "#4b5563"),
        "": ("not judged", "dotted", "#4b5563"),
    }
)
SMALLEST_SCALE = 0.5
LONG_TOKEN = 24  # characters; longer ones may wrap inside
STYLE = """
.opsd-tokens bdi{white-space:pre;border-radius:3px;padding:2px 0;margin-right:2px}
.opsd-tokens bdi.long{white-space:pre-wrap}
.opsd-tokens bdi:hover{outline:2px solid #111;outline-offset:1px}
.opsd-tokens bdi{box-decoration-break:clone;-webkit-box-decoration-break:clone}
.opsd-tokens i{position:relative;font-style:normal}
.opsd-tokens i::before{content:"·";position:absolute;left:0;opacity:.4}
.opsd-view summary:focus-visible,.opsd-view [tabindex]:focus-visible{outline:3px solid #0b57a4;outline-offset:2px}
.opsd-view table :is(td,th){padding:2px 8px;border:1px solid #dfe3e8;text-align:right;white-space:pre}
.opsd-view tbody th{text-align:left;font-weight:400}
"""
CARD = (
    f"background:#ffffff;color:{TEXT};color-scheme:light;border:1px solid #c9ced6;border-radius:8px;padding:12px 14px;"
    "font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;font-size:14px;line-height:1.45;"
    "text-align:left;box-sizing:border-box"
)
PANEL = (
    "flex:1 1 300px;min-width:0;margin:0;padding:10px 12px;border:1px solid #dfe3e8;border-radius:6px;"
    f"background:#ffffff;color:{TEXT}"
)
MONO = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"
NUMBER = "font-family:system-ui,sans-serif;font-weight:700;margin:0 3px 0 1px"
CHIP = (
    "font-family:system-ui,sans-serif;font-size:11px;font-weight:600;line-height:1.3;background:#ffffff;"
    "border-radius:4px;padding:1px 6px;margin:0 5px 0 0;white-space:nowrap"
)
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
        ValueError: for an empty table, a column that holds no real numbers, a scale that is not positive, or a number
            of titles that is not the number of rollouts.
    """
    if column not in MEANINGS:
        raise ValueError(f"render: cannot colour by {column!r}; choose one of {sorted(MEANINGS)}")
    if not len(table):
        raise ValueError("render: the TokenTable has no rows, so there is nothing to show")
    panels = [rows for _, rows in table.frame.groupby("rollout", sort=True)]
    if titles is None:
        titles = [f"rollout {p['rollout'].iloc[0]} · problem {p['problem_id'].iloc[0]}" for p in panels]
    if len(titles) != len(panels):
        raise ValueError(f"render: {len(titles)} titles for {len(panels)} rollouts; give one for each")
    values = table.frame[column].to_numpy()
    chosen = "chosen by the caller" if scale is not None else "98th percentile over all panels"
    scale = default_scale(values) if scale is None else float(scale)
    if not 0 < scale < np.inf:
        raise ValueError(f"render: scale is {scale}, not a positive number")
    shown = "".join(_panel(rows, title, column, scale) for rows, title in zip(panels, titles, strict=True))
    fragment = (
        f'<div class="opsd-view" style="{CARD}"><style>{STYLE}</style>{_legend(table.frame, column, scale, chosen)}'
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


def _legend(frame: pd.DataFrame, column: str, scale: float, chosen: str) -> str:
    name, unit, below, above = MEANINGS[column]
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


def _panel(rows: pd.DataFrame, title: str, column: str, scale: float) -> str:
    records = rows.to_dict("records")
    steps = groupby(records, key=lambda row: (row["step"], row["label"]))
    tokens = "".join(_step(list(group), column, scale) for _, group in steps)
    shown_title = html.escape(visible_text(title))
    return (
        f'<figure style="{PANEL}"><figcaption style="font-weight:600;margin-bottom:6px"><bdi>{shown_title}</bdi>'
        f'</figcaption><div class="opsd-tokens" translate="no" dir="ltr" style="font-family:{MONO};'
        f'font-size:15px;line-height:2.1;white-space:pre-wrap;overflow-wrap:anywhere">{tokens}</div>'
        f"{tokens_as_table(records, shown_title)}</figure>"
    )


def _step(rows: list[dict], column: str, scale: float) -> str:
    tokens = "".join(_token(row, column, scale) for row in rows)
    step, label = rows[0]["step"], rows[0]["label"]
    if step < 0:
        return tokens
    verdict, line, ink = VERDICTS[label]
    gaps = [row["gap"] for row in rows]
    total = f"Σ gap {number(sum(gaps))}"
    hint = f"step {step + 1}, {verdict}: {total} nats over {len(rows)} tokens, mean {number(sum(gaps) / len(gaps))} nats"
    return (
        f'<span style="border-bottom:3px {line} {ink};padding-bottom:3px"><span class="opsd-step" title="{hint}" '
        f'style="{CHIP};color:{ink};border:1px {line} {ink}">step {step + 1} {verdict}, {total}</span>{tokens}</span>'
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
    return f'{wrap}<bdi style="{style}"{extra} title="{html.escape(token_details(row))}">{text}</bdi>{printed}{breaks}'
