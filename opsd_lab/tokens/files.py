"""TokenTables as Parquet files, which any data tool reads."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from opsd_lab.basics.arrow_rows import one_line, open_parquet
from opsd_lab.basics.files import write_whole
from opsd_lab.tokens.table import TokenTable

SCHEMA_VERSION = 1
KEY = b"opsd_lab.tokens.table"


def save_table(table: TokenTable, path: str | Path) -> Path:
    """Write a table as Parquet, the most probable tokens included, and return the path; the file appears whole or not at all.

    Every page has a checksum.

    Raises:
        OSError: when the file cannot be written; the previous one stays.
    """
    rows = pa.Table.from_pandas(table.to_pandas(), preserve_index=False)
    metadata = {KEY: json.dumps({"version": SCHEMA_VERSION}).encode()}
    rows = rows.replace_schema_metadata((rows.schema.metadata or {}) | metadata)
    return write_whole(path, lambda partial: pq.write_table(rows, partial, compression="zstd", write_page_checksum=True))


def load_table(path: str | Path) -> TokenTable:
    """Read a table that `save_table` wrote; all of it is held in memory, and pages are held against their checksums.

    Raises:
        ValueError: when the file is no TokenTable, a damaged one, or one of another schema version; it names the file and the reason.
        OSError: when it is not there, or may not be read.
    """
    path = Path(path)
    with path.open("rb") as raw:
        try:
            file = open_parquet(raw)
            about = (file.schema_arrow.metadata or {}).get(KEY)
        except Exception as error:  # whatever a library makes of damaged bytes
            raise ValueError(f"{path}: not a Parquet file, or a damaged one ({one_line(error)})") from None
        if about is None:
            raise ValueError(f"{path}: a Parquet file, but not one of a TokenTable; save_table writes those")
        if (version := _version(about)) != SCHEMA_VERSION:
            raise ValueError(
                f"{path}: written with version {version} of the TokenTable's columns, this is version {SCHEMA_VERSION}; "
                "score the rollouts again, or read the file with the opsd_lab that wrote it"
            )
        try:
            return TokenTable.from_pandas(file.read(use_threads=False).to_pandas(ignore_metadata=True))
        except Exception as error:
            raise ValueError(f"{path}: damaged, or changed since save_table wrote it ({one_line(error)})") from None


def _version(about: bytes) -> object:
    try:
        found = json.loads(about)
    except ValueError:
        return None
    return found.get("version") if isinstance(found, dict) else None
