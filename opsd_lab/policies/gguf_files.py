"""GGUF files: read by transformers once, dequantised into a plain checkpoint in the user's cache, and verified at each use.

transformers can read such a file, but slowly, and into a model that cannot be saved or trained as others are.
"""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import platformdirs
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils.hub import cached_file

from opsd_lab.basics.files import write_folder_whole

SUFFIX, MAGIC = ".gguf", b"GGUF"
MANIFEST = "sha256.json"
KEY = 16  # digits of a file's SHA-256 that name its checkpoint


class CorruptModelError(ValueError):
    """A model file whose bytes are not the expected ones."""


def cache_root() -> Path:
    """Return where converted checkpoints live: `$OPSD_LAB_CACHE`, or the user's cache directory."""
    return Path(os.environ.get("OPSD_LAB_CACHE") or platformdirs.user_cache_dir("opsd_lab"))


def is_gguf(name: str | Path) -> bool:
    """Tell whether a model's name is that of a GGUF file."""
    return str(name).endswith(SUFFIX)


def gguf_checkpoint(name: str | Path) -> Path:
    """Return the folder of the checkpoint that a GGUF file was converted into, converting it first where that was not done yet.

    `name` is a path, or a hub id with a file in that repository, such as "Qwen/Qwen2.5-0.5B-Instruct-GGUF/model-q4_k_m.gguf".

    Raises:
        FileNotFoundError: when there is neither.
        CorruptModelError: when the file is cut off or its header cannot be read, or a file of the finished checkpoint has changed.
        ValueError: when it is no GGUF file, or transformers does not read its architecture.
        OSError: when the checkpoint cannot be written, or the hub cannot be reached.
    """
    path = _local(str(name))
    check_gguf(path)
    return checkpoint(cache_root() / f"{path.stem}-{sha256(path)[:KEY]}", lambda: path)


def checkpoint(folder: Path, find: Callable[[], Path]) -> Path:
    """Return a folder with the checkpoint of the GGUF file that `find` returns, which is asked only where there is none yet.

    A finished conversion is verified against the checksums that it recorded. The folder appears under its name only when it
    is complete, so an interrupted conversion leaves nothing that could be mistaken for a model.

    Raises:
        CorruptModelError: when a file of the finished checkpoint has changed.
        OSError: when it cannot be written.
    """
    if not folder.exists():
        _convert(find(), folder)
    remedy = f"delete the folder {folder} and try again"
    if not (folder / MANIFEST).exists():
        raise CorruptModelError(f"{folder} holds no {MANIFEST}, so it is not a finished conversion; {remedy}")
    for name, expected in json.loads((folder / MANIFEST).read_text()).items():
        if not (folder / name).exists():
            raise CorruptModelError(f"{folder / name} is missing; {remedy}")
        check_sha256(folder / name, expected, remedy=remedy)
    return folder


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


SCALED_POSITIONS = "rope_freqs.weight"
AS_SAFETENSORS = "take the model as safetensors, by its hub id or folder"


def check_gguf(path: Path) -> None:
    """Make sure that a file is a whole GGUF file; what its weights are, it does not say.

    Raises:
        CorruptModelError: when its header cannot be read, or a tensor lies beyond its end.
        ValueError: when it is no GGUF file, one part of several, or a model that transformers would read wrongly.
    """
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise ValueError(f"{path} is no GGUF file: it does not begin with {MAGIC.decode()}")
    from gguf import GGUFReader  # which takes seconds beside vLLM, whose packages it looks at

    size, remedy = path.stat().st_size, "download it again"
    try:
        reader = GGUFReader(path)
        architecture = reader.fields["general.architecture"].contents()
        ends = {str(tensor.name): int(tensor.data_offset) + int(tensor.n_bytes) for tensor in reader.tensors}
    except Exception as error:  # whatever a wrong length or kind in the header leads to
        raise CorruptModelError(
            f"{path} ({size:,} bytes) is cut off or corrupt ({type(error).__name__}: {error}); {remedy}"
        ) from error
    if "split.count" in reader.fields and int(reader.fields["split.count"].contents()) > 1:
        raise ValueError(f"{path} is one part of a model in several files; join them with llama.cpp's gguf-split --merge")
    if SCALED_POSITIONS in ends:  # transformers leaves it out, and the model would be another
        raise ValueError(
            f"{path} scales its rotary positions ({SCALED_POSITIONS}), which transformers does not read; {AS_SAFETENSORS}"
        )
    if not ends or not architecture:
        raise CorruptModelError(f"{path} ({size:,} bytes) holds no model; {remedy}")
    name = max(ends, key=lambda tensor: ends[tensor])
    if ends[name] > size:
        raise CorruptModelError(f"{path} is cut off: it has {size:,} bytes, and {name} ends at {ends[name]:,}; {remedy}")


def _local(name: str) -> Path:
    if Path(name).is_file():
        return Path(name)
    repository, file = "/".join(name.split("/")[:2]), "/".join(name.split("/")[2:])
    if not file or Path(name).is_absolute():
        raise FileNotFoundError(f"no file {name}; a GGUF file on a hub is named owner/repository/file{SUFFIX}")
    return Path(cached_file(repository, file))


def _convert(gguf: Path, folder: Path) -> None:
    where, file = str(gguf.parent), gguf.name
    # Without it transformers may keep the weights in the file's own blocks, which do not train.
    dense = {"quantization_config": transformers.GgufConfig(dequantize=True)} if hasattr(transformers, "GgufConfig") else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, gguf_file=file)
        dtype = torch.bfloat16 if _is_quantised(gguf) else torch.float32
        model, told = AutoModelForCausalLM.from_pretrained(where, gguf_file=file, dtype=dtype, output_loading_info=True, **dense)
    except (KeyError, ValueError, NotImplementedError) as error:
        raise ValueError(f"transformers {transformers.__version__} does not read {gguf}: {error}") from error
    if missing := sorted(told["missing_keys"]):
        raise ValueError(f"{gguf} lacks {len(missing)} of its model's weights, such as {missing[0]}; {AS_SAFETENSORS}")
    broken = [name for name, value in model.state_dict().items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise CorruptModelError(f"{gguf} is corrupt: {broken[0]} holds numbers that are none; download it again")
    plain = _plain(model)

    def write(partial: Path) -> None:
        plain.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        sums = {path.name: sha256(path) for path in sorted(partial.iterdir())}
        (partial / MANIFEST).write_text(json.dumps(sums, indent=1))

    write_folder_whole(folder, write)


def _is_quantised(gguf: Path) -> bool:
    """Whether the file holds its matrices in fewer bits than bfloat16 can tell apart, so that bfloat16 loses little."""
    from gguf import GGMLQuantizationType as Kind
    from gguf import GGUFReader

    kinds = {tensor.tensor_type for tensor in GGUFReader(gguf).tensors if len(tensor.shape) > 1}
    return not kinds & {Kind.F32, Kind.F16}


def _plain(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model as if it had never been quantised."""
    config = model.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        plain = type(model)(config)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.generation_config = model.generation_config
    return plain
