"""One digest for a value's content: the same for the same content in every process, another for any other.

Functions and classes count by their code with all that it refers to, whatever they are called; installed libraries by name and
version. What cannot be told apart so is refused.
"""

import contextlib
import datetime
import decimal
import enum
import functools
import operator
import types
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Set
from typing import ClassVar

import numpy as np
import pandas as pd
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from opsd_lab.identity.code import (
    as_named,
    cell_content,
    code_data,
    counted_members,
    held_attributes,
    library_name,
    library_version,
    named_globals,
)
from opsd_lab.identity.leaves import address, joined, plain_digest, tensor_bytes
from opsd_lab.identity.model import model_data, tokenizer_data
from opsd_lab.policies.policy import Policy

REMEDY = "make it of plain data, or give its class a method `identity_data()` that returns the data that stand for it"
BUILTIN = (types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType, types.MethodWrapperType, np.ufunc)
BUILTIN += (types.ClassMethodDescriptorType,)
# Of the standard library, written in C: their own reduction tells their content.
REDUCED = (datetime.date, datetime.time, datetime.timedelta, datetime.tzinfo, decimal.Decimal, types.SimpleNamespace)
REDUCED += (operator.itemgetter, operator.attrgetter, operator.methodcaller)
SCALARS = {str: str.__str__, bytes: bytes.__bytes__, int: int.__int__, float: float.__float__}
HEAP, IMMUTABLE = 1 << 9, 1 << 8  # of a type's flags: a class that Python code defined is on the heap, and can be changed


def digest(value: object, name: str = "value", skipped: Set[int] = frozenset()) -> str:
    """Return 64 hexadecimal digits that stand for a value's content; `name` is what an error calls it.

    Mappings and sets count in no order. An object counts by its class and its attributes, or by what its method `identity_data`
    returns instead of them. Tensors at the addresses `skipped`, which are accounted for elsewhere, count by dtype and shape only.

    Raises:
        TypeError: for what has no content that every process could tell (an open file, a generator, a lock, a bare object), and for
            data that contain themselves; it says where that sits.
    """
    return _Walk(skipped).of(value, name).hex()


def attributes_of(value: object) -> dict[str, object] | None:
    """Return what an object of somebody's own class holds, by name; None for any other value, which counts as a whole."""
    if not isinstance(value, type) and hasattr(type(value), "identity_data"):
        data = value.identity_data()
        return dict(data) if isinstance(data, Mapping) else None
    if library_version(type(value).__module__) is not None or isinstance(value, tuple(_flat(_Walk.METHODS))):
        return None
    return held_attributes(value)


class _Walk:
    """One walk through a value. Functions and classes may refer to each other in circles; data may not."""

    def __init__(self, skipped: Set[int]) -> None:
        self._skipped = skipped
        self._under_way: list[object] = []
        self._known: dict[int, tuple[object, bytes]] = {}

    def of(self, value: object, place: str) -> bytes:
        """Return the digest of one value."""
        if (plain := plain_digest(value)) is not None:
            return plain
        code = isinstance(value, type | types.FunctionType)
        if id(value) in self._known:
            return self._known[id(value)][1]
        for depth, other in enumerate(reversed(self._under_way)):
            if other is value and code:
                return joined("under way", str(depth).encode(), value.__qualname__.encode())
            if other is value:
                raise TypeError(f"{place} cannot be identified: it contains itself; {REMEDY}")
        self._under_way.append(value)
        try:
            found = self._composed(value, place)
        finally:
            self._under_way.pop()
        if code:
            self._known[id(value)] = (value, found)
        return found

    def _composed(self, value: object, place: str) -> bytes:
        if not isinstance(value, type) and hasattr(type(value), "identity_data"):
            return joined("stands for", self.of(type(value), place), self.of(value.identity_data(), place))
        for kinds, method in self.METHODS.items():
            if isinstance(value, kinds):
                return method(self, value, place)
        if isinstance(getattr(value, "__wrapped__", None), types.FunctionType):  # functools.cache and its like
            return joined("wrapper", type(value).__qualname__.encode(), self.of(value.__wrapped__, place))
        alias = type(value).__module__ == "typing" or isinstance(value, types.GenericAlias | types.UnionType)
        if alias and " at 0x" not in repr(value):
            return joined("type", repr(value).encode())
        if callable(value) and (name := library_name(value)):
            return joined("library object", name.encode())
        return self._object(value, place)

    def _tensor(self, value: torch.Tensor, place: str) -> bytes:
        if address(value) in self._skipped:
            return joined("skipped tensor", str(value.dtype).encode(), repr(tuple(value.shape)).encode())
        try:
            return tensor_bytes(value)
        except TypeError as error:
            raise TypeError(f"{place} cannot be identified: {error}; {REMEDY}") from None

    def _array(self, value: np.ndarray, place: str) -> bytes:
        if value.dtype.hasobject:
            return joined("array", repr(value.shape).encode(), self.of(value.tolist(), place))
        if isinstance(value, np.ma.MaskedArray):
            return joined("masked array", self.of((np.asarray(value.data), np.ma.getmaskarray(value)), place))
        return joined("array", repr(value.dtype.descr).encode(), repr(value.shape).encode(), value.tobytes())

    def _frame(self, value: pd.DataFrame | pd.Series, place: str) -> bytes:
        columns = [value] if isinstance(value, pd.Series) else [value.iloc[:, i] for i in range(value.shape[1])]
        content = [(column.name, str(column.dtype), column.to_numpy()) for column in columns]
        return joined("frame", type(value).__name__.encode(), self.of([value.index.to_numpy(), content], place))

    def _sequence(self, value: Iterable[object], place: str) -> bytes:
        items = [self.of(entry, f"{place}[{i}]") for i, entry in enumerate(value)]
        return joined("sequence", self._kind(value, place), *items)

    def _set(self, value: Set, place: str) -> bytes:
        return joined("set", self._kind(value, place), *sorted(self.of(entry, f"an entry of {place}") for entry in value))

    def _mapping(self, value: Mapping, place: str) -> bytes:
        keys = sorted(((self.of(key, f"a key of {place}"), key) for key in value), key=lambda pair: pair[0])
        entries = [joined("entry", found, self.of(value[key], f"{place}[{key!r}]")) for found, key in keys]
        missing = self.of(getattr(value, "default_factory", None), f"{place}.default_factory")
        return joined("mapping", self._kind(value, place), missing, *entries)

    def _subclass(self, value: object, place: str) -> bytes:
        plain = next(base for base in SCALARS if isinstance(value, base))
        own = SCALARS[plain](value)
        return joined("scalar", self.of(type(value), place), self.of(own, place), self._attributes(value, place))

    def _enum(self, value: enum.Enum, place: str) -> bytes:
        kind = type(value)
        return joined(
            "enum", f"{kind.__module__}.{kind.__qualname__}".encode(), self.of(value.name, place), self.of(value.value, place)
        )

    def _kind(self, value: object, place: str) -> bytes:
        """Return what tells a container from others of the same entries: its class and, in one that people wrote, its attributes."""
        kind = type(value)
        if library_version(kind.__module__) is not None:
            return f"{kind.__module__}.{kind.__qualname__}".encode()
        return joined("kind", self.of(kind, place), self._attributes(value, place))

    def _function(self, value: types.FunctionType, place: str) -> bytes:
        if name := library_name(value):
            return joined("library object", name.encode())
        cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        state = {
            **{f"closure variable {name!r}": cell_content(cell) for name, cell in cells},
            **{f"default of argument {i}": entry for i, entry in enumerate(value.__defaults__ or ())},
            **{f"default of argument {name!r}": entry for name, entry in (value.__kwdefaults__ or {}).items()},
        }
        if (version := library_version(value.__module__)) is not None:
            content = joined("inside a library", f"{value.__module__}.{value.__qualname__} {version}".encode())
        else:
            content = self.of(code_data(value.__code__, value.__doc__), place)
            state |= {f"global {name!r}": as_named(entry) for name, entry in named_globals(value).items()}
            state |= {f"attribute {name!r}": entry for name, entry in vars(value).items() if name != "__wrapped__"}
        parts = [joined("state", name.encode(), self.of(state[name], f"{place}, {name}")) for name in sorted(state)]
        return joined("function", content, *parts)

    def _class(self, value: type, place: str) -> bytes:
        name = f"{value.__module__}.{value.__qualname__}"
        if (version := library_version(value.__module__)) is not None:
            return joined("library class", name.encode(), version.encode())
        members = counted_members(value)
        bases = [self.of(base, place) for base in value.__bases__]
        parts = [
            joined("member", key.encode(), self.of(members[key], f"{place}, {value.__qualname__}.{key}")) for key in sorted(members)
        ]
        return joined("class", name.encode(), *bases, *parts)

    def _object(self, value: object, place: str) -> bytes:
        kind = type(value)
        if isinstance(value, REDUCED):
            return joined("reduced", self.of(list(value.__reduce_ex__(4)[:3]), place))
        bases = [base for base in kind.__mro__[:-1] if base.__module__ not in ("typing", "abc")]
        written = all(base.__flags__ & HEAP and not base.__flags__ & IMMUTABLE for base in bases)
        if not written or not (hasattr(value, "__dict__") or held_attributes(value)):
            raise TypeError(f"{place} cannot be identified: {_told(value)} has no content that another process could tell; {REMEDY}")
        return joined("object", self.of(kind, place), self._attributes(value, place))

    def _attributes(self, value: object, place: str) -> bytes:
        held = held_attributes(value)
        return joined(
            "attributes", *[joined("attribute", name.encode(), self.of(held[name], f"{place}.{name}")) for name in sorted(held)]
        )

    def _builtin(self, value: Callable, place: str) -> bytes:
        owner = value.__self__ if hasattr(value, "__self__") else getattr(value, "__objclass__", None)
        if owner is None or isinstance(owner, types.ModuleType):
            return joined("builtin", str(getattr(owner, "__name__", value.__class__.__module__)).encode(), value.__name__.encode())
        return joined("builtin", self.of(owner, f"{place}, what it is bound to"), value.__name__.encode())

    METHODS: ClassVar[dict[type | tuple[type, ...], Callable]] = {
        enum.Enum: _enum,
        torch.Tensor: _tensor,
        np.ndarray: _array,
        (pd.DataFrame, pd.Series): _frame,
        Policy: lambda self, v, at: self.of((v.model, v.tokenizer, v.eos_ids), at),
        nn.Module: lambda self, v, at: joined("model", self.of(type(v), at), self.of(model_data(v, self._skipped), at)),
        PreTrainedTokenizerBase: lambda self, v, at: joined("tokenizer", self.of(tokenizer_data(v), at)),
        types.FunctionType: _function,
        type: _class,
        types.MethodType: lambda self, v, at: joined("method", self.of(v.__func__, at), self.of(v.__self__, f"{at}.__self__")),
        functools.partial: lambda self, v, at: joined(
            "partial", self.of(v.func, at), self.of(v.args, f"{at}.args"), self.of(v.keywords, f"{at}.keywords")
        ),
        (staticmethod, classmethod): lambda self, v, at: joined(type(v).__name__, self.of(v.__func__, at)),
        functools.cached_property: lambda self, v, at: joined("cached property", self.of(v.func, at)),
        property: lambda self, v, at: joined("property", self.of((v.fget, v.fset, v.fdel), at)),
        BUILTIN: _builtin,
        types.ModuleType: lambda self, v, at: joined("module", v.__name__.encode()),
        contextlib._GeneratorContextManager: lambda self, v, at: joined(  # as a decorator, made anew at each call
            "context manager", self.of((v.func, v.args, v.kwds), at)
        ),
        slice: lambda self, v, at: joined("slice", self.of((v.start, v.stop, v.step), at)),
        (list, tuple, deque): _sequence,
        (set, frozenset, Set): _set,
        (dict, Mapping): _mapping,
        (str, bytes, int, float): _subclass,
    }


def _flat(kinds: Iterable[type | tuple[type, ...]]) -> list[type]:
    return [kind for entry in kinds for kind in (entry if isinstance(entry, tuple) else (entry,))]


def _told(value: object) -> str:
    return f"an object of {type(value).__module__}.{type(value).__qualname__}"
