"""Files that people bring, read within limits: what a compressed file unfolds to, how long a line is, and what is no text at all."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

MIB = 2**20
LARGEST = 4096 * MIB  # bytes that a compressed file may unfold to
EXPECTED = 64 * MIB  # bytes up to here, and up to ALLOWED_RATIO times the compressed size, are no reason for doubt
ALLOWED_RATIO = 200
LONGEST_LINE = 16 * MIB  # bytes
GZIP = b"\x1f\x8b"
OTHERS = {
    b"PAR1": "is a Parquet file; load_parquet reads it",
    b"PK\x03\x04": "is a zip archive; unpack it first",
    b"\x28\xb5\x2f\xfd": "is compressed with zstd; unpack it first, or use gzip",
    b"BZh": "is compressed with bzip2; unpack it first, or use gzip",
    b"\xfd7zXZ": "is compressed with xz; unpack it first, or use gzip",
    b"\xff\xfe": "is UTF-16, not UTF-8; save it again as UTF-8",
    b"\xfe\xff": "is UTF-16, not UTF-8; save it again as UTF-8",
    b"\x00\x00\xfe\xff": "is UTF-32, not UTF-8; save it again as UTF-8",
}


class Unreadable(ValueError):
    """What keeps a file, or the rest of it, from being read."""


def read_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file, plain or gzip-compressed, with their ends.

    Raises:
        Unreadable: when it is no text, its compressed data are damaged or cut short, or a limit is passed; it says which.
    """
    with path.open("rb") as raw, _unfolded(raw) as file:
        total, limit = 0, _limit(path, file)
        while line := _guarded(file, LONGEST_LINE + 1):
            total += len(line)
            if total == len(line) and (other := next((words for start, words in OTHERS.items() if line.startswith(start)), "")):
                raise Unreadable(other)
            if len(line) > LONGEST_LINE:
                raise Unreadable(f"is longer than {LONGEST_LINE // MIB} MiB, which no row should be")
            if total > limit:
                raise Unreadable(_too_large(limit))
            yield line


def read_bytes(path: Path) -> bytes:
    """Return all bytes of a file, plain or gzip-compressed.

    Raises:
        Unreadable: as `read_lines` does.
    """
    with path.open("rb") as raw, _unfolded(raw) as file:
        blocks, total, limit = [], 0, _limit(path, file)
        while block := _guarded(file, MIB, whole_lines=False):
            blocks.append(block)
            total += len(block)
            if total > limit:
                raise Unreadable(_too_large(limit))
    return b"".join(blocks)


def is_gzip(path: Path) -> bool:
    """Return whether a file begins as gzip files do, whatever its name."""
    with path.open("rb") as file:
        return file.read(2) == GZIP


def _unfolded(raw: BinaryIO) -> BinaryIO:
    start = raw.read(2)
    raw.seek(0)
    return gzip.open(raw) if start == GZIP else raw


def _limit(path: Path, file: BinaryIO) -> float:
    if not isinstance(file, gzip.GzipFile):
        return float("inf")
    return min(LARGEST, max(EXPECTED, ALLOWED_RATIO * path.stat().st_size))


def _too_large(limit: float) -> str:
    return f"unfolds to more than {limit / MIB:,.0f} MiB; if it is what it should be, unpack it first"


def _guarded(file: BinaryIO, size: int, *, whole_lines: bool = True) -> bytes:
    try:
        return file.readline(size) if whole_lines else file.read(size)
    except EOFError:
        raise Unreadable("the compressed data end in the middle; copy or download the file again") from None
    except (zlib.error, gzip.BadGzipFile) as error:
        raise Unreadable(f"the compressed data are damaged ({error}); copy or download the file again") from None
