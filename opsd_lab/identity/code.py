"""What the behaviour of functions and classes follows from: compiled code, the globals that it names, a class's own members."""

import dataclasses
import dis
import enum
import functools
import sys
from collections import namedtuple
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from types import CellType, CodeType, FunctionType, GetSetDescriptorType, MemberDescriptorType, ModuleType

GLOBAL = {"LOAD_GLOBAL", "LOAD_NAME"}
ATTRIBUTE = {"LOAD_ATTR", "LOAD_METHOD"}
# What a class holds beside its code and data; a dataclass's own methods follow from its fields.
UNCOUNTED = {
    "__dict__",
    "__weakref__",
    "__module__",
    "__qualname__",
    "__doc__",
    "__annotations__",
    "__orig_bases__",
    "__parameters__",
}
UNCOUNTED |= {"__match_args__", "__slots__", "__abstractmethods__", "_abc_impl", "_is_protocol", "_is_runtime_protocol"}
UNCOUNTED |= {"__protocol_attrs__", "__dataclass_params__", "__dataclass_fields__", "__firstlineno__", "__static_attributes__"}
DATACLASS = {"__init__", "__repr__", "__eq__", "__lt__", "__le__", "__gt__", "__ge__", "__hash__", "__setattr__", "__delattr__"}
PLACES = (MemberDescriptorType, GetSetDescriptorType, type(vars(namedtuple("One", "entry"))["entry"]))


def code_data(code: CodeType, doc: str | None = None) -> tuple:
    """Return a code object as plain data, without its name, place and lines; a first constant that is `doc` is left out."""
    constants = list(code.co_consts)
    if doc is not None and constants and constants[0] == doc:
        constants[0] = None
    return (
        (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags),
        code.co_code,
        code.co_exceptiontable,
        (code.co_names, code.co_varnames, code.co_cellvars, code.co_freevars),
        tuple(code_data(constant) if isinstance(constant, CodeType) else constant for constant in constants),
    )


def named_globals(function: FunctionType) -> dict[str, object]:
    """Return the globals that a function and those inside it read, by name; of a module, what is taken from it ("np.exp").

    Names that are not defined are left out, and so are Python's own. What is no function in an installed library, such as
    `sys.modules` or `os.environ`, counts by its name: its content is the process's, not the function's.
    """
    found: dict[str, object] = {}
    for path in _paths(function.__code__):
        name, *attributes = path
        if name not in function.__globals__:
            continue
        value = function.__globals__[name]
        while isinstance(value, ModuleType) and attributes and hasattr(value, attributes[0]):
            name, owner, value = f"{name}.{attributes[0]}", value.__name__, getattr(value, attributes[0])
            if not isinstance(value, ModuleType) and not callable(value) and (version := library_version(owner)) is not None:
                value = ("of a library", f"{owner}.{attributes[0]}", version)
            attributes = attributes[1:]
        found[name] = value
    return found


def _paths(code: CodeType) -> Iterator[list[str]]:
    """Yield each global's name with the attributes that are read from it at once."""
    path: list[str] = []
    for instruction in dis.get_instructions(code):
        if instruction.opname in ATTRIBUTE and path:
            path.append(instruction.argval)
            continue
        if path:
            yield path
        path = [instruction.argval] if instruction.opname in GLOBAL else []
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _paths(constant)


def library_version(module: str | None) -> str | None:
    """Return the version of the installed library that a module belongs to; None for people's own code and opsd_lab's."""
    top = (module or "").partition(".")[0]
    if top in ("", "__main__", "__mp_main__", "opsd_lab"):
        return None
    if top in sys.stdlib_module_names:
        return "{}.{}".format(*sys.version_info)
    loaded = sys.modules.get(top)
    places = [getattr(loaded, "__file__", None) or "", *getattr(loaded, "__path__", ())]
    if not any({"site-packages", "dist-packages"} & set(Path(place).parts) for place in places):
        return None
    version = getattr(loaded, "__version__", None)
    return str(_packaged_version(top) if version is None else version).partition("+")[0]


@functools.cache  # it looks through all that is installed
def _packaged_version(top: str) -> str:
    """Return the version of the package that installed a module which does not say its own; "" where none is known."""
    with suppress(metadata.PackageNotFoundError, KeyError, IndexError):
        return metadata.version(metadata.packages_distributions()[top][0])
    return ""


def library_name(value: object) -> str | None:
    """Return by what name and version an installed library hands out this very object; None where none does."""
    module, path = getattr(value, "__module__", None), getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    if not isinstance(module, str) or not isinstance(path, str) or (version := library_version(module)) is None:
        return None
    found: object = sys.modules.get(module)
    for name in path.split("."):
        found = getattr(found, name, None)
    return f"{module}.{path} {version}" if found is value else None


def counted_members(kind: type) -> dict[str, object]:
    """Return the methods and data of a class that say what it does, by name; those of its bases are theirs."""
    members = {key: entry for key, entry in vars(kind).items() if key not in UNCOUNTED and not isinstance(entry, PLACES)}
    if "__dataclass_fields__" in vars(kind):
        members = {key: entry for key, entry in members.items() if key not in DATACLASS or not _generated(entry)}
    if issubclass(kind, enum.Enum):
        members = {key: entry for key, entry in members.items() if not key.startswith("_") and callable(entry)}
    return members


def _slot_names(base: type) -> list[str]:
    """Return the attributes that a class keeps in slots."""
    names = vars(base).get("__slots__", ())
    names = [names] if isinstance(names, str) else list(names)
    private = "_" + base.__name__.lstrip("_")
    return [
        private + name if name.startswith("__") and not name.endswith("__") else name
        for name in names
        if name not in ("__dict__", "__weakref__")
    ]


def cell_content(cell: CellType) -> object:
    """Return what a closure holds for one name."""
    try:
        return cell.cell_contents
    except ValueError:  # a name that has no value yet
        return ("empty cell",)


def as_named(value: object) -> object:
    """Return what stands for a global that code names: for a class of this package, which may lead to all of it, the name."""
    own = isinstance(value, type) and value.__module__.partition(".")[0] == "opsd_lab"
    return ("class", value.__module__, value.__qualname__) if own else value


def _generated(member: object) -> bool:
    """Whether `dataclass` wrote this method itself."""
    code = getattr(member, "__code__", None)
    return member is None or (code is not None and code.co_filename in ("<string>", dataclasses.__file__))


def held_attributes(value: object) -> dict[str, object]:
    """Return an object's attributes, in slots or not, without what `cached_property` keeps."""
    kind = type(value)
    found = {name: getattr(value, name) for base in kind.__mro__ for name in _slot_names(base) if hasattr(value, name)}
    found |= getattr(value, "__dict__", {})
    return {name: entry for name, entry in found.items() if not isinstance(getattr(kind, name, None), functools.cached_property)}
