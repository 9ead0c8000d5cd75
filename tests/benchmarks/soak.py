"""A long run of the sandbox: memory, open files and the folder's size on the way.

`python -m tests.benchmarks.soak [STEPS]` prints a line every tenth of the steps. Memory and open files are to stay flat, and the
folder to grow by what it records.
"""

import sys
import tempfile
import time
from pathlib import Path

from opsd_lab.commands.train import read_plan
from opsd_lab.grading import Grader
from opsd_lab.runs import Keep, Run, train
from opsd_lab.runs.building import build

MIB = 2**20


def resident() -> float:
    """Return the memory that this process holds now (MiB)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / MIB


def sizes(folder: Path) -> dict[str, float]:
    """Return the size of each part of a run's folder (MiB)."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            part = path.relative_to(folder).parts[0]
            found[part] = found.get(part, 0) + path.stat().st_size / MIB
    return found


def main(steps: int = 2000) -> None:
    """Train and print."""
    small = ("rollouts=4", "data.train=sandbox:sheet/train/256", "data.validation=sandbox:sheet/validation/2", "probe.every=50")
    plan = read_plan(Path("sandbox"), (*small, f"steps={steps}"))
    keep = Keep(checkpoint_every=10, best="accuracy")
    with tempfile.TemporaryDirectory() as name, Grader() as grader:
        folder = Path(name) / "run"
        built = build(plan, grader)
        started = time.perf_counter()
        for record in train(folder, built.trainer, steps, keep=keep, probe=built.probe, progress=False):
            if record.step % max(1, steps // 10) == 0:
                files = len(list(Path("/proc/self/fd").iterdir()))
                each = ", ".join(f"{part} {size:.2f}" for part, size in sorted(sizes(folder).items()))
                took = time.perf_counter() - started
                print(f"step {record.step}: {resident():.0f} MiB, {files} open files, {took:.0f} s; MiB on disk: {each}", flush=True)
        run = Run.open(folder)
        counts = {what: len(run.kept(what)) for what in ("rollouts", "tokens", "checkpoints")}
        print(f"{len(run.steps)} lines of steps, {len(run.measured)} of measurements, files: {counts}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
