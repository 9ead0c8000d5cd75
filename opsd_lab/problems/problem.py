"""Problems with verified solutions: what one is, what keeps a row of a file or data set from being one, and the built-in sets."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from opsd_lab.problems.reference_answers import answer_text, kind_of, number_text, solution_sign

HALF = "holds half of a surrogate pair, which is no character"


@dataclass(frozen=True)
class Problem:
    """A question, its verified answer, and the privileged information that a teacher may see.

    `solution` is a worked reference solution ("" if there is none), `hints` are ordered from weak to strong,
    `meta` carries whatever a data set adds. All texts are shown to models as they are.

    Raises:
        ValueError: when the id, the question or the answer is blank, or a field has the wrong type or is no text that can be written.
    """

    id: str
    question: str
    answer: str
    solution: str = ""
    hints: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in TEXTS:
            value = getattr(self, name)
            if not isinstance(value, str):
                raise ValueError(f"Problem {self.id!r}: {name} is {type(value).__name__}, not text")
            if name != "solution" and not value.strip():
                raise ValueError(f"Problem {self.id!r}: {name} is blank")
            if has_surrogate(value):
                raise ValueError(f"Problem {self.id!r}: {name} {HALF}")
        if isinstance(self.hints, str) or not all(isinstance(hint, str) for hint in self.hints):
            raise ValueError(f"Problem {self.id!r}: hints is not a sequence of texts")
        if bad := [number for number, hint in enumerate(self.hints) if has_surrogate(hint)]:
            raise ValueError(f"Problem {self.id!r}: hint {bad[0]} {HALF}")
        object.__setattr__(self, "hints", tuple(self.hints))


TEXTS = ("id", "question", "answer", "solution")
FIELDS = (*TEXTS, "hints", "meta")
NEEDED = ("question", "answer")
SHOWN = 20
Fault = tuple[str, str]
"""The field at fault ("" for the whole row) and the reason."""


@dataclass(frozen=True)
class BadRow:
    """One fault in one row: `number` is the line of a file (from 1) or the row of a table (from 0)."""

    source: str
    number: int
    field: str
    reason: str
    unit: str = "line"

    def __str__(self) -> str:
        place = f"{self.source}, {self.unit} {self.number}"
        return f"{place}: {self.field}: {self.reason}" if self.field else f"{place}: {self.reason}"


class BadRowsError(ValueError):
    """Every fault of a source in one report; `rows` holds all of them, the message the first 20 and a count."""

    def __init__(self, rows: Sequence[BadRow]) -> None:
        self.rows = tuple(rows)
        count = len({row.number for row in self.rows})
        lines = [f"{len(self.rows)} fault(s) in {count} {self.rows[0].unit}(s); nothing was kept:"]
        lines += [str(row) for row in self.rows[:SHOWN]]
        if len(self.rows) > SHOWN:
            lines.append(f"... and {len(self.rows) - SHOWN} more, all of them in this error's .rows")
        super().__init__("\n".join(lines))


def collect_problems(
    rows: Iterable[tuple[int, Mapping[str, Any], Sequence[Fault]]], *, source: str, id_prefix: str, unit: str = "line"
) -> list[Problem]:
    """Turn checked rows (number, fields, faults) into problems with distinct ids, or report all their faults at once.

    `source` names the file or data set of the rows in the report, and `unit` says what their numbers count. A row without an id gets
    `id_prefix` and its number.

    Raises:
        BadRowsError: when a row has a fault or repeats an id.
    """
    problems, bad, seen = [], [], {}
    for number, row, faults in rows:
        faults, name = list(faults), row.get("id", f"{id_prefix}-{number}")
        if isinstance(name, str) and seen.setdefault(name, number) != number:
            faults.append(("id", f"{short(name)} is the id of {unit} {seen[name]} already"))
        bad += [BadRow(source, number, where, reason, unit) for where, reason in faults]
        if not faults:
            problems.append(Problem(**{**row, "id": name}))
    if bad:
        raise BadRowsError(bad)
    return problems


def checked_fields(row: Mapping[str, Any], required: Iterable[str] = NEEDED) -> tuple[dict[str, Any], list[Fault]]:
    """Return the fields of a Problem that a mapping of field names to JSON values holds, and what keeps it from being one.

    Numbers become text where text stands for them: in the answer and the id. A list of one answer is that answer. An empty
    solution, and a solution, hints or meta that are null, are left out.
    """
    row = {name: value for name, value in row.items() if not _is_left_out(name, value)}
    faults = [
        (short(name)[1:-1], f"unknown field; move it into meta, use one of {', '.join(FIELDS)}, or say with a ColumnMap what it is")
        for name in row
        if name not in FIELDS
    ]
    faults += [(name, "is missing") for name in required if name not in row]
    if "id" in row and type(row["id"]) in (int, float):
        row["id"] = number_text(row["id"])
    if "answer" in row:
        row["answer"], reason = answer_text(row["answer"])
        if reason or (isinstance(row["answer"], str) and (reason := solution_sign(row["answer"]))):
            faults.append(("answer", reason))
    known = {name for name, _ in faults}
    for name in TEXTS:
        if name in row and name not in known and (reason := _text_fault(row[name])):
            remedy = "; leave the field out if there is none" if (name, reason) == ("id", "is blank") else ""
            faults.append((name, reason + remedy))
    return row, faults + _list_faults(row.get("hints", [])) + _meta_faults(row.get("meta", {}))


def _is_left_out(name: str, value: object) -> bool:
    if value is None:
        return name in ("solution", "hints", "meta")
    return name == "solution" and isinstance(value, str) and not value.strip()


def _list_faults(hints: object) -> list[Fault]:
    if not isinstance(hints, list):
        return [("hints", f"is {kind_of(hints)}, not an array of texts")]
    return [("hints", f"hint {i} {reason}") for i, hint in enumerate(hints) if (reason := _text_fault(hint))]


def _meta_faults(meta: object) -> list[Fault]:
    if not isinstance(meta, dict):
        return [("meta", f"is {kind_of(meta)}, not an object")]
    return [("meta", HALF)] if meta and has_surrogate(json.dumps(meta, ensure_ascii=False, default=str)) else []


def _text_fault(value: object) -> str | None:
    if not isinstance(value, str):
        return f"is {kind_of(value)}, not text"
    if not value.strip():
        return "is blank"
    return HALF if has_surrogate(value) else None


def short(text: str) -> str:
    """Return a text as a literal of at most about 60 characters."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def has_surrogate(text: str) -> bool:
    """Return whether a text holds half of a surrogate pair, which no file and no tokenizer can hold."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def check_unique(problems: Sequence[Problem]) -> None:
    """Make sure that no two problems have the same id, by which rollouts, prompts and tables find their problem.

    Raises:
        ValueError: when some do; it names the ids.
    """
    counts = Counter(problem.id for problem in problems)
    if twice := [name for name, count in counts.items() if count > 1]:
        more = f" and {len(twice) - 5} more" if len(twice) > 5 else ""
        raise ValueError(f"several problems have the same id: {', '.join(map(repr, twice[:5]))}{more}; give each one of its own")
