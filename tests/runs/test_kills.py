"""SIGKILL at random moments, some inside the writing of a checkpoint: what is left in the end is what an undisturbed run leaves.

20 moments for each kind of run are tried with OPSD_LAB_KILLS=all; without it, 2.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import safe_open

from opsd_lab.runs import Run
from tests.runs.killed import RECIPES, STEPS

ROOT = Path(__file__).parents[2]
KILLS = 20 if os.environ.get("OPSD_LAB_KILLS") == "all" else 2


def weights(path):
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name).tolist() for name in file.keys()}  # noqa: SIM118


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder for each recipe, with an undisturbed run and some that were killed."""
    if not hasattr(os, "fork"):
        pytest.skip("the processes are forked")
    made = tmp_path_factory.mktemp("kills")
    command = [sys.executable, "-m", "tests.runs.killed", str(made), str(KILLS)]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True, timeout=600 * KILLS)
    return made


@pytest.mark.parametrize("name", RECIPES)
def test_a_run_that_is_killed_and_called_again_ends_as_one_that_was_not(name, folder):
    place = folder / name
    kills = json.loads((place / "kills.json").read_text())
    assert len(kills) >= KILLS
    whole = Run.open(place / "whole")
    numbers = [column for column in whole.steps if not column.startswith("seconds")]
    assert len(whole.steps) == STEPS
    for number in {number for number, _, _ in kills}:
        killed = Run.open(place / f"killed-{number}")
        assert killed.steps[numbers].equals(whole.steps[numbers]), kills
        for what in ("rollouts", "tokens", "checkpoints"):
            assert list(killed.kept(what)) == list(whole.kept(what)), (what, kills)
        for what in ("rollouts", "tokens"):
            assert all(path.read_bytes() == whole.path(what, step).read_bytes() for step, path in killed.kept(what).items())
        for step, path in killed.kept("checkpoints").items():
            assert weights(path) == weights(whole.path("checkpoints", step))
        assert {path.name for path in killed.folder.iterdir()} == {path.name for path in whole.folder.iterdir()}
