"""A Parquet table that grows by parts while something long is measured, and that an interrupted measurement goes on with."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from opsd_lab.basics.files import write_whole

SETTINGS = "settings"


class GrowingTable:
    """The rows of some parts, each known by a digest of what it depends on, which stands in the column `settings`.

    Args:
        path: the Parquet file; it may not be there yet.
        parts: the digests of all parts that shall be measured, in the order of the finished table.

    Raises:
        ValueError: when the file holds a part that is none of these.
    """

    def __init__(self, path: Path, parts: Sequence[str]) -> None:
        self._path, self._parts = path, list(parts)
        held = pd.read_parquet(path) if path.exists() else None
        if held is not None and not (SETTINGS in held and set(held[SETTINGS]) <= set(self._parts)):
            raise ValueError(
                f"{path} holds another measurement, or that of another model or other versions; name another file, or delete it"
            )
        self._kept = {} if held is None else dict(iter(held.groupby(SETTINGS)))

    @property
    def missing(self) -> list[str]:
        """The parts that are still to be measured, in their order."""
        return [part for part in self._parts if part not in self._kept]

    @property
    def rows(self) -> pd.DataFrame:
        """The rows of the parts that are there, in the order of the parts.

        Raises:
            ValueError: when there are none.
        """
        if not self._kept:
            raise ValueError(f"{self._path}: nothing has been measured yet")
        return pd.concat([self._kept[part] for part in self._parts if part in self._kept], ignore_index=True)

    def add(self, rows: pd.DataFrame) -> None:
        """Add the rows of a part or several, whose column `settings` says which, and write the file, whole or not at all.

        Raises:
            OSError: when the file cannot be written; the previous one stays.
        """
        self._kept |= dict(iter(rows.groupby(SETTINGS)))
        write_whole(self._path, partial(self.rows.to_parquet, index=False, compression="zstd"))
