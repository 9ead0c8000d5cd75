import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from opsd_lab.basics import limited_process
from opsd_lab.basics.limited_process import LimitedProcess

SHARED = Path(limited_process.__file__)
SCRIPT = f"""
import os, runpy, sys, time

serve = runpy.run_path({str(SHARED)!r})["serve"]


def reply(order, *rest):
    if order == "sleep":
        time.sleep(60)
    if order == "die":
        os._exit(3)
    if order == "allocate":
        try:
            bytearray(2**30)
        except MemoryError:
            return "out of memory"
    if order == "chatter":
        print("not a reply")
    return " ".join([order, *rest])


serve(reply, ("first",), float(sys.argv[1]), int(sys.argv[2]))
"""


@pytest.fixture
def script(tmp_path) -> Path:
    path = tmp_path / "echo_worker.py"
    path.write_text(SCRIPT, encoding="utf-8")
    return path


@pytest.fixture
def process(script):
    with LimitedProcess(script, seconds=2.0, memory_gib=0.25) as process:
        yield process


def test_it_starts_when_first_asked_and_answers_in_any_script(process):
    assert process._worker is None
    assert process.ask("a", 'ש"🙂\n\x00\ud800') == 'a ש"🙂\n\x00\ud800'
    assert process._worker is not None


def test_what_overruns_the_time_or_dies_has_no_reply_and_the_next_request_has(process):
    started = time.monotonic()
    assert process.ask("sleep") is None
    assert time.monotonic() - started < 20
    assert process.ask("die") is None
    assert process.ask("a") == "a"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux enforces a limit on the address space")
def test_an_allocation_beyond_the_limit_fails(process):
    assert process.ask("allocate") == "out of memory"


def test_what_the_worker_prints_is_no_reply(process):
    assert [process.ask("chatter"), process.ask("b")] == ["chatter", "b"]


def test_a_worker_killed_from_outside_is_replaced(process):
    assert process.ask("a") == "a"
    os.kill(process._worker.process.pid, signal.SIGKILL)
    assert process.ask("b") == "b"


def test_each_of_many_threads_gets_its_own_reply(process):
    replies = {}
    threads = [threading.Thread(target=lambda i=i: replies.update({i: process.ask(str(i))})) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert replies == {i: str(i) for i in range(20)}


def test_closing_ends_the_worker_and_asking_again_starts_another(process):
    process.ask("a")
    ended = process._worker.process
    process.close()
    assert ended.poll() is not None
    assert process.ask("b") == "b"


def test_a_worker_that_does_not_start_is_an_error_that_says_how_to_look(tmp_path):
    with pytest.raises(RuntimeError, match=r"absent\.py did not start; to see why, run: .*absent\.py"):
        LimitedProcess(tmp_path / "absent.py", 1.0, 1.0).ask("a")


@pytest.mark.parametrize("limits", [(0.0, 1.0), (1.0, -1.0)])
def test_limits_must_be_positive(script, limits):
    with pytest.raises(ValueError, match="LimitedProcess: limits must be positive"):
        LimitedProcess(script, *limits)


def test_what_both_sides_load_imports_the_standard_library_only():
    code = f"import runpy, sys; runpy.run_path({str(SHARED)!r}); sys.exit('numpy' in sys.modules or 'opsd_lab' in sys.modules)"
    assert subprocess.run([sys.executable, "-P", "-c", code]).returncode == 0


def test_a_stopped_worker_is_late_and_not_waited_for_also_with_a_request_that_no_pipe_holds(process):
    assert process.ask("a") == "a"
    os.kill(process._worker.process.pid, signal.SIGSTOP)
    started = time.monotonic()
    assert process.ask("x" * 2**22) is None
    assert time.monotonic() - started < 20
    assert process.ask("a") == "a"
