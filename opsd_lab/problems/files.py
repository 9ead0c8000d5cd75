"""Problems in files: JSONL, CSV and Parquet, each also gzip-compressed, whatever the file is called."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from opsd_lab.basics.files import write_whole
from opsd_lab.problems.column_maps import ColumnMap
from opsd_lab.problems.problem import FIELDS, NEEDED, TEXTS, Fault, Problem, checked_fields, collect_problems
from opsd_lab.problems.rows import Fields, Reader, csv_rows, decoded, json_rows, parquet_rows


def load_jsonl(path: str | Path, columns: ColumnMap | None = None, *, required: Sequence[str] = NEEDED) -> list[Problem]:
    """Read problems from a UTF-8 file that holds one JSON object a line; blank lines are skipped.

    The fields are those of `Problem`, unless `columns` says where each is found. Numbers as answers become text, and a list of one
    answer that answer. A solution that is empty or null is none. `id` defaults to "<file stem>-<line number>". `question` and
    `answer` are always needed; `required` can name more fields that every row must have. The file may be gzip-compressed: it may
    then unfold to 4 GiB, and beyond 64 MiB to 200 times its size. A line holds at most 16 MiB.

    Raises:
        BadRowsError: when a row is faulty, an answer is a whole solution, or the file is damaged; it lists every fault with its line.
        ValueError: when `required` names an unknown field.
        OSError: when the file is not there, or may not be read.
    """
    path = Path(path)
    fields = _fields(columns, required, "load_jsonl")
    return collect_problems(json_rows(path, fields), source=str(path), id_prefix=stem(path))


def load_csv(
    path: str | Path, columns: ColumnMap | None = None, *, delimiter: str = ",", required: Sequence[str] = NEEDED
) -> list[Problem]:
    """Read problems from a UTF-8 file of comma-separated values whose first line names the columns.

    Every cell is text as it is written: 073, None and NA stay so. The columns are called question, answer, and maybe id and solution,
    unless `columns` says otherwise. `id` defaults to "<file stem>-<line number>", where the line is the first of the row. `path` is
    the file, and `delimiter` what stands between two cells. `required`, limits and compression are as in `load_jsonl`.

    Raises:
        BadRowsError: when a row is faulty, an answer is a whole solution, or the file is damaged; it lists every fault with its line.
        ValueError: when a column does not exist; the message names those that do.
        OSError: when the file is not there, or may not be read.
    """
    path = Path(path)
    rows = csv_rows(path, _reader(path, columns, required, "load_csv"), delimiter)
    return collect_problems(rows, source=str(path), id_prefix=stem(path))


def load_parquet(path: str | Path, columns: ColumnMap | None = None, *, required: Sequence[str] = NEEDED) -> list[Problem]:
    """Read problems from a Parquet file; the columns are those of `Problem`, unless `columns` says otherwise.

    Numbers, lists and empty solutions are treated as in `load_jsonl`. `id` defaults to "<file stem>-<row number>", from 0. The wanted
    columns may unfold to 4 GiB, and the file may be gzip-compressed besides.

    Raises:
        BadRowsError: when a row is faulty, an answer is a whole solution, or the file is damaged; it lists every fault with its row.
        ValueError: when a column does not exist; the message names those that do.
        OSError: when the file is not there, or may not be read.
    """
    path = Path(path)
    rows = parquet_rows(path, _reader(path, columns, required, "load_parquet"))
    return collect_problems(rows, source=str(path), id_prefix=stem(path), unit="row")


def save_jsonl(problems: Iterable[Problem], path: str | Path) -> None:
    """Write problems so that `load_jsonl` gives back equal ones; the file appears whole or not at all.

    Raises:
        BadRowsError: when a problem would not come back as it is (say, a tuple in `meta`); no file is touched.
        OSError: when the file cannot be written; the previous one stays.
    """
    path = Path(path).resolve()
    encoded = [_encode(problem) for problem in problems]
    collect_problems(
        ((number, row, faults) for number, (_, row, faults) in enumerate(encoded, 1)),
        source=str(path),
        id_prefix=stem(path),
        unit="problem",
    )
    write_whole(path, b"".join(line for line, _, _ in encoded))


def _fields(columns: ColumnMap | None, required: Sequence[str], who: str) -> Fields:
    if unknown := set(required) - set(FIELDS):
        raise ValueError(f"{who}: required names unknown fields {sorted(unknown)}; known: {', '.join(FIELDS)}")
    needed = tuple(dict.fromkeys((*NEEDED, *required)))
    return lambda row: columns.fields(row, needed) if columns else checked_fields(row, needed)


def _reader(path: Path, columns: ColumnMap | None, required: Sequence[str], who: str) -> Reader:
    fields = _fields(columns, required, who)
    return lambda names: (columns.roots(names, str(path)) if columns else _known(names, str(path)), fields)


def _known(names: Sequence[str], who: str) -> list[str]:
    missing, unknown = [name for name in NEEDED if name not in names], [name for name in names if name not in FIELDS]
    if missing or unknown:
        raise ValueError(
            f"{who}: the columns are {list(names)}; say which holds what, "
            'for example columns=ColumnMap(question="...", answer="...", meta=("...",))'
        )
    return list(names)


def stem(path: Path) -> str:
    """Return a file's name without its endings."""
    return Path(path.name.removesuffix(".gz")).stem


def _encode(problem: Problem) -> tuple[bytes, Mapping[str, Any], list[Fault]]:
    texts = {name: getattr(problem, name) for name in TEXTS}
    row = {**texts, "hints": list(problem.hints), "meta": dict(problem.meta)}
    row = {name: value for name, value in row.items() if value or name in ("id", "question", "answer")}
    try:
        # Half a surrogate pair is all that UTF-8 cannot hold; its backslash form is JSON, so `decoded` can report it.
        line = json.dumps(row, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace") + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        return b"", {"id": problem.id}, [("meta", f"cannot be written as JSON: {error}")]
    back, faults = decoded(line, checked_fields)
    if not faults and (found := Problem(**back)) != problem:
        field = next(name for name in FIELDS if getattr(found, name) != getattr(problem, name))
        remedy = "use lists, not tuples, and text keys" if field == "meta" else "leave it empty if there is none"
        faults = [(field, f"would change in the file; {remedy}")]
    return line, back, faults
