"""Rows of JSONL, CSV and Parquet files with their numbers and faults, whatever becomes of them."""

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from opsd_lab.basics.arrow_rows import arrow_rows
from opsd_lab.basics.limited_files import LONGEST_LINE, Unreadable, read_lines
from opsd_lab.problems.problem import Fault, short
from opsd_lab.problems.reference_answers import kind_of

Row = tuple[int, Mapping[str, Any], list[Fault]]
"""A row's number, the fields of a Problem that it holds, and its faults."""
Fields = Callable[[Mapping[str, Any]], tuple[dict[str, Any], list[Fault]]]
Reader = Callable[[Sequence[str]], tuple[list[str], Fields]]
"""Gets the names of a table's columns; returns those to read, and what makes fields of a row."""


def json_rows(path: Path, fields: Fields) -> Iterator[Row]:
    """Yield the rows of a file with one JSON object a line, from line 1; blank lines are skipped.

    Raises:
        OSError: when the file is not there, or may not be read.
    """
    number = 0
    try:
        for number, line in enumerate(read_lines(path), 1):
            if line.strip():
                yield number, *decoded(line, fields)
    except Unreadable as error:
        yield number + 1, {}, [("", f"{error}; nothing behind it was read")]


def csv_rows(path: Path, reader_of: Reader, delimiter: str = ",") -> Iterator[Row]:
    """Yield the rows of a file of separated values, each with the line on which it begins; the first line names the columns.

    A row that cannot be read is a fault, and the next one is read. Where a quote takes more lines into such a row, the fault says so.

    Raises:
        ValueError: when a wanted column does not exist.
        OSError: when the file is not there, or may not be read.
    """
    undecoded: dict[int, str] = {}
    reader = csv.reader(_decoded_lines(path, undecoded), delimiter=delimiter, strict=True)
    limit = csv.field_size_limit(LONGEST_LINE)
    start = 1
    try:
        names = [name.strip() for name in next(filter(None, reader), [])]
        if undecoded:
            yield 1, {}, [("", next(iter(undecoded.values())))]
            return
        if twice := sorted({name for name in names if names.count(name) > 1}):
            yield 1, {}, [("", f"names the columns {twice} twice")]
            return
        _, fields = reader_of(names)
        start = reader.line_num + 1
        for cells in _cells(reader):
            faults = [undecoded.pop(line) for line in range(start, reader.line_num + 1) if line in undecoded]
            if isinstance(cells, csv.Error):
                taken = f", with all up to line {reader.line_num}" if reader.line_num > start else ""
                yield start, {}, [("", f"is not valid CSV: {cells}{taken}")]
            elif faults:
                yield start, {}, [("", faults[0])]
            elif cells and len(cells) != len(names):
                yield start, {}, [("", f"has {len(cells)} cells, the first line names {len(names)} columns")]
            elif cells:
                yield start, *fields(dict(zip(names, cells, strict=True)))
            start = reader.line_num + 1
    except csv.Error as error:  # in the first line
        yield start, {}, [("", f"is not valid CSV: {error}")]
    except Unreadable as error:
        yield reader.line_num + 1, {}, [("", f"{error}; nothing behind it was read")]
    finally:
        csv.field_size_limit(limit)


def _cells(reader: Iterator[list[str]]) -> Iterator[list[str] | csv.Error]:
    """Yield each row's cells, or what is wrong with it."""
    while True:
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield error


def _decoded_lines(path: Path, undecoded: dict[int, str]) -> Iterator[str]:
    """Yield a file's lines; of those that are not UTF-8, what is wrong goes into `undecoded`, by the line's number."""
    for number, line in enumerate(read_lines(path), 1):
        try:
            yield _text(line)
        except Unreadable as error:
            undecoded[number] = str(error)
            yield line.decode("utf-8-sig", "replace")


def parquet_rows(path: Path, reader_of: Reader) -> Iterator[Row]:
    """Yield the rows of a Parquet file, from 0.

    Raises:
        ValueError: when a wanted column does not exist.
        OSError: when the file is not there, or may not be read.
    """
    fields: Fields = dict  # until the columns are known

    def chosen(names: Sequence[str]) -> list[str]:
        nonlocal fields
        wanted, fields = reader_of(names)
        return wanted

    for number, row, fault in arrow_rows(path, chosen):
        yield number, *(fields(row) if row is not None else ({}, [("", fault)]))


def _text(line: bytes) -> str:
    try:
        return line.decode("utf-8-sig")  # editors on Windows begin a file with a byte order mark
    except UnicodeDecodeError as error:
        raise Unreadable(f"is not UTF-8: byte 0x{error.object[error.start]:02x} at offset {error.start}") from None


def decoded(line: bytes, fields: Fields) -> tuple[Mapping[str, Any], list[Fault]]:
    """Return the fields and faults of one line of JSON."""
    try:
        row = json.loads(_text(line), parse_constant=_finite, parse_float=_finite, object_pairs_hook=_distinct)
    except Unreadable as error:
        return {}, [("", str(error))]
    except json.JSONDecodeError as error:
        return {}, [("", f"is not valid JSON: {error.msg} at column {error.colno}")]
    except (ValueError, RecursionError) as error:
        return {}, [("", f"cannot be read as JSON: {error}")]
    if not isinstance(row, dict):
        return {}, [("", f"is {kind_of(row)}, not an object")]
    return fields(row)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:30]} is not a finite number")
    return number


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(short(n) for n in names if names.count(n) > 1)} appears twice in one object")
    return row
