"""Jobs for several workers that can fail: each job is done once, a failed one by whoever is free, a failing worker left out."""

import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

LONGEST_PAUSE = 30.0  # s between two attempts

Job = TypeVar("Job")
Result = TypeVar("Result")


class ServerFault(RuntimeError):
    """A server that did not do what it was asked; `lasting` where asking again cannot help."""

    def __init__(self, message: str, *, lasting: bool = False, unknown_model: bool = False) -> None:
        super().__init__(message)
        self.lasting = lasting
        self.unknown_model = unknown_model


class SharedQueue(Generic[Job, Result]):
    """Jobs by key, taken by threads of several servers; `keep` gets each result once.

    A server that fails pauses, longer each time from `pause` (s) on; after `attempts` failures in a row, or a lasting one, it is
    out, with a warning that names it. So is one named that failed last while the others did its work. Up to `concurrency` jobs
    run on a server at a time.
    """

    def __init__(
        self, jobs: Mapping[object, Job], keep: Callable[[object, Result], None], *, attempts: int, pause: float, concurrency: int
    ) -> None:
        self._queue, self._open, self._total, self._keep = deque(jobs.items()), len(jobs), len(jobs), keep
        self._attempts, self._pause, self._concurrency = attempts, pause, concurrency
        self._changed = threading.Condition()
        self._out: dict[str, ServerFault] = {}
        self._failures: dict[str, int] = {}  # in a row
        self._failed_at: dict[str, float] = {}
        self._last_fault: dict[str, ServerFault] = {}
        self._fatal: BaseException | None = None
        self._stopped = False

    def finish(self, servers: Mapping[str, Callable[[Job], Result]]) -> None:
        """Do every job; `servers` maps a server's name to what does one job there.

        Raises:
            RuntimeError: when no server is left; it names the fault of each.
            Exception: what a server raised other than a `ServerFault`.
        """
        threads = [name for name in servers for _ in range(min(self._concurrency, self._total))]
        pool = ThreadPoolExecutor(len(threads))
        try:
            for name in threads:
                pool.submit(self._serve, name, servers[name])
            with self._changed:
                self._changed.wait_for(lambda: not self._open or self._fatal or len(self._out) == len(servers))
        finally:
            with self._changed:
                self._stopped = True
                unmended = [fault for name, fault in self._last_fault.items() if self._failures[name] and name not in self._out]
                self._changed.notify_all()
            pool.shutdown(wait=False, cancel_futures=True)
        if self._fatal:
            raise self._fatal
        for fault in unmended:
            warnings.warn(f"server failed, and the others did its work: {fault}", stacklevel=2)
        if self._open:
            raise RuntimeError(
                f"no server is left; {self._total - self._open} of {self._total} completions are finished and kept, so the same call "
                "asks for the rest only: " + "; ".join(map(str, self._out.values()))
            )

    def _serve(self, name: str, work: Callable[[Job], Result]) -> None:
        while (item := self._next(name)) is not None:
            key, job = item
            started = time.monotonic()
            try:
                result = work(job)
            except ServerFault as fault:
                self._put_back(name, item, fault, started)
            except BaseException as error:  # not the queue's to hide; `finish` raises it
                with self._changed:
                    self._fatal = self._fatal or error
                    self._changed.notify_all()
            else:
                self._finish_one(name, key, result)

    def _next(self, name: str) -> tuple[object, Job] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._over(name))
            return None if self._over(name) else self._queue.popleft()

    def _over(self, name: str) -> bool:
        return self._stopped or not self._open or self._fatal is not None or name in self._out

    def _finish_one(self, name: str, key: object, result: Result) -> None:
        with self._changed:
            if self._stopped:  # too late: the job may be asked for again
                return
            self._failures[name] = 0
            self._keep(key, result)
            self._open -= 1
            self._changed.notify_all()

    def _put_back(self, name: str, item: tuple[object, Job], fault: ServerFault, started: float) -> None:
        with self._changed:
            self._queue.appendleft(item)
            self._last_fault[name] = fault
            self._changed.notify_all()
            # Jobs that were under way when a server failed fail together; that counts once.
            if started >= self._failed_at.get(name, -1.0):
                self._failed_at[name] = time.monotonic()
                self._failures[name] = self._failures.get(name, 0) + 1
            failures = self._failures[name]
            if (fault.lasting or failures >= self._attempts) and not self._over(name):
                self._out[name] = fault
                warnings.warn(f"server left out of this call: {fault}", stacklevel=2)
            pause = min(self._pause * 2 ** (failures - 1), LONGEST_PAUSE)
            self._changed.wait_for(lambda: self._over(name), timeout=pause)
