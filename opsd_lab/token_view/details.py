"""The numbers behind a coloured token: as a tooltip, and as rows of a table for keyboards and screen readers."""

import html
import math

TABLE_COLUMNS = {
    "position": "position",
    "token": "token",
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
}


def number(value: float) -> str:
    """Return a signed number with two decimals and a real minus sign; more digits where two would show zero."""
    if math.isinf(value):
        return "+∞" if value > 0 else "−∞"
    shown = f"{value:+.2f}" if abs(value) >= 0.005 or value == 0 else f"{value:+.1g}"
    return shown.replace("-", "−") if value else "0"


def probability(logprob: float) -> str:
    """Return the probability of a natural log-probability with three digits."""
    return f"{math.exp(logprob):.3g}"


def token_details(row: dict) -> str:
    """Return one token's numbers as a few lines of plain text; `row` has the columns of a TokenTable.

    The token stands there as a Python literal, in which nothing is invisible.
    """
    sides = "\n".join(
        f"{side}: p {probability(row[f'{side}_logprob'])}, log-prob {number(row[f'{side}_logprob'])}, "
        f"rank {row[f'{side}_rank']}, entropy {row[f'{side}_entropy']:.2f}"
        for side in ("student", "teacher")
    )
    step = f"\nstep {row['step'] + 1}: {row['label'] or 'not judged'}" if row["step"] >= 0 else ""
    return (
        f"{row['token']!r}  (position {row['position']}, id {row['token_id']})\n{sides}\n"
        f"gap {number(row['gap'])} nats, divergence {row['divergence']:.3g} nats\n"
        f"loss {row['loss']:.3g}, weight {row['weight']:g}{step}"
    )


def tokens_as_table(rows: list[dict], caption: str) -> str:
    """Return a closed `<details>` with a table of the tokens of one rollout; `caption` is HTML, escaped already."""
    heads = "".join(f'<th scope="col">{head}</th>' for head in TABLE_COLUMNS.values())
    # Each row states its background, because JupyterLab's own themes colour the rows of every table.
    body = "".join(f'<tr style="background:#ffffff">{"".join(_cells(row))}</tr>' for row in rows)
    return (
        '<details style="margin-top:10px;font-size:13px"><summary style="cursor:pointer">values as a table</summary>'
        f'<div tabindex="0" role="region" aria-label="values of {caption}" style="overflow-x:auto;max-height:340px;'
        'overflow-y:auto"><table style="border-collapse:collapse;font-size:12px;margin:6px 0;background:#ffffff;'
        f'color:#111111"><caption style="text-align:left">{caption}: log-probabilities, gap and divergence in nats; '
        'rank 0 is the most probable token</caption><thead><tr style="background:#e5e7eb">'
        f"{heads}</tr></thead><tbody>{body}</tbody></table></div></details>"
    )


def _cells(row: dict) -> list[str]:
    verdict = f"{row['step'] + 1} {row['label']}".strip() if row["step"] >= 0 else "–"
    shown = {
        "position": str(row["position"]),
        "token": repr(row["token"]),
        "gap": number(row["gap"]),
        "student_p": probability(row["student_logprob"]),
        "teacher_p": probability(row["teacher_logprob"]),
        "student_logprob": number(row["student_logprob"]),
        "teacher_logprob": number(row["teacher_logprob"]),
        "divergence": f"{row['divergence']:.3g}",
        "student_rank": str(row["student_rank"]),
        "teacher_rank": str(row["teacher_rank"]),
        "weight": f"{row['weight']:g}",
        "step": verdict,
    }
    cells = [f"<td>{html.escape(shown[name])}</td>" for name in TABLE_COLUMNS]
    cells[1] = f'<th scope="row"><code style="background:none;color:#111111">{html.escape(shown["token"])}</code></th>'
    return cells
