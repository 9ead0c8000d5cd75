"""Files appear whole or not at all: on a full disk, when the writer is killed, and when two write at once."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
import time

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from opsd_lab.basics.files import is_locked, locked_folder, write_folder_whole, write_whole
from opsd_lab.studies.cells import check_cell, write_cell

BIG = 4 * 2**20  # bytes, more than the full disk has


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one mebibyte, or else a limit on the size of files of this process."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True).returncode == 0:
        yield folder
        subprocess.run(["umount", folder], check=True)
        return
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))
    yield folder
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, before)


def numbers(seed):
    return torch.randn(BIG // 4, generator=torch.Generator().manual_seed(seed))


WRITERS = {
    "text": "x" * BIG,
    "bytes": b"x" * BIG,
    "weights": lambda path: save_file({"w": numbers(0)}, path),
    "table": lambda path: pd.DataFrame({"n": numbers(0).numpy()}).to_parquet(path),
    "lines": lambda path: path.write_text("\n".join(map(str, range(BIG // 4)))),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_leaves_the_previous_file_and_nothing_else_and_says_what_to_do(kind, small_disk):
    path = small_disk / "kept"
    write_whole(path, "before")
    with pytest.raises(OSError, match=r"what was there is as it was: (free some space|raise the limit).*kept"):
        write_whole(path, WRITERS[kind])
    assert path.read_text() == "before"
    assert [each.name for each in small_disk.iterdir()] == ["kept"]
    assert write_whole(path, "after").read_text() == "after"


def test_a_full_disk_where_nothing_was_leaves_nothing(small_disk):
    with pytest.raises(OSError, match="nothing was written"):
        write_whole(small_disk / "new", WRITERS["text"])
    with pytest.raises(OSError, match="nothing was written"):
        write_folder_whole(small_disk / "folder", lambda folder: (folder / "x").write_bytes(b"x" * BIG))
    assert list(small_disk.iterdir()) == []


def test_a_study_that_met_a_full_disk_goes_on_afterwards(small_disk):
    path, rows = small_disk / "arm.parquet", pd.DataFrame({"accuracy": [0.5]})
    with pytest.raises(OSError, match=r"free some space|raise the limit"):
        write_cell(path, rows, {"arm": "x" * BIG})
    check_cell(path, {"arm": "one"})
    write_cell(path, rows, {"arm": "one"})
    check_cell(path, {"arm": "one"})
    with pytest.raises(ValueError, match="other settings"):
        check_cell(path, {"arm": "another"})


STUCK = """
import sys, time
from opsd_lab.basics.files import write_whole
def write(path):
    path.write_bytes(b"half")
    (path.parent / "of the library's own").write_bytes(b"half")
    print("writing", flush=True)
    time.sleep(100)
write_whole(sys.argv[1], write)
"""


@contextlib.contextmanager
def writing(path):
    """A process that is in the middle of writing the file."""
    process = subprocess.Popen([sys.executable, "-c", STUCK, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "writing\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_killed_writer_leaves_the_previous_file_and_the_next_one_clears_up(tmp_path):
    path = tmp_path / "a[1]*.bin"
    write_whole(path, "before")
    with writing(path):
        pass
    assert path.read_text() == "before" and len(list(tmp_path.iterdir())) == 2
    write_whole(tmp_path / "a1.bin", "another")
    assert len(list(tmp_path.iterdir())) == 3, "leftovers of another file are not this one's"
    write_whole(path, "after")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a1.bin", "a[1]*.bin"]
    assert path.read_text() == "after"


def test_what_a_living_process_is_writing_is_left_alone(tmp_path):
    path = tmp_path / "file"
    with writing(path):
        write_whole(path, "mine")
        assert path.read_text() == "mine"
        assert [each.name for each in tmp_path.glob(".*/*")] != []
    write_whole(path, "again")
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_threads_that_write_one_file_leave_one_of_their_contents(tmp_path):
    path, errors = tmp_path / "file", []

    def write(number):
        try:
            for _ in range(20):
                write_whole(path, str(number) * 1000)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if path.exists():
            assert path.read_text() in {str(number) * 1000 for number in range(4)}
        time.sleep(0.001)
    assert errors == [] and [each.name for each in tmp_path.iterdir()] == ["file"]


def test_an_interrupt_leaves_the_previous_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    write_whole(path, "before")

    def interrupted(partial):
        partial.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(path, interrupted)
    assert path.read_text() == "before" and [each.name for each in tmp_path.iterdir()] == ["file"]


def test_folders_are_made_links_are_followed_and_rights_are_kept(tmp_path):
    path = write_whole(tmp_path / "new" / "folder" / "file", "first")
    path.chmod(0o640)
    link = tmp_path / "link"
    link.symlink_to(path)
    assert write_whole(link, "second") == path
    assert link.is_symlink() and path.read_text() == "second" and path.stat().st_mode & 0o777 == 0o640
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    assert write_whole(tmp_path / "whole", "x").stat().st_mode == ordinary.stat().st_mode


def test_what_is_no_file_is_never_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe"):
        with pytest.raises(OSError, match=rf"what was there is as it was: write elsewhere.*{name}"):
            write_whole(tmp_path / name, "x")
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file/below"):
        write_whole(tmp_path / "file" / "below", "x")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "folder", "pipe"]


def test_a_fault_of_the_writer_itself_comes_out_as_it_is(tmp_path):
    with pytest.raises(ZeroDivisionError):
        write_whole(tmp_path / "file", lambda partial: 1 / 0)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_appears_whole_and_the_first_one_stays(tmp_path):
    def write(folder, seed=0):
        (folder / "inner").mkdir()
        save_file({"w": numbers(seed)[:9]}, folder / "inner" / "w.safetensors")

    folder = write_folder_whole(tmp_path / "model", write)
    write_folder_whole(folder, lambda other: write(other, 1))
    assert torch.equal(load_file(folder / "inner" / "w.safetensors")["w"], numbers(0)[:9])
    with pytest.raises(ZeroDivisionError):
        write_folder_whole(tmp_path / "other", lambda partial: (write(partial), 1 / 0))
    assert [each.name for each in tmp_path.iterdir()] == ["model"]


def test_where_a_file_system_has_no_locks_a_folder_is_used_with_a_warning_and_counts_as_free(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    with locked_folder(tmp_path):
        assert is_locked(tmp_path)

    def refuse(handle, kind):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match="lies where files have no locks"), locked_folder(tmp_path):
        assert not is_locked(tmp_path)
    leftover = tmp_path / ".a.json.01234567.partial"
    leftover.mkdir()
    write_whole(tmp_path / "a.json", "{}")
    assert leftover.exists()  # nobody can tell whether another process is writing it
