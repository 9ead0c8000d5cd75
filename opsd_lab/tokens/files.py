"""TokenTables as Parquet files, which any data tool reads."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from opsd_lab.basics.marked_parquet import Mark
from opsd_lab.tokens.table import TokenTable

MARK = Mark(b"opsd_lab.tokens.table", 1, "a TokenTable", "save_table", "score the rollouts again")


def save_table(table: TokenTable, path: str | Path) -> Path:
    """Write a table as Parquet, the most probable tokens included, and return the path; the file appears whole or not at all.

    Every page has a checksum.

    Raises:
        OSError: when the file cannot be written; the previous one stays.
    """
    return MARK.write(pa.Table.from_pandas(table.to_pandas(), preserve_index=False), path)


def load_table(path: str | Path) -> TokenTable:
    """Read a table that `save_table` wrote; all of it is held in memory, and pages are held against their checksums.

    Raises:
        ValueError: when the file is no TokenTable, a damaged one, or one of another schema version; it names the file and the reason.
        OSError: when it is not there, or may not be read.
    """
    return MARK.read(path, _table)


def _table(file: pq.ParquetFile) -> TokenTable:
    return TokenTable.from_pandas(file.read(use_threads=False).to_pandas(ignore_metadata=True))
