"""Problems by a name, as people have them: a file, a hub set, or a built-in split, with a report of what was changed or left out."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from opsd_lab.problems.column_maps import COLUMN_MAPS, ColumnMap
from opsd_lab.problems.files import stem
from opsd_lab.problems.hub import hub_rows
from opsd_lab.problems.problem import FIELDS, NEEDED, BadRow, Fault, Problem, checked_fields
from opsd_lab.problems.reasoning_gym import reasoning_gym_problems
from opsd_lab.problems.reference_answers import split_boxed_answer, split_gsm8k_answer
from opsd_lab.problems.rows import Fields, Reader, Row, csv_rows, json_rows, parquet_rows
from opsd_lab.problems.word_problems import builtin

ENDINGS = {".jsonl": "json", ".ndjson": "json", ".json": "json", ".csv": ",", ".tsv": "\t", ".parquet": "parquet"}
SHOWN = 5
LOOKED_AT = 1000  # of a file's JSON objects, for the names that they have
SPLIT = "answer taken out of a whole solution"


@dataclass
class Report:
    """What became of the rows of a source: how many there were and were kept, what was changed, and why others were left out."""

    source: str
    rows: int = 0
    kept: int = 0
    changed: Counter[str] = field(default_factory=Counter)
    left_out: list[BadRow] = field(default_factory=list)
    ignored: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.source}: {self.kept:,} of {self.rows:,} rows are problems"]
        lines += [f"  {count:,} rows: {what}" for what, count in self.changed.items()]
        reasons = Counter(f"{row.field}: {row.reason}".removeprefix(": ") for row in self.left_out)
        lines += [f"  {count:,} left out: {reason}" for reason, count in reasons.most_common(SHOWN)]
        if len(reasons) > SHOWN:
            lines.append(f"  {sum(reasons.values()) - sum(c for _, c in reasons.most_common(SHOWN)):,} left out for other reasons")
        if self.left_out:
            lines.append(f"  the first that was left out: {self.left_out[0]}")
        if self.ignored:
            lines.append(f"  columns that were not read: {', '.join(map(repr, self.ignored))}")
        return "\n".join(lines)


class Opened(NamedTuple):
    """Problems, and the report of how they came about."""

    problems: list[Problem]
    report: Report


def open_problems(
    name: str, columns: Mapping[str, str] | None = None, *, limit: int | None = None, required: Sequence[str] = NEEDED
) -> Opened:
    """Return the problems of a source, those rows left out that are none, and a report of it.

    Args:
        name: "builtin:one_step/train" and its like; "gym:chain_sum/0/500", the first 500 that reasoning-gym draws of a task with
            seed 0; "hub:openai/gsm8k/main/train", a set with its split, and its config where it has several, or "hub:gsm8k/test",
            a name of `COLUMN_MAPS` with a split or without; else a file: JSONL, CSV, TSV or Parquet, maybe with .gz behind.
        columns: the column of each field of `Problem`, where they are called otherwise; whole solutions in the place of answers are
            taken apart.
        limit: how many rows are read at most; None for all.
        required: fields that every problem must have, such as "solution".

    Raises:
        FileNotFoundError: for a file that is not there.
        ValueError: for a name of another kind, columns that do not exist, or a source without a single problem; it says which
            columns there are, or why rows were left out.
    """
    kind, _, rest = name.partition(":")
    report = Report(name)
    if kind in ("builtin", "gym"):
        _refuse_columns(name, columns)
        family, _, split = rest.partition("/")
        made = builtin(family, split) if kind == "builtin" else _from_gym(name, family, split)
        return _opened(name, ((i, vars(problem), []) for i, problem in enumerate(made)), limit, "row", report)
    if kind == "hub":
        return _opened(rest, _from_hub(rest, columns, required, report), limit, "row", report)
    path = Path(name)
    ending = Path(path.name.removesuffix(".gz")).suffix.lower()
    if ending not in ENDINGS:
        kinds = ", ".join(ENDINGS)
        raise ValueError(
            f"{name!r} is no source of problems: a file ends in one of {kinds}, other names begin with builtin:, gym: or hub:"
        )
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {name}")

    def reader(names: Sequence[str]) -> tuple[list[str], Fields]:
        return _reader(names, columns, required, name, report)

    if ENDINGS[ending] == "json":
        rows: Iterable[Row] = json_rows(path, _by_names(path, reader))
    else:
        rows = parquet_rows(path, reader) if ending == ".parquet" else csv_rows(path, reader, ENDINGS[ending])
    return _opened(stem(path), rows, limit, "row" if ending == ".parquet" else "line", report)


def _from_gym(name: str, task: str, numbers: str) -> list[Problem]:
    seed, _, count = numbers.partition("/")
    if not (seed.isdecimal() and count.isdecimal()):
        raise ValueError(f"{name!r} names no problems of reasoning-gym; write task, seed and number, such as gym:chain_sum/0/500")
    return reasoning_gym_problems(task, int(count), int(seed))


def _opened(prefix: str, rows: Iterable[Row], limit: int | None, unit: str, report: Report) -> Opened:
    problems: list[Problem] = []
    seen: dict[str, int] = {}
    for number, fields, faults in rows:
        if limit is not None and report.rows >= limit:
            break
        report.rows += 1
        name, faults = fields.get("id", f"{prefix}-{number}"), list(faults)
        if isinstance(name, str) and seen.setdefault(name, number) != number:
            faults.append(("id", f"{unit} {seen[name]} has the same one"))
        report.left_out += [BadRow(report.source, number, place, reason, unit) for place, reason in faults[:1]]
        if not faults:
            problems.append(Problem(**{**fields, "id": name}))
    report.kept = len(problems)
    if not problems:
        raise ValueError(f"{report}\nthere is no problem left; mend the rows, or say which column holds what")
    return Opened(problems, report)


def _reader(
    names: Sequence[str], columns: Mapping[str, str] | None, required: Sequence[str], who: str, report: Report
) -> tuple[list[str], Fields]:
    if unknown := sorted(set(columns or ()) - {"question", "answer", "solution", "id"}):
        raise ValueError(f"columns: {', '.join(unknown)} are no fields of a problem; those are question, answer, solution and id")
    if not columns and set(NEEDED) <= set(names) <= set(FIELDS):
        return list(names), _tolerant(lambda row: checked_fields(row, required), required, report)
    known = {name: name for name in ("question", "answer", "solution", "id") if name in names} | dict(columns or {})
    if missing := [name for name in NEEDED if name not in known]:
        there = f"the columns {', '.join(names)}" if names else "no columns"
        raise ValueError(
            f"{who} has {there}; say which is the {' and which the '.join(missing)}, such as "
            f"data.columns.{missing[0]}={names[0] if names else '...'}"
        )
    column_map = ColumnMap(**known)
    wanted = column_map.roots(names, who)
    report.ignored = tuple(name for name in names if name not in wanted)
    return wanted, _tolerant(lambda row: column_map.fields(row, required), required, report)


def _tolerant(fields: Fields, required: Sequence[str], report: Report) -> Fields:
    """Return what makes fields of a row and takes an answer out of a whole solution, where that is what stands in its place."""

    def read(row: Mapping[str, Any]) -> tuple[dict[str, Any], list[Fault]]:
        found, faults = fields(row)
        answer = found.get("answer")
        if not isinstance(answer, str) or not any("whole solution" in reason for _, reason in faults):
            return found, faults
        try:
            solution, short = split_gsm8k_answer(answer) if "####" in answer else split_boxed_answer(answer)
        except ValueError:
            return found, faults
        again, faults = checked_fields({**found, "answer": short, "solution": found.get("solution") or solution}, required)
        report.changed[SPLIT] += not faults
        return again, faults

    return read


def _by_names(path: Path, reader: Reader) -> Fields:
    """Return what makes fields of a file's objects, whose names may differ from line to line."""
    names: dict[str, None] = {}

    def see(row: Mapping[str, Any]) -> tuple[dict[str, Any], list[Fault]]:
        names.update(dict.fromkeys(row))
        return {}, []

    for _ in islice(json_rows(path, see), LOOKED_AT):
        pass
    fields = reader(list(names))[1]

    def read(row: Mapping[str, Any]) -> tuple[dict[str, Any], list[Fault]]:
        found, faults = fields(row)
        return found, [fault for fault in faults if fault[0] != "id" or "id" in row]  # a row without one is numbered

    return read


def _from_hub(name: str, columns: Mapping[str, str] | None, required: Sequence[str], report: Report) -> Iterator[Row]:
    parts = name.split("/")
    if parts[0] in COLUMN_MAPS and len(parts) <= 2:
        _refuse_columns(f"hub:{name}", columns)
        known = COLUMN_MAPS[parts[0]]
        split = parts[1] if len(parts) == 2 else known.split
        return hub_rows(known.hub_id, known.config, split, lambda names: _mapped(known, names, required, report))
    if not 2 <= len(parts) <= 4:
        kinds = "hub:owner/name/split, hub:owner/name/config/split, or hub: with one of " + ", ".join(COLUMN_MAPS)
        raise ValueError(f"'hub:{name}' names no data set; write {kinds}")
    repository, config, split = "/".join(parts[:2]), parts[2] if len(parts) == 4 else None, parts[-1] if len(parts) > 2 else "train"
    mapped = next((one for one in COLUMN_MAPS.values() if one.hub_id == repository), None)
    if mapped is not None and config in (None, mapped.config):
        config = mapped.config
        if not columns:
            return hub_rows(repository, config, split, lambda names: _mapped(mapped, names, required, report))
    return hub_rows(repository, config, split, lambda names: _reader(names, columns, required, name, report))


def _refuse_columns(name: str, columns: Mapping[str, str] | None) -> None:
    if columns:
        raise ValueError(f"{name} has columns that are known; leave data.columns out")


def _mapped(column_map: ColumnMap, names: Sequence[str], required: Sequence[str], report: Report) -> tuple[list[str], Fields]:
    wanted = column_map.roots(names, "hub")
    return wanted, _tolerant(lambda row: column_map.fields(row, required), required, report)
