"""Rows of Arrow tables and Parquet files as plain Python values; damage is a reason, not a crash."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from opsd_lab.basics.limited_files import LARGEST, MIB, Unreadable, is_gzip, read_bytes

ROWS = 256  # read at once
PARQUET_FAULTS = (pa.ArrowException, OSError, ValueError, TypeError, KeyError, IndexError, OverflowError, RuntimeError, MemoryError)
"""What pyarrow raises, and lets its parts raise, on files whose bytes were changed."""


def arrow_rows(path: Path, chosen: Callable[[Sequence[str]], list[str]]) -> Iterator[tuple[int, dict[str, Any] | None, str]]:
    """Yield (number, row, "") for each row of a Parquet file, from 0, and (number, None, reason) where no more can be read.

    `chosen` gets the names of the columns and returns those to read.

    Raises:
        OSError: when the file is not there, or may not be read.
    """
    number = 0
    with path.open("rb") as raw:
        try:
            source = pa.BufferReader(read_bytes(path)) if is_gzip(path) else raw
            file = open_parquet(source)
            names = file.schema_arrow.names
        except Unreadable as error:
            yield 0, None, str(error)
            return
        except PARQUET_FAULTS as error:
            yield 0, None, f"is no Parquet file, or a damaged one ({one_line(error)})"
            return
        columns = chosen(names)
        total = 0
        try:
            for batch in file.iter_batches(batch_size=ROWS, columns=columns):
                total += batch.nbytes
                if total > LARGEST:
                    yield (
                        number,
                        None,
                        f"unfolds to more than {LARGEST // MIB:,} MiB, and no more was read; split it, or pass it to from_dataset",
                    )
                    return
                for row in plain_rows(batch):
                    yield number, row, ""
                    number += 1
        except PARQUET_FAULTS as error:
            yield number, None, f"the rows from here on are damaged ({one_line(error)})"


def open_parquet(source: object) -> pq.ParquetFile:
    """Open a Parquet file so that its pages are held against their checksums, where it has any."""
    return pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=False)


def plain_rows(batch: pa.RecordBatch | pa.Table) -> Iterable[dict[str, Any]]:
    """Yield rows as mappings of Python values; numbers of 16 and 32 bits have the few digits that they were written with."""
    columns = [_plain(column, kind.type) for column, kind in zip(batch.columns, batch.schema, strict=True)]
    return (dict(zip(batch.schema.names, values, strict=True)) for values in zip(*columns, strict=True))


def _plain(column: pa.Array, kind: pa.DataType) -> list:
    values = column.to_pylist()
    return [_shortened(value, kind) for value in values] if "float" in str(kind).replace("double", "") else values


def _shortened(value: Any, kind: pa.DataType) -> Any:
    if value is None:
        return None
    if pa.types.is_float32(kind) or pa.types.is_float16(kind):
        return float(str((np.float32 if pa.types.is_float32(kind) else np.float16)(value)))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return [_shortened(each, kind.value_type) for each in value]
    if pa.types.is_struct(kind):
        return {part.name: _shortened(value[part.name], part.type) for part in kind}
    return value


def one_line(error: BaseException) -> str:
    """Return an error's message on one line of at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__
