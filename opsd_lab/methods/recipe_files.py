"""Recipes as TOML, and back: what was trained, in a file that people read, write and compare.

A piece is a table with its name under `piece` and what it is made with; what is left as it is by default is left out. Pieces are the
library's public classes and functions, and those that are given as `known`; nothing else is imported or run.
"""

import difflib
import importlib
import inspect
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache, partial
from types import FunctionType

import tomli_w

from opsd_lab.basics.options import name_of
from opsd_lab.identity.digest import digest
from opsd_lab.methods.method import GROUPS, METHODS
from opsd_lab.training.recipes import Recipe

MODULES = ("basics.controllers", "basics.schedules", "contexts", "contexts.peers", "contexts.views", "divergences")
MODULES += ("evaluation.rewards", "objectives", "objectives.marks", "objectives.targets", "policies.teachers", "rollouts")
MODULES += ("rollouts.gates", "steps.marks", "training.later", "training.recipes")
MODULES += tuple(f"methods.{group}" for group in GROUPS)
PIECE, NONE = "piece", {"none": True}


def recipe_to_toml(recipe: Recipe, known: Iterable[Callable] = ()) -> str:
    """Return a recipe as TOML; `known` are people's own classes and functions in it.

    Raises:
        TypeError: for what has no name here, such as a lambda, or is no data; it says where that sits.
    """
    return tomli_w.dumps(recipe_data(recipe, known))


def recipe_data(recipe: Recipe, known: Iterable[Callable] = ()) -> dict[str, object]:
    """Return what a recipe's TOML holds.

    Raises:
        TypeError: as `recipe_to_toml` does.
    """
    return _arguments(recipe, _names(known), "recipe")


def piece_data(piece: object) -> object:
    """Return a piece of a recipe as what its TOML holds.

    Raises:
        TypeError: as `recipe_to_toml` does.
    """
    return _plain(piece, _names(()), name_of(piece))


def piece_of(data: object, place: str) -> object:
    """Return the piece of what a TOML text holds at a place.

    Raises:
        TypeError, ValueError: as `recipe_from_toml` does.
    """
    return _made(data, _names(()), place)


def recipe_text(recipe: Recipe) -> str:
    """Return a recipe as TOML for people to read: whatever function it has is named, and what is no data stands as its digest."""
    return tomli_w.dumps(_arguments(recipe, None, "recipe"))


def recipe_from_toml(text: str, known: Iterable[Callable] = ()) -> Recipe:
    """Return the recipe that a TOML text describes; `known` are people's own classes and functions in it.

    Raises:
        ValueError: for what is no TOML, a piece that nobody knows, or an argument that it does not take; it names the place.
        TypeError, ValueError: for what a piece refuses.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"this is no recipe: {error}") from None
    return recipe_of(data, known)


def recipe_of(data: Mapping[str, object], known: Iterable[Callable] = ()) -> Recipe:
    """Return the recipe of what a TOML text holds; `method` names one of `METHODS` in the place of pieces, with its arguments.

    Raises:
        TypeError, ValueError: as `recipe_from_toml` does.
    """
    names = {**_names(known), "Recipe": Recipe}
    if "method" not in data:
        return _made({**data, PIECE: "Recipe"}, names, "recipe")
    name = data["method"]
    if name not in METHODS:
        raise ValueError(f"recipe.method: there is no method {name!r}{nearest(name, METHODS)}; docs/methods.md lists them")
    given = {key: _made(value, names, f"recipe.{key}") for key, value in data.items() if key != "method"}
    taken = inspect.signature(METHODS[name].make).parameters
    if unknown := sorted(given.keys() - taken.keys()):
        raise ValueError(f"recipe: {name} takes {', '.join(taken) or 'no arguments'}, not {', '.join(unknown)}")
    return METHODS[name].make(**given)


def nearest(name: object, known: Iterable[str]) -> str:
    """Return "; did you mean ...?" where a known name is near, else nothing."""
    found = difflib.get_close_matches(str(name), list(known), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


def _names(known: Iterable[Callable]) -> dict[str, Callable]:
    return _pieces() | {name_of(piece): piece for piece in known}


@cache
def _pieces() -> dict[str, Callable]:
    """Return the classes and functions that the library hands out to recipes, by name."""
    found: dict[str, Callable] = {}
    for name in MODULES:
        for value in vars(importlib.import_module(f"opsd_lab.{name}")).values():
            own = isinstance(value, type | FunctionType) and value.__module__.startswith("opsd_lab.")
            if own and not value.__name__.startswith("_"):
                found[value.__name__] = value
    return found


def _plain(value: object, names: Mapping[str, Callable] | None, place: str) -> object:
    if value is None:
        return dict(NONE)
    if type(value) in (bool, int, float, str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(entry, names, f"{place}[{i}]") for i, entry in enumerate(value)]
    if isinstance(value, dict):
        if PIECE in value or not all(isinstance(key, str) for key in value):
            if names is None:
                return {"digest": digest(value)}
            raise TypeError(f"{place}: a table's keys are texts, none of them {PIECE!r}")
        return {key: _plain(entry, names, f"{place}.{key}") for key, entry in value.items()}
    if isinstance(value, partial) and not value.args:
        given = {key: _plain(entry, names, f"{place}.{key}") for key, entry in value.keywords.items()}
        return {PIECE: _name(value.func, names, place), **given}
    if isinstance(value, type | FunctionType):
        return {PIECE: _name(value, names, place)}
    if is_dataclass(value):
        return {PIECE: _name(type(value), names, place), **_arguments(value, names, place)}
    if names is None:
        return {"digest": digest(value)}
    raise TypeError(f"{place} is {value!r}, which TOML cannot hold; make it a dataclass, a function, or a partial of one")


def _arguments(value: object, names: Mapping[str, Callable] | None, place: str) -> dict[str, object]:
    """Return the fields of a dataclass that are not as they are by default."""
    found: dict[str, object] = {}
    for field in fields(value):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        if field.init and ((own := getattr(value, field.name)) is not default) and own != default:
            told = names is not None or field.repr  # what a class does not print is long
            found[field.name] = _plain(own, names, f"{place}.{field.name}") if told else {"digest": digest(own)}
    return found


def _name(piece: Callable, names: Mapping[str, Callable] | None, place: str) -> str:
    if names is None:
        return name_of(piece)
    if names.get(name := name_of(piece)) is not piece:
        raise TypeError(f"{place}: {name} is none of the library's pieces; give it as one of `known`")
    return name


def _made(data: object, names: Mapping[str, Callable], place: str) -> object:
    if isinstance(data, list):
        return tuple(_made(entry, names, f"{place}[{i}]") for i, entry in enumerate(data))
    if not isinstance(data, dict):
        return data
    if data == NONE:
        return None
    found = {key: _made(value, names, f"{place}.{key}") for key, value in data.items() if key != PIECE}
    if PIECE not in data:
        return found
    name = data[PIECE]
    if not isinstance(name, str) or name not in names:
        raise ValueError(f"{place}: there is no piece {name!r}; known are {', '.join(sorted(names))}")
    piece = names[name]
    if isinstance(piece, FunctionType):
        return partial(piece, **found) if found else piece
    if is_dataclass(piece) and (unknown := sorted(found.keys() - {field.name for field in fields(piece) if field.init})):
        taken = ", ".join(field.name for field in fields(piece) if field.init)
        raise ValueError(f"{place}: {name} does not take {', '.join(unknown)}, but {taken}{nearest(unknown[0], taken.split(', '))}")
    return piece(**found)
