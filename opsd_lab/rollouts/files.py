"""Rollouts as Parquet files, which any data tool reads: a row for each."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from opsd_lab.basics.arrow_rows import ROWS, plain_rows
from opsd_lab.basics.marked_parquet import Mark
from opsd_lab.rollouts.base import Rollout

MARK = Mark(b"opsd_lab.rollouts", 1, "rollouts", "save_rollouts", "sample them again")


def _list_of(kind: pa.DataType) -> pa.DataType:
    return pa.list_(pa.field("element", kind, nullable=False))


SCHEMA = pa.schema(
    [
        pa.field(name, kind, nullable=False)
        for name, kind in {
            "problem_id": pa.string(),
            "prompt_ids": _list_of(pa.int64()),
            "completion_ids": _list_of(pa.int64()),
            "logprobs": _list_of(pa.float64()),
            "finish_reason": pa.string(),
            "text": pa.string(),
            "tokens": _list_of(pa.string()),
        }.items()
    ]
)
"""The fields of a `Rollout`, none of them ever empty of a value; a list without entries stands for no token texts."""


def save_rollouts(rollouts: Sequence[Rollout], path: str | Path) -> Path:
    """Write rollouts as Parquet, in their order, and return the path; the file appears whole or not at all.

    Every number is kept exactly, NaN among the log-probabilities too. Every page has a checksum. There may be no rollouts. Half of a
    surrogate pair, which no file can hold, is refused where a `Rollout` is made.

    Raises:
        OSError: when the file cannot be written; the previous one stays.
    """
    batches = [
        pa.RecordBatch.from_pylist([vars(rollout) for rollout in rollouts[start : start + ROWS]], SCHEMA)
        for start in range(0, len(rollouts), ROWS)
    ]
    return MARK.write(pa.Table.from_batches(batches, SCHEMA), path)


def load_rollouts(path: str | Path) -> list[Rollout]:
    """Read rollouts that `save_rollouts` wrote; they equal those that were saved, and all of them are held in memory.

    Raises:
        ValueError: when the file holds no rollouts, is damaged, or of another version; it names the file and the reason.
        OSError: when it is not there, or may not be read.
    """
    return MARK.read(path, _rollouts)


def _rollouts(file: pq.ParquetFile) -> list[Rollout]:
    if not file.schema_arrow.equals(SCHEMA):
        raise ValueError(f"the columns are {', '.join(file.schema_arrow.names)}, or of other types than a Rollout's")
    found = []
    for batch in file.iter_batches(batch_size=ROWS, use_threads=False):
        for row in plain_rows(batch):
            found.append(Rollout(**{name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}))
    return found
