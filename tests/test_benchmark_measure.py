"""What the benchmarks say of the machine that they run on."""

import subprocess
import sys
import time

import psutil
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.benchmarks import measure
from tests.benchmarks.floor import Rows, floor
from tests.conftest import tiny_policy

SPIN = """
import os, sys, time
if os.fork():
    os._exit(0)
end = time.time() + 30
while time.time() < end and os.path.exists(sys.argv[1]):
    pass
"""


@pytest.fixture
def neighbour(tmp_path):
    """A process that is nobody's child and keeps a core busy."""
    flag = tmp_path / "busy"
    flag.touch()
    subprocess.run([sys.executable, "-c", SPIN, str(flag)], check=True)
    yield
    flag.unlink()


def test_a_comparison_beside_a_busy_neighbour_is_refused(neighbour, monkeypatch):
    monkeypatch.setattr(measure, "BUSY", 0.1 / psutil.cpu_count())
    with pytest.raises(RuntimeError, match=r"other processes held \d+% of the cores while waiting was timed"):
        measure.alternate({"nothing": lambda: time.sleep(1.0)}, 1, "waiting")


def test_what_a_child_computed_counts_as_this_processs_own():
    before = measure._own_seconds()
    child = "import time\nend = time.process_time() + 1\nwhile time.process_time() < end: pass"
    subprocess.run([sys.executable, "-c", child], check=True)
    assert measure._own_seconds() - before > 0.9


def test_the_floor_of_a_step_counts_every_product_once():
    policy = tiny_policy()
    run = floor(policy, Rows(student_prompts=10, teacher_prompts=20, written=(3, 2)))
    with FlopCounterMode(display=False) as found:
        run()
    layers = [m.weight for n, m in policy.model.named_modules() if type(m) is torch.nn.Linear and n != "lm_head"]
    head = policy.model.lm_head.weight.numel()
    size, rank = sum(w.numel() for w in layers), sum(sum(w.shape) for w in layers) * 16
    tokens = (10 + 2) + (10 + 5) + (20 + 5)  # written, scored by the student, by the teacher
    expected = 2 * (size * (tokens + 15) + 15 * 3 * rank + head * (5 + 3 * 5))
    assert found.get_total_flops() == expected


def test_a_neighbour_that_the_benchmark_starts_itself_is_busy_counts_as_its_own_and_ends():
    before, others = measure._own_seconds(), psutil.Process().children()
    with measure.busy_neighbour():
        time.sleep(2.0)
        assert measure._own_seconds() - before > 0.5
    assert psutil.Process().children() == others
