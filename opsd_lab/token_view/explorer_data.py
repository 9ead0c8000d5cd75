"""What the live token view is sent: one rollout of each named table as JSON, and nothing that is not shown or exported."""

import json
import math
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from opsd_lab.token_view.colours import ABOVE, BELOW
from opsd_lab.token_view.details import VERDICTS
from opsd_lab.token_view.meanings import meanings
from opsd_lab.token_view.static import default_scale
from opsd_lab.token_view.visible import NEWLINE, visible_text
from opsd_lab.tokens.classes import CLASSES, token_classes
from opsd_lab.tokens.table import COLUMNS, LABELS, TokenTable
from opsd_lab.tokens.top import ARRAYS


def frame_of_view(tables: Mapping[str, TokenTable], titles: Mapping[int, str], column: str, scale: float | None) -> str:
    """Return what all rollouts share, as JSON: the names, the columns with their meanings and scales, the colours, the rollouts.

    `tables` have the names of their panels. `titles` go by the rollout's number; one without has its number and problem. `scale` is
    where the colours of `column` end, in its unit; None leaves it to `default_scale`, as every other column's is.
    """
    columns = {}
    for name, (meaning, unit, below, above) in meanings(tables.values()).items():
        values = np.concatenate([table.frame[name].to_numpy() for table in tables.values()])
        chosen = scale if name == column and scale is not None else default_scale(values)
        signed = name == "gap" or bool((values < 0).any())
        columns[name] = {"meaning": meaning, "unit": unit.strip(), "ends": [below, above], "scale": chosen, "signed": signed}
    rollouts = sorted({int(i) for table in tables.values() for i in table.frame["rollout"].unique()})
    return as_json(
        {
            "names": list(tables),
            "columns": columns,
            "stops": {"below": BELOW, "above": ABOVE},
            "verdicts": {label: list(VERDICTS[label][:2]) for label in LABELS},
            "labels": list(LABELS),
            "classes": list(CLASSES),
            "rollouts": [{"number": i, "title": visible_text(titles.get(i, _title(tables, i)))} for i in rollouts],
            "table_columns": list(COLUMNS),
        }
    )


def rollout_of_view(tables: Mapping[str, TokenTable], rollout: int) -> str:
    """Return one rollout of every table that has it, as JSON, column by column."""
    found = {}
    for name, table in tables.items():
        chosen = (table.frame["rollout"] == rollout).to_numpy()
        if chosen.any():
            found[name] = _panel(table.select(chosen))
    return as_json(found)


def as_json(value: object) -> str:
    """Return JSON that can stand inside a script element; infinite numbers become the texts "Infinity" and "-Infinity"."""
    return json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _panel(table: TokenTable) -> dict:
    order = np.argsort(table.frame["position"].to_numpy(), kind="stable")
    frame = table.frame.iloc[order]
    tokens = frame["token"].tolist()
    panel = {name: frame[name].tolist() for name in COLUMNS} | {"class": token_classes(tokens)}
    panel["numbers"] = {name: frame[name].tolist() for name in table.extra if frame[name].dtype == np.float64}
    panel["extra"] = {visible_text(name): _shown_values(frame[name]) for name in table.extra}
    panel["source_shown"] = [source and visible_text(source) for source in panel["label_source"]]
    panel["shown"], panel["breaks"] = zip(*map(_shown, tokens), strict=True)
    if table.top is not None:
        top = table.top.rows(order)
        panel["top"] = {name: _short(getattr(top, name)) for name in ARRAYS}
        ids = {i for name in ARRAYS if name.endswith("ids") for i in getattr(top, name).ravel().tolist()}
        panel["texts"] = {str(i): visible_text(top.texts[i], space="·") for i in sorted(ids)}
    return panel


def _shown_values(column: pd.Series) -> list[str]:
    """Return what a method recorded as short texts."""
    return [visible_text(value) if isinstance(value, str) else f"{value:.3g}" for value in column.tolist()]


def _shown(token: str) -> tuple[str, int]:
    """Return a token as it is shown, and how many lines end after it; a newline inside breaks the line where it stands."""
    if token and not token.strip(" "):
        return "·" * len(token), 0
    body = token.rstrip("\n")
    trailing = len(token) - len(body)
    return (visible_text(body, newline=f"{NEWLINE}\n") if body or not trailing else "") + NEWLINE * trailing, trailing


def _short(values: np.ndarray) -> list:
    """Return nested lists; float32 numbers with the digits that they have."""
    if values.dtype.kind != "f":
        return values.tolist()
    return [[float(f"{number:.6g}") for number in row] for row in values.tolist()]


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value).replace("inf", "Infinity")
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_finite(item) for item in value]
    return value


def _title(tables: Mapping[str, TokenTable], rollout: int) -> str:
    frames = [table.frame[table.frame["rollout"] == rollout] for table in tables.values()]
    names = {str(frame["problem_id"].iloc[0]) for frame in frames if len(frame)}
    return f"rollout {rollout} · problem {' / '.join(sorted(names))}"
