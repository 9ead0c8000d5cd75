"""Ctrl-C on the command line, pressed for real: no process, temporary folder or half-written file stays behind."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from opsd_lab.problems.files import save_jsonl
from opsd_lab.runs import Run
from opsd_lab.sandbox import worksheets
from tests.commands.test_train import SMALL

ROOT = Path(__file__).parents[2]


def alive() -> dict[int, int]:
    """Return the processes that are not dead, each with its parent."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state != "Z":
            found[int(stat.parent.name)] = int(parent)
    return found


def below(number: int) -> set[int]:
    """Return a process with all that it started, and they started."""
    found, parents = {number}, alive()
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


@pytest.mark.skipif(not Path("/proc").exists(), reason="asks /proc which processes there are")
def test_ctrl_c_leaves_no_process_and_no_temporary_folder_behind(tmp_path):
    folder, temporary = tmp_path / "run", tmp_path / "tmp"
    temporary.mkdir()
    roots = [replace(problem, answer=r"\sqrt{2} + 1") for problem in worksheets("sheet", "validation", 2)]
    save_jsonl(roots, tmp_path / "roots.jsonl")  # such an answer is read in a process of its own
    changes = ["steps=100000", *SMALL[2:], f"data.validation={tmp_path / 'roots.jsonl'}"]
    command = [sys.executable, "-m", "opsd_lab", "train", SMALL[0], *changes, "--out", str(folder)]
    environment = os.environ | {"TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"}
    with (tmp_path / "told").open("wb") as told:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=told, stderr=told, start_new_session=True)
        while process.poll() is None and not (folder / "probes.jsonl").exists():
            time.sleep(0.1)
        before = below(process.pid)
        process.send_signal(signal.SIGINT)
        code = process.wait(60)
    text = (tmp_path / "told").read_text()
    assert code == 130 and "the same command goes on" in text and "Traceback" not in text, text
    assert len(before) > 1
    deadline = time.time() + 10
    while before & alive().keys() and time.time() < deadline:
        time.sleep(0.1)
    assert not before & alive().keys() and list(temporary.iterdir()) == []
    run = Run.open(folder)
    assert [path.name for path in folder.rglob("*.partial")] == [] and list(run.kept("checkpoints"))[-1] == len(run.steps)
