"""Problems with verified solutions, and how they are read and written: JSONL files and the built-in word problems."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opsd_lab.files import write_whole


@dataclass(frozen=True)
class Problem:
    """A question, its verified answer, and the privileged information that a teacher may see.

    `solution` is a worked reference solution ("" if there is none), `hints` are ordered from weak to strong,
    `meta` carries whatever a data set adds. All texts are shown to models as they are.

    Raises:
        ValueError: when the id, the question or the answer is blank, or a field has the wrong type.
    """

    id: str
    question: str
    answer: str
    solution: str = ""
    hints: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("id", "question", "answer", "solution"):
            value = getattr(self, name)
            if not isinstance(value, str):
                raise ValueError(f"Problem {self.id!r}: {name} is {type(value).__name__}, not text")
            if name != "solution" and not value.strip():
                raise ValueError(f"Problem {self.id!r}: {name} is blank")
        if isinstance(self.hints, str) or not all(isinstance(hint, str) for hint in self.hints):
            raise ValueError(f"Problem {self.id!r}: hints is not a sequence of texts")
        object.__setattr__(self, "hints", tuple(self.hints))


TEXTS = ("id", "question", "answer", "solution")
FIELDS = (*TEXTS, "hints", "meta")
SHOWN = 20
Fault = tuple[str, str]
"""The field at fault ("" for the whole row) and the reason."""


@dataclass(frozen=True)
class BadRow:
    """One fault in one row: `number` is the line of a file (from 1) or the row of a data set (from 0)."""

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


def load_jsonl(path: str | Path, *, required: Sequence[str] = ("question", "answer")) -> list[Problem]:
    """Read problems from a UTF-8 file that holds one JSON object a line; blank lines are skipped.

    The fields are those of `Problem`. `id` defaults to "<file stem>-<line number>". `question` and `answer` are always
    needed; `required` can name more fields that every row must have. An absent solution is left out, not left blank.

    Raises:
        BadRowsError: when any row is faulty; it lists every fault of the file.
        ValueError: when `required` names an unknown field.
    """
    path = Path(path)
    if unknown := set(required) - set(FIELDS):
        raise ValueError(f"load_jsonl: required names unknown fields {sorted(unknown)}; known: {', '.join(FIELDS)}")
    needed = dict.fromkeys(("question", "answer", *required))
    with path.open("rb") as file:
        rows = [(number, *_decode(line, needed)) for number, line in enumerate(file, 1) if line.strip()]
    return collect_problems(rows, source=str(path), id_prefix=path.stem)


def save_jsonl(problems: Iterable[Problem], path: str | Path) -> None:
    """Write problems so that `load_jsonl` gives back equal ones; the file appears whole or not at all.

    Raises:
        BadRowsError: when a problem would not come back as it is (say, a tuple in `meta`); no file is touched.
    """
    path = Path(path).resolve()
    encoded = [_encode(problem) for problem in problems]
    collect_problems(
        ((number, row, faults) for number, (_, row, faults) in enumerate(encoded, 1)),
        source=str(path),
        id_prefix=path.stem,
        unit="problem",
    )
    write_whole(path, b"".join(line for line, _, _ in encoded))


def builtin(family: str, split: str) -> list[Problem]:
    """Return a built-in split, equal to `data/word_problems/<family>_<split>.jsonl`, without needing the file.

    Raises:
        ValueError: for an unknown family or split.
    """
    from opsd_lab import word_problems  # it builds Problems, so it imports this module

    if split not in word_problems.SIZES:
        raise ValueError(f"no built-in split {split!r}; there are {', '.join(word_problems.SIZES)}")
    return word_problems.splits(family, word_problems.SIZES, seed=0)[split]


def collect_problems(
    rows: Iterable[tuple[int, Mapping[str, Any], Sequence[Fault]]], *, source: str, id_prefix: str, unit: str = "line"
) -> list[Problem]:
    """Turn checked rows (number, fields, faults) into problems with distinct ids, or report all their faults at once.

    Raises:
        BadRowsError: when a row has a fault or repeats an id.
    """
    problems, bad, seen = [], [], {}
    for number, row, faults in rows:
        faults, name = list(faults), row.get("id", f"{id_prefix}-{number}")
        if isinstance(name, str) and seen.setdefault(name, number) != number:
            faults.append(("id", f"{_short(name)} is the id of {unit} {seen[name]} already"))
        bad += [BadRow(source, number, where, reason, unit) for where, reason in faults]
        if not faults:
            problems.append(Problem(**{**row, "id": name}))
    if bad:
        raise BadRowsError(bad)
    return problems


def row_faults(row: Mapping[str, Any], required: Iterable[str] = ("question", "answer")) -> list[Fault]:
    """List what keeps a mapping of field names to JSON values from being a Problem."""
    faults = [
        (_short(name)[1:-1], f"unknown field; move it into meta, or use one of {', '.join(FIELDS)}")
        for name in row
        if name not in FIELDS
    ]
    faults += [(name, "is missing") for name in required if name not in row]
    for name in TEXTS:
        if name in row and (reason := _text_fault(row[name])):
            remedy = "; leave the field out if there is none" if reason == "is blank" and name not in required else ""
            faults.append((name, reason + remedy))
    hints, meta = row.get("hints", []), row.get("meta", {})
    if isinstance(hints, list):
        faults += [("hints", f"hint {i} {reason}") for i, hint in enumerate(hints) if (reason := _text_fault(hint))]
    else:
        faults.append(("hints", f"is {_kind(hints)}, not an array of texts"))
    if not isinstance(meta, dict):
        faults.append(("meta", f"is {_kind(meta)}, not an object"))
    elif _has_surrogate(json.dumps(meta, ensure_ascii=False)):
        faults.append(("meta", "holds half of a surrogate pair, which is no character"))
    return faults


def _text_fault(value: object) -> str | None:
    if not isinstance(value, str):
        quotes = "; put it in quotes" if _kind(value) == "a number" else ""
        return f"is {_kind(value)}, not text{quotes}"
    if not value.strip():
        return "is blank"
    return "holds half of a surrogate pair, which is no character" if _has_surrogate(value) else None


def _decode(line: bytes, required: Iterable[str]) -> tuple[Mapping[str, Any], list[Fault]]:
    try:
        text = line.decode("utf-8-sig")  # editors on Windows begin a file with a byte order mark
        row = json.loads(text, parse_constant=_finite, parse_float=_finite, object_pairs_hook=_distinct)
    except UnicodeDecodeError as error:
        return {}, [("", f"is not UTF-8: byte 0x{error.object[error.start]:02x} at offset {error.start}")]
    except json.JSONDecodeError as error:
        return {}, [("", f"is not valid JSON: {error.msg} at column {error.colno}")]
    except (ValueError, RecursionError) as error:
        return {}, [("", f"cannot be read as JSON: {error}")]
    if not isinstance(row, dict):
        return {}, [("", f"is {_kind(row)}, not an object")]
    return row, row_faults(row, required)


def _encode(problem: Problem) -> tuple[bytes, Mapping[str, Any], list[Fault]]:
    texts = {name: getattr(problem, name) for name in TEXTS}
    row = {**texts, "hints": list(problem.hints), "meta": dict(problem.meta)}
    row = {name: value for name, value in row.items() if value or name in ("id", "question", "answer")}
    try:
        # Half a surrogate pair is all that UTF-8 cannot hold; its backslash form is JSON, so _decode can report it.
        line = json.dumps(row, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace") + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        return b"", {"id": problem.id}, [("meta", f"cannot be written as JSON: {error}")]
    back, faults = _decode(line, ("question", "answer"))
    if not faults and Problem(**back) != problem:
        faults = [("meta", "would change in JSON; use lists, not tuples, and text keys")]
    return line, back, faults


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:30]} is not a finite number")
    return number


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(_short(n) for n in names if names.count(n) > 1)} appears twice in one object")
    return row


def _kind(value: object) -> str:
    kinds = {bool: "a boolean", type(None): "null", int: "a number", float: "a number", str: "text"}
    return kinds.get(type(value)) or {list: "an array", dict: "an object"}.get(type(value), type(value).__name__)


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _has_surrogate(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False
