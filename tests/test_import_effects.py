"""Importing the package does no work: no problem is made, no file of data is opened, no process is started."""

import json
import os
import subprocess
import sys

import pytest

# All is imported twice: what other packages do at their first import is over by the second.
WATCHED = """
import importlib, json, pathlib, pkgutil, sys
import opsd_lab

names = ["opsd_lab", *(module.name for module in pkgutil.walk_packages(opsd_lab.__path__, "opsd_lab."))]
for name in names:
    importlib.import_module(name)
seen = []

def events(event, arguments):
    if event == "open" and not str(arguments[0]).endswith((".py", ".pyc")):
        seen.append(f"opens {pathlib.Path(str(arguments[0])).name}")
    elif event in ("subprocess.Popen", "os.posix_spawn", "os.fork", "os.forkpty", "os.exec", "os.system"):
        seen.append("starts a process")

def calls(frame, event, argument):
    code = frame.f_code
    if event == "call" and code.co_name == "__post_init__" and code.co_filename.endswith("problem.py"):
        seen.append("makes a problem")

def imported(names):
    seen.clear()
    for name in [name for name in sys.modules if name.partition(".")[0] in ("opsd_lab", "working")]:
        del sys.modules[name]
    sys.setprofile(calls)
    for name in names:
        importlib.import_module(name)
    sys.setprofile(None)
    return sorted(set(seen))

sys.addaudithook(events)
print(json.dumps([len(names), imported(names), imported(["working"])]))
"""


@pytest.fixture(scope="module")
def effects(tmp_path_factory) -> tuple[int, list[str], list[str]]:
    """How many modules the package has, what importing them does, and what importing a module that works at import does."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "data.json").write_text("{}")
    (folder / "working.py").write_text(
        "import subprocess, sys\n"
        "from opsd_lab.problems.word_problems import builtin\n"
        "PROBLEMS = builtin('one_step', 'validation')\n"
        f"DATA = open({str(folder / 'data.json')!r}).read()\n"
        "subprocess.run([sys.executable, '-c', ''], check=True)\n"
    )
    path = os.pathsep.join([str(folder), *filter(None, sys.path)])
    environment = os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run([sys.executable, "-c", WATCHED], capture_output=True, text=True, env=environment, cwd=folder)
    assert run.returncode == 0, run.stderr
    return tuple(json.loads(run.stdout))


def test_importing_every_module_makes_no_problem_opens_no_data_and_starts_no_process(effects):
    modules, ours, _ = effects
    assert modules > 100 and ours == []


def test_work_at_import_would_be_seen(effects):
    *_, theirs = effects
    assert {"makes a problem", "opens data.json", "starts a process"} <= set(theirs)
