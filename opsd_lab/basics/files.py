"""The one way in which files are written: whole or not at all, whatever interrupts the writing."""

import contextlib
import errno
import glob
import os
import secrets
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: what killed processes leave stays there, because nobody can tell whose it is
    fcntl = None

SUFFIX = ".partial"
PATIENCE = 1.0  # seconds
NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL}
YOURS = "write into a folder that is yours"
REMEDIES = {
    errno.ENOSPC: "free some space on that disk, or write elsewhere",
    errno.EDQUOT: "free some of your quota, or write elsewhere",
    errno.EFBIG: "raise the limit on the size of files, or write less",
    errno.EACCES: YOURS,
    errno.EPERM: YOURS,
    errno.EROFS: YOURS,
}


def write_whole(path: str | Path, content: str | bytes | Callable[[Path], object]) -> Path:
    """Write a file whole or not at all, and return its path with links followed.

    `content` is what the file shall hold (text as UTF-8), or a function that writes it at the path that it is given; that file
    replaces the previous one when all of it is on the disk. Folders on the way are made. Until then the previous file stays as it
    was, also if the process is killed. What killed processes left beside this file is deleted; what another is writing is not.

    Raises:
        OSError: when the file cannot be written; it names the file and the remedy. Nothing is left beside the previous file.
    """
    target = Path(path).resolve()
    with named_failures(target):
        if target.exists() and not target.is_file():
            raise OSError(errno.EEXIST, "something that is not a file has that name", str(target))
        with _folder_beside(target) as folder:
            partial = folder / target.name
            if callable(content):
                content(partial)
            else:
                partial.write_bytes(content.encode() if isinstance(content, str) else content)
            _flush(partial)
            if target.exists():
                shutil.copymode(target, partial)
            os.replace(partial, target)
            _flush(target.parent)
    return target


def write_folder_whole(folder: str | Path, write: Callable[[Path], object]) -> Path:
    """Make a folder with all that `write` puts into the one that it is given, whole or not at all, and return its path.

    A folder that is there by then, made by another process, stays. Leftovers are treated as in `write_whole`.

    Raises:
        OSError: when it cannot be written; it names the folder and the remedy.
    """
    target = Path(folder).resolve()
    with named_failures(target), _folder_beside(target) as outer:
        partial = outer / target.name
        partial.mkdir()
        write(partial)
        for each in (*partial.rglob("*"), partial):
            _flush(each)
        with contextlib.suppress(FileExistsError):
            if not target.exists():
                os.replace(partial, target)
        _flush(target.parent)
    return target


@contextlib.contextmanager
def _folder_beside(target: Path) -> Iterator[Path]:
    """Give an empty folder beside the target, locked as long as this process uses it, and delete it in the end.

    A folder, because writers of other libraries replace files, and make some of their own beside them.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _clear_leftovers(target)
    while True:
        folder = target.with_name(f".{target.name}.{secrets.token_hex(4)}{SUFFIX}")
        folder.mkdir()
        handle = _locked(folder, wait=True)
        # Another process may have taken it for a leftover in the moment before it was locked.
        if folder.exists():
            break
        _close(handle)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _close(handle)


def _clear_leftovers(target: Path) -> None:
    pattern = f".{glob.escape(target.name)}.{'[0-9a-f]' * 8}{SUFFIX}"
    for leftover in target.parent.glob(pattern) if fcntl else ():
        # The system frees the lock of a process when it ends, however it ends.
        handle = _locked(leftover, wait=False)
        if handle is not None:
            shutil.rmtree(leftover, ignore_errors=True)
            _close(handle)


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Hold a folder inside the block, so that no other process does.

    Raises:
        BlockingIOError: when another one does, and still does after a second; who only asks `is_locked` holds it for a moment.
    """
    deadline = time.monotonic() + PATIENCE
    while (handle := _locked(folder, wait=False, or_without=True)) is None and fcntl is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    if handle is None and fcntl is not None:
        raise BlockingIOError(errno.EWOULDBLOCK, "another process is writing there; wait for it, or name another folder", str(folder))
    try:
        yield
    finally:
        _close(handle)


def is_locked(folder: Path) -> bool:
    """Return whether a process holds a folder, as far as the file system can tell."""
    handle = _locked(folder, wait=False, or_without=True)
    _close(handle)
    return handle is None and fcntl is not None and folder.is_dir()


def _locked(folder: Path, *, wait: bool, or_without: bool = False) -> int | None:
    """Return a handle that holds the folder's lock, or None: another has it, or there is no such folder.

    Where the file system has no locks, `or_without` takes a handle that holds nothing; a warning says so.
    """
    if fcntl is None:
        return None
    handle = None
    try:
        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if or_without and handle is not None and error.errno in NO_LOCKS:
            warnings.warn(f"{folder} lies where files have no locks: see to it that one process alone writes there", stacklevel=4)
            return handle
        _close(handle)
        return None
    return handle


def _close(handle: int | None) -> None:
    if handle is not None:
        os.close(handle)


def _flush(path: Path) -> None:
    """Have the system put a file's bytes, or the names in a folder, on the disk."""
    if not path.is_dir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    elif fcntl is not None:  # Windows opens no folders
        handle = os.open(path, os.O_RDONLY)
        with contextlib.suppress(OSError):  # some file systems cannot do it for folders
            os.fsync(handle)
        os.close(handle)


@contextlib.contextmanager
def named_failures(target: Path) -> Iterator[None]:
    """Let the system's failures inside the block name the file and the remedy."""
    try:
        yield
    except Exception as error:
        number = _system_error(error)
        if number is None:
            raise
        kept = "what was there is as it was" if target.exists() else "nothing was written"
        remedy = REMEDIES.get(number, "write elsewhere")
        raise OSError(number, f"{os.strerror(number)}; {kept}: {remedy}", str(target)) from error


def _system_error(error: Exception) -> int | None:
    """Return the system's number for an error, also for one that a library in another language wraps; None for other kinds."""
    if not isinstance(error, OSError) and type(error).__name__ != "SafetensorError":
        return None
    if getattr(error, "errno", None):
        return error.errno
    _, mark, rest = str(error).partition("os error ")
    return int(rest.partition(")")[0]) if mark else errno.EIO if isinstance(error, OSError) else None
