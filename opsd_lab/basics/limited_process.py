"""Untrusted work in a process of its own, under a time and a memory limit: the asking side, and what the worker script runs.

The worker is a script: one JSON list a line comes in on its standard input, one JSON string a line goes out on its standard output.
This module imports the standard library only, because both sides load it.
"""

import contextlib
import faulthandler
import json
import os
import queue
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import IO, Self

START_SECONDS = 120.0  # a worker imports SymPy, which a cold disk makes slow


def _forward(stream: IO[str], replies: "queue.SimpleQueue[str | None]") -> None:
    with stream:
        for line in stream:
            replies.put(line)
    replies.put(None)


def _pass_on(requests: "queue.SimpleQueue[str | None]", stream: IO[str]) -> None:
    # Into a pipe that nobody reads, a long request would be written for ever; a worker that is stopped reads nothing.
    while (request := requests.get()) is not None:
        with contextlib.suppress(OSError, ValueError):  # a dead worker shows as the end of its replies
            stream.write(request)
            stream.flush()


def _end(process: "subprocess.Popen[str]", requests: "queue.SimpleQueue[str | None]") -> None:
    process.kill()
    requests.put(None)
    process.wait()
    with contextlib.suppress(OSError):
        process.stdin.close()


class Worker:
    """One worker process and the threads that write and read its pipes, which cannot be polled on every platform.

    Raises:
        RuntimeError: when the script does not report that it is ready.
    """

    def __init__(self, script: Path, seconds: float, limit_bytes: int) -> None:
        # A script run by its path, with -P, imports neither this package (hence no torch) nor modules beside the
        # script; a session of its own keeps Ctrl-C away from it.
        command = [sys.executable, "-P", str(script), str(seconds), str(limit_bytes)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, **pipes, encoding="utf-8", start_new_session=True)
        self._requests: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.close = weakref.finalize(self, _end, self.process, self._requests)
        self.replies: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=_forward, args=(self.process.stdout, self.replies), daemon=True).start()
        threading.Thread(target=_pass_on, args=(self._requests, self.process.stdin), daemon=True).start()
        started = False
        with contextlib.suppress(queue.Empty):
            started = self.receive(START_SECONDS) == "ready"
        if not started:
            self.close()
            raise RuntimeError(f"the worker {script.name} did not start; to see why, run: {' '.join(command)}")

    def send(self, request: tuple[str, ...]) -> None:
        """Hand one request over to be written."""
        self._requests.put(json.dumps(request) + "\n")

    def receive(self, seconds: float) -> str | None:
        """Return the next reply, None if the worker died; raise queue.Empty when it is late."""
        line = self.replies.get(timeout=seconds)
        return None if line is None else json.loads(line)


class LimitedProcess:
    """Asks a worker script, which starts when first needed; a context manager, safe to use from any thread.

    `seconds` limits each request; `memory_gib` (GiB) limits the worker's address space where the operating system can. A worker
    that overruns a limit is killed, and the next request starts another.

    Raises:
        ValueError: for a limit that is not positive.
    """

    def __init__(self, script: Path, seconds: float, memory_gib: float) -> None:
        if seconds <= 0 or memory_gib <= 0:
            raise ValueError(f"{type(self).__name__}: limits must be positive, not seconds={seconds}, memory_gib={memory_gib}")
        self.script = script
        self.seconds = seconds
        self.memory_gib = memory_gib
        self._lock = threading.Lock()
        self._worker: Worker | None = None

    def identity_data(self) -> dict[str, object]:
        """Return what the replies depend on, whichever process gives them."""
        return {"script": self.script, "seconds": self.seconds, "memory_gib": self.memory_gib}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the worker process, if one runs; asking again starts a new one."""
        with self._lock:
            worker, self._worker = self._worker, None
            if worker is not None:
                worker.close()

    def ask(self, *request: str) -> str | None:
        """Return the worker's reply, or None when the request outran a limit.

        Raises:
            RuntimeError: when no worker process can be started.
        """
        with self._lock:
            # A worker that had died before, for reasons of its own, says nothing about this request: try once more.
            for _ in range(2):
                # Taken out while it works: whatever interrupts us, a worker that owes a reply is never asked again.
                worker = self._worker or Worker(self.script, self.seconds, int(self.memory_gib * 2**30))
                self._worker = reply = None
                try:
                    worker.send(request)
                    reply = worker.receive(self.seconds)
                except queue.Empty:
                    return None
                finally:
                    if reply is None:
                        worker.close()
                    else:
                        self._worker = worker
                if reply is not None:
                    return reply
        return None


def limit_memory(limit_bytes: int) -> None:
    """Bound this process's address space, where the operating system has such a bound."""
    # Windows has no `resource` module and macOS refuses this limit; the time limit holds there all the same.
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        soft = limit_bytes if hard == resource.RLIM_INFINITY else min(limit_bytes, hard)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def serve(reply: Callable[..., str], first: tuple[str, ...], seconds: float, limit_bytes: int) -> None:
    """Be the worker: answer requests until standard input ends, the limits in force once the request `first` has been tried.

    `reply` makes the answer of a request's texts. `limit_bytes` bounds the address space, where the operating system can. The parent
    limits a request to `seconds`; the worker ends itself only when one takes twice that and 10 seconds more.
    """
    # Replies keep a descriptor of their own, so that whatever a library prints cannot be taken for one.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    reply(*first)
    limit_memory(limit_bytes)
    print(json.dumps("ready"), file=replies, flush=True)
    with open(os.devnull, "w") as nowhere:
        for line in sys.stdin:
            # The parent kills a late worker; should the parent be gone, the worker ends itself.
            faulthandler.dump_traceback_later(2 * seconds + 10, exit=True, file=nowhere)
            print(json.dumps(reply(*json.loads(line))), file=replies, flush=True)
            faulthandler.cancel_dump_traceback_later()
