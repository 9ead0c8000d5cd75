"""`doctor`: whether everything is there that a run needs, and what to do about what is not."""

import importlib
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import torch

from opsd_lab.basics.arrow_rows import one_line
from opsd_lab.commands.memory import GIB, available
from opsd_lab.commands.train import read_plan
from opsd_lab.grading import Grader
from opsd_lab.policies import packaged
from opsd_lab.runs import Run
from opsd_lab.runs import train as train_run
from opsd_lab.runs.building import build

Found = tuple[str, str]
"""What was found, and what to do about it; nothing to do where all is well."""
LIBRARIES = ("torch", "transformers", "peft", "accelerate", "datasets", "safetensors", "plotly")
TRACKERS = ("tensorboard", "trackio", "wandb")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome", "firefox", "msedge")
LEAST_GIB = 4


def doctor(*, smoke: bool = True) -> None:
    """Check versions, devices, memory, engines, notebooks, browser and model cache, and train the sandbox for a few steps.

    Args:
        smoke: whether to train, which takes up to a minute.
    """
    checks: dict[str, Callable[[], Found]] = {
        "Python and libraries": versions,
        "devices": devices,
        "threads": threads,
        "memory": memory,
        "model cache": cache,
        "vLLM": vllm,
        "notebooks": notebooks,
        "browser": browser,
        "trackers": trackers,
    }
    checks |= {"a short run": short_run} if smoke else {}
    failed = 0
    for name, check in checks.items():
        try:
            found, remedy = check()
        except Exception as error:  # whatever is broken here is what people want to know
            found, remedy = f"{type(error).__name__}: {one_line(error)}", "see the message"
        failed += bool(remedy) and not remedy.startswith("optional")
        print(f"{'ok  ' if not remedy else 'note' if remedy.startswith('optional') else 'FAIL'} {name}: {found}", flush=True)
        if remedy:
            print(f"     {remedy}", flush=True)
    if failed:
        raise SystemExit(1)


def versions() -> Found:
    """Return the versions of what computes."""
    told = ", ".join(f"{name} {metadata.version(name)}" for name in LIBRARIES)
    low = sys.version_info < (3, 11)
    return f"Python {platform.python_version()}, {told}", "install Python 3.11 or later" if low else ""


def devices() -> Found:
    """Return what computes, after it has computed something."""
    name = "cuda" if torch.cuda.is_available() else "cpu"
    ones = torch.ones(64, 64, device=name)
    right = bool(((ones @ ones) == 64).all())
    told = torch.cuda.get_device_name() if name == "cuda" else f"{platform.machine()} processor, {torch.get_num_threads()} threads"
    broken = "" if right else "its matrix product is wrong; install the torch that fits this machine"
    if torch.version.cuda and name == "cpu":
        return f"{told}; this torch is built for CUDA {torch.version.cuda}, but sees no GPU", "optional: install the GPU's driver"
    return told, broken


def threads() -> Found:
    """Return how the processor's threads wait for each other; the runtime reads it once, when torch is loaded."""
    if torch.get_num_threads() == 1:
        return "one, which waits for no other", ""
    told = f"{torch.get_num_threads()}, which wait for each other"
    if os.environ.get("OMP_WAIT_POLICY", "").lower() == "passive":
        return f"{told} asleep", ""
    return f"{told} spinning", "optional: export OMP_WAIT_POLICY=passive, so that another busy job slows this one much less"


def memory() -> Found:
    """Return how much memory is free."""
    free = available("cuda" if torch.cuda.is_available() else "cpu") / GIB
    return f"{free:.1f} GiB are free", "" if free >= LEAST_GIB else f"close other programs: the walkthrough needs {LEAST_GIB} GiB"


def cache() -> Found:
    """Return whether the default model is there."""
    folder = packaged.packaged_checkpoint(packaged.NAME)
    return f"{packaged.NAME} in {folder}", ""


def vllm() -> Found:
    """Return whether vLLM is installed."""
    if importlib.util.find_spec("vllm") is None:
        return "not installed; the transformers sampler writes", "optional: pip install 'opsd-lab[vllm]' on a machine with a GPU"
    return f"vllm {importlib.import_module('vllm').__version__}", ""


def notebooks() -> Found:
    """Return whether notebooks can be opened."""
    missing = [name for name in ("jupyterlab", "ipywidgets", "anywidget", "nbclient") if importlib.util.find_spec(name) is None]
    if missing:
        return f"{', '.join(missing)} not installed", "optional: pip install 'opsd-lab[notebooks]'"
    return f"jupyterlab {metadata.version('jupyterlab')}", ""


def browser() -> Found:
    """Return the first browser on the path."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    return found or "none on the path", "" if found else "optional: a browser on this machine, or one that reaches it"


def trackers() -> Found:
    """Return which trackers could be switched on."""
    there = [name for name in TRACKERS if importlib.util.find_spec(name) is not None]
    return ", ".join(there) or "none installed; runs are kept on disk all the same", "" if there else "optional: pip install trackio"


def short_run() -> Found:
    """Train the sandbox for three steps into a folder that is deleted, and read it back."""
    plan = read_plan(
        Path("sandbox"), ("steps=3", "rollouts=16", "data.train=sandbox:sheet/train/64", "probe.problems=4", "probe.every=3")
    )
    plan = replace(plan, keep=replace(plan.keep, checkpoint_every=1))
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, Grader() as grader, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        built = build(plan, grader)
        for _ in train_run(folder, built.trainer, plan.steps, keep=plan.keep, probe=built.probe, progress=False):
            pass
        run = Run.open(folder)
        whole = len(run.steps) == 3 and list(run.measured) == [3] and len(run.tokens(3))
    told = f"3 steps, written and read back, in {time.perf_counter() - started:.0f} s"
    return told, "" if whole else "the folder lacks what was written; is the disk full?"
