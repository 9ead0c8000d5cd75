"""Files of JSON lines that grow: each line has a checksum, and a line that is torn or changed is told from a whole one."""

import errno
import json
import math
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from opsd_lab.basics.files import named_failures

SUM = "crc32"


def append_line(path: Path, row: Mapping[str, Any]) -> None:
    """Add a row and have the system put it on the disk; where that fails, the file is as it was. A torn last line gives way.

    NaN is written as null, infinity as a number beyond all floating-point numbers, as which JSON reads it.

    Raises:
        OSError: when it cannot be written; it names the file and the remedy.
    """
    body = ", ".join(f"{json.dumps(name)}: {_text(value)}" for name, value in row.items())
    line = f'{{{body}, "{SUM}": {zlib.crc32(body.encode())}}}\n'.encode()
    with named_failures(path):
        before = _whole_size(path)
        try:
            with path.open("ab", buffering=0) as file:
                if file.write(line) != len(line):  # the disk took a part
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
                os.fsync(file.fileno())
        except OSError:
            if path.exists():
                os.truncate(path, before)
            raise


def _whole_size(path: Path) -> int:
    """Return the size of a file up to the end of its last whole line, and cut off what is behind it."""
    if not path.exists():
        return 0
    size = path.stat().st_size
    with path.open("rb") as file:
        if size:
            file.seek(size - 1)
        if not size or file.read(1) == b"\n":
            return size
        file.seek(0)
        whole = file.read().rfind(b"\n") + 1
    os.truncate(path, whole)
    return whole


def read_lines(path: Path) -> tuple[list[dict[str, Any]], str]:
    """Return the rows up to the first that is not whole, and what is wrong with that one; "" where all are whole.

    A last line without its end is one that is being written, or was when its process was killed: it is left out, and nothing is
    wrong. What is null is NaN.
    """
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1] if path.exists() else (), 1):
        row = _row(line)
        if row is None:
            return rows, f"line {number} of {path} is damaged"
        rows.append(row)
    return rows, ""


def keep_lines(path: Path, count: int) -> None:
    """Cut a file after its first lines.

    Raises:
        OSError: when it cannot be written.
    """
    if not path.exists():
        return
    size = sum(len(line) + 1 for line in path.read_bytes().split(b"\n")[:-1][:count])
    with named_failures(path):
        os.truncate(path, size)


def _row(line: bytes) -> dict[str, Any] | None:
    body, mark, said = line[1:-1].rpartition(f', "{SUM}": '.encode())
    if not mark or line[:1] != b"{" or line[-1:] != b"}" or str(zlib.crc32(body)).encode() != said:
        return None
    try:
        row = json.loads(b"{" + body + b"}")
    except (ValueError, RecursionError):
        return None
    return {name: _value(value) for name, value in row.items()}


def _value(value: Any) -> Any:
    if isinstance(value, list):
        return [_value(entry) for entry in value]
    return math.nan if value is None else value


def _text(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "null" if math.isnan(value) else "1e999" if value > 0 else "-1e999"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_text, value))}]"
    return json.dumps(value, ensure_ascii=False)
