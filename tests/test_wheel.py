"""The wheel, built from a copy of the tree without a network, holds all that the package needs and works from any folder."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
USED = """
import contextlib, io, json, runpy, sys
from pathlib import Path

import nbformat
import pandas as pd

import opsd_lab
from opsd_lab.experiments import NOTEBOOKS, RESULTS

assert Path(opsd_lab.__file__).is_relative_to(FOLDER), opsd_lab.__file__
assert opsd_lab.load_sandbox() and opsd_lab.load_sandbox("expert")
assert opsd_lab.worksheets("sheet", "test", 2) and opsd_lab.builtin("one_step", "test")
for path in RESULTS.iterdir():
    assert len(pd.read_parquet(path) if path.suffix == ".parquet" else json.loads(path.read_text())), path
assert [nbformat.read(path, as_version=4) for path in NOTEBOOKS.iterdir()]
sys.argv = ["opsd_lab", "show"]
with contextlib.redirect_stdout(io.StringIO()) as told:
    runpy.run_module("opsd_lab", run_name="__main__")
assert "| OPSD |" in told.getvalue()
"""


def files(folder: Path) -> set[str]:
    """The package's files below a folder, those behind links included."""
    found = (Path(top) / name for top, _, names in os.walk(folder / "opsd_lab", followlinks=True) for name in names)
    return {path.relative_to(folder).as_posix() for path in found if path.suffix != ".pyc"}


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Path:
    tree, built, folder = (tmp_path_factory.mktemp(name) for name in ("tree", "built", "unpacked"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for name in ("opsd_lab", "notebooks"):
        shutil.copytree(
            ROOT / name, tree / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "*checkpoints", "build")
        )
    run = subprocess.run([sys.executable, "-c", BUILD, str(built)], cwd=tree, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    (wheel,) = built.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def test_the_wheel_holds_every_file_of_the_package_and_the_notebooks(unpacked):
    assert files(unpacked) == files(ROOT)
    assert {f"opsd_lab/experiments/notebooks/{path.name}" for path in NOTEBOOKS} <= files(unpacked)


def test_the_wheel_works_outside_the_checkout(unpacked, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(unpacked))
    monkeypatch.setenv("OPSD_LAB_FAST", "1")
    monkeypatch.delenv("OPSD_LAB_OUT", raising=False)
    third = nbformat.read(unpacked / "opsd_lab/experiments/notebooks/03_baselines_and_ablations.ipynb", as_version=4)
    cells = [cell for cell in third.cells if cell.cell_type == "code"][:4]  # parameters, imports, the sandbox, its first rollouts
    used = new_code_cell(f"FOLDER = {str(unpacked)!r}\n{USED}")
    NotebookClient(new_notebook(cells=[used, *cells]), timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_names_no_folder_beside_its_own(path):
    code = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert not [source for source in code if "../" in source or "opsd_lab/" in source]
