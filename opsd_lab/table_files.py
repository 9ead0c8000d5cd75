"""TokenTables as Parquet files, which any data tool reads."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from opsd_lab.files import write_whole
from opsd_lab.token_table import TokenTable

SCHEMA_VERSION = 1
KEY = b"opsd_lab.token_table"


def save_table(table: TokenTable, path: str | Path) -> Path:
    """Write a table as Parquet, the most probable tokens included, and return the path; the file appears whole or not at all.

    Raises:
        OSError: when the file cannot be written.
    """
    rows = pa.Table.from_pandas(table.to_pandas(), preserve_index=False)
    metadata = {KEY: json.dumps({"version": SCHEMA_VERSION}).encode()}
    rows = rows.replace_schema_metadata((rows.schema.metadata or {}) | metadata)
    return write_whole(path, lambda partial: pq.write_table(rows, partial, compression="zstd"))


def load_table(path: str | Path) -> TokenTable:
    """Read a table that `save_table` wrote.

    Raises:
        ValueError: when the file is no TokenTable, or one of another schema version.
        FileNotFoundError: when it is not there.
    """
    try:
        rows = pq.read_table(path, memory_map=False)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: not a Parquet file ({error})") from None
    about = (rows.schema.metadata or {}).get(KEY)
    if about is None:
        raise ValueError(f"{path}: a Parquet file, but not one of a TokenTable; save_table writes those")
    version = json.loads(about).get("version")
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"{path}: written with version {version} of the TokenTable's columns, this is version {SCHEMA_VERSION}; "
            "score the rollouts again, or read the file with the opsd_lab that wrote it"
        )
    return TokenTable.from_pandas(rows.to_pandas())
