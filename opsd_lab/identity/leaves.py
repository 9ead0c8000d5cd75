"""Digests of what has no parts, tensors included; each says its kind and its length, so that no two contents share one."""

import hashlib
import re
import struct
from collections.abc import Mapping
from pathlib import Path, PurePath

import numpy as np
import torch
from torch import Tensor

PACKAGE = Path(__file__).parents[1]


def joined(tag: str, *parts: bytes | memoryview) -> bytes:
    """Return a hash from which tag and parts follow: each goes in behind its length."""
    found = hashlib.sha256()
    for part in (tag.encode(), *parts):
        found.update(len(part).to_bytes(8, "big"))
        found.update(part)
    return found.digest()


def address(tensor: Tensor) -> int:
    """Return where a tensor's content lies; 0 where it has none, or not in one piece."""
    return 0 if tensor.is_meta or tensor.layout != torch.strided else tensor.data_ptr()


def tensor_bytes(tensor: Tensor) -> bytes:
    """Return the digest of a tensor's dtype, shape and content, wherever it lies.

    Raises:
        TypeError: when it has no content (on the meta device) or is not strided.
    """
    if tensor.is_meta or tensor.layout != torch.strided:
        raise TypeError(f"a tensor on {tensor.device} with the layout {tensor.layout}, whose bytes cannot be read")
    flat = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous().flatten()
    content = memoryview(flat.view(torch.uint8).numpy())
    return joined("tensor", str(tensor.dtype).encode(), repr(tuple(tensor.shape)).encode(), content)


def tensor_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the digest of named tensors, in whatever order they come; 64 hexadecimal digits.

    Raises:
        TypeError: as `tensor_bytes` does; it names the tensor.
    """
    known: dict[tuple, bytes] = {}  # tied weights are read once
    rows = []
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        key = (address(tensor), tensor.dtype, tensor.shape, tensor.stride())
        try:
            known[key] = known.get(key) or tensor_bytes(tensor)
        except TypeError as error:
            raise TypeError(f"{name} cannot be identified: {error}") from None
        rows.append(joined("entry", name.encode(), known[key]))
    return joined("tensors", *rows).hex()


def plain_digest(value: object) -> bytes | None:
    """Return the digest of a value without parts (a number, a text, a path, a type of numbers); None for any other."""
    kind = type(value)
    if value is None or value is Ellipsis or value is NotImplemented:
        return joined("constant", repr(value).encode())
    if kind in (bool, int, range):
        return joined(kind.__name__, repr(value).encode())
    if kind is str:
        return joined("str", value.encode("utf-8", "surrogatepass"))
    if kind in (float, complex):
        number = complex(value)
        return joined(kind.__name__, struct.pack(">dd", number.real, number.imag))
    if kind in (bytes, bytearray):
        return joined(kind.__name__, bytes(value))
    if isinstance(value, np.generic) and not value.dtype.hasobject:
        return joined("number", str(value.dtype).encode(), value.tobytes())
    if isinstance(value, PurePath):
        return joined("path", _path(value).encode("utf-8", "surrogatepass"))
    if kind is re.Pattern:
        return joined("pattern", plain_digest(value.pattern), str(value.flags).encode())
    if isinstance(value, torch.dtype | torch.device | torch.layout | torch.memory_format | np.dtype):
        return joined("type", str(value).encode())
    return None


def _path(path: PurePath) -> str:
    """Return a path as text; one inside this package is the same wherever the package lies."""
    return f"opsd_lab:{path.relative_to(PACKAGE)}" if path.is_relative_to(PACKAGE) else str(path)
