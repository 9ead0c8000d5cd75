"""Parquet files of this package's own: each is marked as what it holds, its pages have checksums, and a damaged one is named."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from opsd_lab.basics.arrow_rows import one_line, open_parquet
from opsd_lab.basics.files import write_whole

Held = TypeVar("Held")


@dataclass(frozen=True)
class Mark:
    """What tells one kind of file from others: `key` in the file's metadata, with the `version` of the columns and their names.

    The others are words for messages: `holds` is what the file holds, `writer` the function that writes it, and `remedy` what to do
    about a file of another version.
    """

    key: bytes
    version: int
    holds: str
    writer: str
    remedy: str

    def write(self, rows: pa.Table, path: str | Path) -> Path:
        """Write rows with the mark and return the path; the file appears whole or not at all.

        Raises:
            OSError: when the file cannot be written; the previous one stays.
        """
        about = {"version": self.version, "columns": rows.schema.names}
        metadata = (rows.schema.metadata or {}) | {self.key: json.dumps(about).encode()}
        marked = rows.replace_schema_metadata(metadata)
        return write_whole(path, lambda partial: pq.write_table(marked, partial, compression="zstd", write_page_checksum=True))

    def read(self, path: str | Path, make: Callable[[pq.ParquetFile], Held]) -> Held:
        """Return what `make` makes of a marked file; pages are held against their checksums.

        Raises:
            ValueError: when the file has no such mark, another version, or is damaged; it names the file and the reason.
            OSError: when it is not there, or may not be read.
        """
        path = Path(path)
        with path.open("rb") as raw:
            try:
                file = open_parquet(raw)
                about = (file.schema_arrow.metadata or {}).get(self.key)
            except Exception as error:  # whatever a library makes of damaged bytes
                raise ValueError(f"{path}: not a Parquet file, or a damaged one ({one_line(error)})") from None
            if about is None:
                raise ValueError(f"{path}: a Parquet file, but not one of {self.holds}; {self.writer} writes those")
            said = _said(about)
            if (version := said.get("version")) != self.version:
                raise ValueError(
                    f"{path}: written with version {version} of the columns for {self.holds}, this is version {self.version}; "
                    f"{self.remedy}, or read the file with the opsd_lab that wrote it"
                )
            try:
                if (names := file.schema_arrow.names) != said.get("columns"):
                    differ = sorted({*names} ^ {*map(str, said.get("columns") or [])})
                    raise ValueError(f"its columns are not those that were written: {differ}")
                return make(file)
            except Exception as error:
                raise ValueError(f"{path}: damaged, or changed since {self.writer} wrote it ({one_line(error)})") from None


def _said(about: bytes) -> dict:
    try:
        found = json.loads(about)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
