"""A run before it is one: model, data, method and numbers, read from a TOML file, with changes from the command line."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import tomli_w

from opsd_lab.basics.options import one_of, whole
from opsd_lab.basics.schedules import Varying
from opsd_lab.contexts import ChatFormat
from opsd_lab.evaluation.outcomes import By
from opsd_lab.methods.recipe_files import PIECE, nearest, piece_data, piece_of, recipe_data, recipe_of
from opsd_lab.policies.packaged import NAME
from opsd_lab.policies.policy import LORA_TARGETS
from opsd_lab.rollouts import SamplingParams
from opsd_lab.runs.keep import Keep, Stop
from opsd_lab.training.recipes import Recipe
from opsd_lab.training.records import TrainingParams

SETTLED = {"training.batch_size": "rollouts and recipe.n", "training.seed": "seed", "sampling.n": "recipe.n", "sampling.seed": "seed"}
"""Numbers that follow from others of a plan."""
DTYPES = ("auto", "float32", "bfloat16", "float16")
Trains = Literal["lora", "all"]
Engine = Literal["transformers", "vllm"]


@dataclass(frozen=True)
class ModelPlan:
    """The student: a hub id, a folder, a GGUF file, a packaged model, or "sandbox"; what of it trains; where it runs.

    Raises:
        TypeError, ValueError: for a number or a word out of range; it names the field.
    """

    name: str = NAME
    dtype: str = "auto"
    device: str | None = None
    trains: Trains = "lora"
    rank: int = 16
    alpha: int = 32
    targets: str | list[str] = LORA_TARGETS
    engine: Engine = "transformers"

    def __post_init__(self) -> None:
        whole("model.rank", self.rank, least=1)
        whole("model.alpha", self.alpha, least=1)
        one_of("model.dtype", self.dtype, DTYPES)
        one_of("model.trains", self.trains, get_args(Trains))
        one_of("model.engine", self.engine, get_args(Engine))


@dataclass(frozen=True)
class DataPlan:
    """The problems to train on, those to validate on, and those to test on, each by a name that `open_problems` takes.

    "sandbox:sheet/train/2048" are worksheets. `columns` says which column holds which field, and `limit` how many rows are read at
    most. Without a set to validate on, `held_out` of the problems to train on, drawn by the seed, are kept from training for it.

    Raises:
        TypeError, ValueError: for a number of rows that is none, or a set to validate on beside problems that are held out.
    """

    train: str
    validation: str | None = None
    test: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    limit: int | None = None
    held_out: int = 0

    def __post_init__(self) -> None:
        if self.limit is not None:
            whole("data.limit", self.limit, least=1)
        whole("data.held_out", self.held_out, least=0)
        if self.held_out and self.validation is not None:
            raise ValueError("data.held_out is for where data.validation names no problems; leave one of them out")


GREEDY = {"temperature": 0.0, "n": 1}


@dataclass(frozen=True)
class ProbePlan:
    """How often accuracy is measured on the validation problems, on how many of them, and how answers are drawn and judged.

    `sampling` replaces what the plan says of sampling, beside one greedy answer, unless it says otherwise. `teacher` measures the
    teacher's accuracy too.

    Raises:
        TypeError, ValueError: for a number out of range; it names the field.
    """

    every: int = 10
    problems: int = 64
    sampling: dict[str, float] = field(default_factory=lambda: dict(GREEDY))
    by: By = "final"
    teacher: bool = True

    @property
    def drawn(self) -> dict[str, float]:
        """What `sampling` says, and that one greedy answer is drawn where it does not say how many and how."""
        return GREEDY | self.sampling

    def __post_init__(self) -> None:
        known = sorted({f.name for f in fields(SamplingParams)} - {"seed"})
        if unknown := [name for name in self.sampling if name not in known]:
            raise ValueError(f"probe.sampling: {unknown[0]!r} is none of {', '.join(known)}; the seed is the plan's")
        whole("probe.every", self.every, least=1)
        whole("probe.problems", self.problems, least=1)
        one_of("probe.by", self.by, get_args(By))


@dataclass(frozen=True)
class Plan:
    """All that a run is made of.

    `steps` optimiser steps of `rollouts` rollouts each, however many each problem gets (`recipe.n`). `seed` is that of the LoRA, of
    the order of problems and of sampling. `chat` is the format of both sides and of evaluation, unless
    `teacher_chat`, `evaluation_chat` or the recipe has another. `trackers` names what else is told each step's numbers, such as
    tensorboard; nobody is told anything by default.

    Raises:
        TypeError, ValueError: for a number out of range; it names the field.
    """

    data: DataPlan
    steps: int
    rollouts: int = 16
    seed: int = 0
    model: ModelPlan = field(default_factory=ModelPlan)
    recipe: Recipe = field(default_factory=Recipe)
    chat: ChatFormat = field(default_factory=ChatFormat)
    teacher_chat: ChatFormat | None = None
    evaluation_chat: ChatFormat | None = None
    sampling: SamplingParams = field(default_factory=lambda: SamplingParams(1024))
    training: TrainingParams = field(default_factory=lambda: TrainingParams(learning_rate=1e-4))
    probe: ProbePlan = field(default_factory=ProbePlan)
    keep: Keep = field(default_factory=Keep)
    stop: Stop | None = None
    trackers: list[str] = field(default_factory=list)

    @property
    def student_format(self) -> ChatFormat:
        """The student's format."""
        return self.recipe.student_chat or self.chat

    @property
    def teacher_format(self) -> ChatFormat:
        """The teacher's format."""
        return self.recipe.teacher_chat or self.teacher_chat or self.chat

    @property
    def evaluation_format(self) -> ChatFormat:
        """The format in which accuracy is measured."""
        return self.recipe.evaluation_chat or self.evaluation_chat or self.student_format

    def __post_init__(self) -> None:
        whole("steps", self.steps, least=1)
        whole("rollouts", self.rollouts, least=1)
        whole("seed", self.seed, least=0)


def plan_from_toml(text: str, changes: Sequence[str] = ()) -> Plan:
    """Return the plan that a TOML text describes, with `changes` such as "training.learning_rate=1e-4" put into it.

    Raises:
        TypeError, ValueError: for what is no TOML, an unknown key (the nearest known one is named), a value of another kind, or
            pieces that do not go together; it names the place.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"this is no TOML: {error}") from None
    for change in sorted(changes, key=lambda change: not change.startswith("recipe.method=")):  # it empties the recipe
        _change(data, change)
    return _section(Plan, data, "")


def plan_to_toml(plan: Plan) -> str:
    """Return a plan as TOML with all its numbers, those by default too; of the recipe what differs from OPSD's.

    Raises:
        TypeError: for a recipe with pieces that have no name.
    """
    return tomli_w.dumps(_data(plan, ""))


def _data(value: Any, place: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each in fields(value):
        held, where = getattr(value, each.name), f"{place}.{each.name}" if place else each.name
        if held is None or where in SETTLED or held == {}:  # TOML has no null; what is left out is by default
            continue
        if isinstance(held, Recipe):
            found[each.name] = recipe_data(held)
        elif isinstance(held, Varying):
            found[each.name] = piece_data(held)
        else:
            found[each.name] = _data(held, where) if is_dataclass(held) else dict(held) if isinstance(held, Mapping) else held
    return found


def _change(data: dict[str, Any], change: str) -> None:
    """Put one "a.b=value" into the data; a value that is no TOML is text."""
    key, mark, value = change.partition("=")
    if not mark or not all(key.split(".")):
        raise ValueError(f"{change!r} is no change; write it as training.learning_rate=1e-4")
    *path, last = key.split(".")
    if key == "recipe.method":  # another method takes the place of the file's pieces
        data["recipe"] = {}
    for part in path:
        data = data.setdefault(part, {})
        if not isinstance(data, dict):
            raise ValueError(f"{change!r}: {part} is a value, which holds no {last}")
    try:
        data[last] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        data[last] = value


def _section(kind: type, data: Mapping[str, Any], place: str) -> Any:
    if not isinstance(data, Mapping):
        raise TypeError(f"{place or 'the plan'} is {data!r}, not a table of values")
    if kind is Recipe:
        return recipe_of(data)
    hints, known = get_type_hints(kind), [each.name for each in fields(kind) if each.init]
    for name in data:
        where = f"{place}.{name}" if place else name
        if where in SETTLED:
            raise ValueError(f"{where} follows from {SETTLED[where]}; set those")
        if name not in known:
            raise ValueError(f"{where}: there is no such key{nearest(name, known)}; there are {', '.join(known)}")
    needed = [each.name for each in fields(kind) if each.default is MISSING and each.default_factory is MISSING]
    if missing := [name for name in needed if name not in data]:
        raise ValueError(f"{'.'.join(filter(None, (place, missing[0])))} is missing; it has no default")
    made = {name: _value(hints[name], value, f"{place}.{name}" if place else name) for name, value in data.items()}
    return kind(**made)


def _value(kind: Any, value: Any, place: str) -> Any:
    if isinstance(value, dict) and PIECE in value:
        return piece_of(value, place)
    kinds = get_args(kind) if isinstance(kind, UnionType) or get_origin(kind) is Union else (kind,)
    if of := [one for one in kinds if isinstance(one, type) and is_dataclass(one)]:
        return _section(of[0], value, place)
    plain = [get_origin(one) or one for one in kinds]
    for what, words in ((str, "text"), (bool, "true or false"), (dict, "a table")):
        if what in plain and not set(plain) - {what, type(None)} and not isinstance(value, what):
            raise TypeError(f"{place} is {value!r}; it takes {words}")
    return value
