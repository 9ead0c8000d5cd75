"""Finished micro-batches of a long scoring, kept in a folder so that an interruption loses one of them at most."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from opsd_lab.batching import Example
from opsd_lab.files import write_whole
from opsd_lab.policies import Policy
from opsd_lab.teachers import Teacher


class ScoreParts:
    """The parts of one scoring: number -> view -> column -> values [n].

    Raises:
        ValueError: when the folder holds the parts of another scoring.
    """

    def __init__(self, folder: str | Path, of: str) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        note = self.folder / "scoring.json"
        if note.exists() and json.loads(note.read_text())["fingerprint"] != of:
            raise ValueError(
                f"{self.folder} holds parts of another scoring (other weights, rollouts, views, objective or limits); "
                "name another folder, or delete this one"
            )
        write_whole(note, json.dumps({"fingerprint": of}) + "\n")

    def load(self, number: int) -> dict[str, dict[str, Tensor]] | None:
        """Return a finished part, or None."""
        path = self._path(number)
        if not path.exists():
            return None
        part: dict[str, dict[str, Tensor]] = {}
        for name, values in load_file(path).items():
            view, column = name.rsplit("/", 1)
            part.setdefault(view, {})[column] = values
        return part

    def save(self, number: int, part: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Keep a finished part; it is there whole or not at all."""
        path = self._path(number)
        tensors = {f"{view}/{name}": values.contiguous() for view, columns in part.items() for name, values in columns.items()}
        write_whole(path, lambda partial: save_file(tensors, partial))

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:06d}.safetensors"


def fingerprint(
    policy: Policy,
    teacher: Teacher,
    student: Teacher | None,
    objective: object,
    views: Mapping[str, Sequence[Example]],
    limits: tuple[int, ...],
) -> str:
    """Return a digest of all that the numbers of a scoring depend on; weights count by the sums of their tensors."""
    weights = {name: p.detach().double().sum().item() for name, p in policy.model.named_parameters()}
    others = [
        (type(one).__name__, [value.double().sum().item() for value in one.state().values()]) for one in (teacher, student) if one
    ]
    digest = hashlib.sha256(json.dumps([policy.name, weights, others, described(objective), limits]).encode())
    for name, examples in views.items():
        digest.update(name.encode())
        for example in examples:
            digest.update(repr((example.pair, example.rollout.completion_ids, example.scored)).encode())
    return digest.hexdigest()


def described(value: object) -> str:
    """Return a text that is the same for equal compositions of dataclasses, containers and functions in every process.

    A function counts by its name and by what it encloses, not by its code.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return f"{type(value).__name__}({', '.join(f'{f.name}={described(getattr(value, f.name))}' for f in fields(value))})"
    if isinstance(value, partial):
        return f"{described(value.func)}({described(value.args)}, {described(value.keywords)})"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key!r}: {described(entry)}' for key, entry in value.items())}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(described, value))}]"
    if enclosed := getattr(value, "__closure__", None):
        return f"{value.__name__}({', '.join(described(cell.cell_contents) for cell in enclosed)})"
    return getattr(value, "__name__", None) or repr(value)
