"""What is said beside the coloured tokens: tooltips, steps in words, and a table for keyboards and screen readers."""

import html
import math
from collections.abc import Iterable
from types import MappingProxyType

from opsd_lab.token_view.visible import literal, visible_text
from opsd_lab.tokens.table import COLUMNS
from opsd_lab.tokens.top import SIDES, TopTokens

VERDICTS = MappingProxyType(
    {
        "correct": ("✓ correct", "solid", "#1f2937"),
        "incorrect": ("✗ incorrect", "dashed", "#86198f"),
        "unverifiable": ("? unverifiable", "dotted", "#4b5563"),
        "": ("not judged", "dotted", "#4b5563"),
    }
)
# "before" stands on every token of a rollout without an incorrect step, so it must not promise an error to come.
PHASES = MappingProxyType({"before": "no error so far", "first_error": "first error", "after": "after the first error", "": ""})
NAMES = {
    "position": "position",
    "gap": "gap",
    "student_p": "student p",
    "teacher_p": "teacher p",
    "student_logprob": "student log-prob",
    "teacher_logprob": "teacher log-prob",
    "divergence": "divergence",
    "student_rank": "student rank",
    "teacher_rank": "teacher rank",
    "weight": "weight",
    "step": "step",
    "label": "label",
    "label_source": "source",
    "error_phase": "phase",
}
LEADERS = {f"{side}_leaders": f"{side}’s most probable" for side in SIDES}
LEADING = 3  # tokens of each side that a tooltip names


def number(value: float) -> str:
    """Return a signed number with two decimals and a real minus sign; more digits where two would show zero."""
    if math.isinf(value):
        return "+∞" if value > 0 else "−∞"
    shown = f"{value:+.2f}" if abs(value) >= 0.005 or value == 0 else f"{value:+.1g}"
    return shown.replace("-", "−") if value else "0"


def probability(logprob: float) -> str:
    """Return the probability of a natural log-probability with three digits."""
    return f"{math.exp(logprob):.3g}"


def attribute(text: str) -> str:
    """Return text escaped for a double-quoted attribute; its apostrophes, which abound in literals, stay one byte each."""
    return html.escape(text, quote=False).replace('"', "&quot;")


def leading_tokens(top: TopTokens, sampled: Iterable[int]) -> list[dict[str, str]]:
    """Return for each token what the two sides find most probable there, under the names of `LEADERS`.

    Up to `LEADING` tokens, as literals with their probabilities; the one of the ids `sampled` [N] is marked.
    """
    lines: list[dict[str, str]] = [{} for _ in range(len(top))]
    for side in SIDES:
        ids, logprobs = (getattr(top, f"{side}_top_{kind}")[:, :LEADING].tolist() for kind in ("ids", "logprobs"))
        for line, chosen, row_ids, row_logprobs in zip(lines, sampled, ids, logprobs, strict=True):
            line[f"{side}_leaders"] = ", ".join(
                f"{literal(top.texts[i])} {probability(p)}{' (sampled)' if i == chosen else ''}"
                for i, p in zip(row_ids, row_logprobs, strict=True)
            )
    return lines


def step_words(row: dict) -> tuple[str, str, str]:
    """Return the step of a token with its verdict, who gave it, and where the token stands to the first error, in words.

    Each is plain text, and empty where it is not known or the token is in no step.
    """
    verdict = f"step {row['step'] + 1} {VERDICTS[row['label']][0]}" if row["step"] >= 0 else ""
    source = f" ({visible_text(row['label_source'])})" if verdict and row["label_source"] else ""
    return verdict, source, PHASES[row["error_phase"]]


def sums(rows: list[dict], column: str) -> str:
    """Return, as HTML, the sum and the mean of the gap over some tokens, and of `column` where that is another one."""
    parts = []
    for name in dict.fromkeys(["gap", column]):
        total = sum(row[name] for row in rows)
        parts.append(unbroken(f"Σ {column_name(name)} {number(total)}, mean {number(total / len(rows))}"))
    return "; ".join(parts)


def unbroken(markup: str) -> str:
    """Return HTML that stays on one line."""
    return f'<span style="white-space:nowrap">{markup}</span>'


def column_name(column: str) -> str:
    """Return what a column of a TokenTable is called where people read it."""
    return NAMES.get(column) or column.replace("_", " ")


def extra_columns(row: dict) -> list[str]:
    """Return the names of what a method recorded of a token beyond the columns that every table has."""
    return [name for name in row if name not in COLUMNS and name not in LEADERS]


def token_details(row: dict) -> str:
    """Return one token's numbers as a few lines of plain text; `row` has the columns of a TokenTable.

    The token stands there as a Python literal, in which nothing is invisible. `leading_tokens`, where `row` has them,
    follow the numbers of their side.
    """
    lines = [f"{literal(row['token'])}  (position {row['position']}, id {row['token_id']})"]
    if not row["token"]:
        lines.append("no text of its own, as in a character that is spread over several tokens")
    lines.append(
        f"gap {number(row['gap'])} nats, divergence {row['divergence']:.3g}, loss {row['loss']:.3g}, weight {row['weight']:g}"
    )
    for side in SIDES:
        logprob = row[f"{side}_logprob"]
        entropy, rank = row[f"{side}_entropy"], row[f"{side}_rank"]
        lines.append(f"{side}: p {probability(logprob)}, log-prob {number(logprob)}, rank {rank}, entropy {entropy:.2f}")
        if leaders := row.get(f"{side}_leaders"):
            lines.append(f"  {leaders}")
    if extra := extra_columns(row):
        lines.append(", ".join(f"{visible_text(name)} {visible_text(_cell(row, name))}" for name in extra))
    verdict, source, phase = step_words(row)
    lines.append(", ".join(filter(None, [verdict + source, phase])))
    return "\n".join(filter(None, lines))


def tokens_as_table(rows: list[dict], caption: str, column: str) -> str:
    """Return a closed `<details>` with a table of the tokens of one rollout; `caption` is HTML, escaped already.

    `column`, the one that the tokens are coloured by, is among the columns, as are the `leading_tokens` of the rows.
    """
    own = [name for name in LEADERS if name in rows[0]]
    columns = dict.fromkeys(["position", "gap", column, *NAMES, *extra_columns(rows[0]), *own])
    heads = "".join(f'<th scope="col">{LEADERS.get(name) or attribute(column_name(name))}' for name in ("token", *columns))
    # Each row states its background, because JupyterLab's own themes colour the rows of every table. Cells need no end tags.
    body = "".join(
        f'<tr style="background:#fff"><th scope="row">{attribute(literal(row["token"]))}'
        + "".join(f"<td>{attribute(_cell(row, name))}" for name in columns)
        for row in rows
    )
    # Without the style sheet, cells that hold several words would be squeezed into columns of one word.
    width = sum(280 if name in LEADERS else 70 for name in columns)
    return (
        '<details style="margin-top:10px;font-size:13px"><summary style="cursor:pointer">values as a table</summary>'
        f'<div tabindex="0" role="region" aria-label="values of {caption}" style="overflow-x:auto;max-height:340px;'
        f'overflow-y:auto"><table style="border-collapse:collapse;min-width:{width}px;font-size:12px;margin:6px 0;'
        f'background:#ffffff;color:#111111"><caption style="text-align:left">{caption}: log-probabilities, gap and divergence in '
        f'nats; rank 0 is the most probable token</caption><thead><tr style="background:#e5e7eb">{heads}</thead>'
        f"<tbody>{body}</tbody></table></div></details>"
    )


def _cell(row: dict, column: str) -> str:
    if column == "step":
        return str(row["step"] + 1) if row["step"] >= 0 else "–"
    if column == "label":
        return VERDICTS[row["label"]][0] if row["step"] >= 0 else "–"
    if column == "error_phase":
        return PHASES[row["error_phase"]] or "–"
    if column.endswith("_p"):
        return probability(row[f"{column.removesuffix('_p')}_logprob"])
    value = row[column]
    if isinstance(value, str):
        return value if column in LEADERS else visible_text(value) if value else "–"
    if column == "gap" or column.endswith("logprob"):
        return number(value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)
