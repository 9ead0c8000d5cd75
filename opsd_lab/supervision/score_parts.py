"""Finished micro-batches of a long scoring, kept in a folder so that an interruption loses one of them at most."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from opsd_lab.basics.files import write_whole
from opsd_lab.identity.digest import digest
from opsd_lab.identity.parts import Parts, differences, parts_of, policy_parts, versions
from opsd_lab.policies.policy import Policy
from opsd_lab.policies.teachers import Teacher, live_teacher
from opsd_lab.scoring.batching import Example

NOTE = "scoring.json"
LIMITS = ("top_k", "token_budget", "importance_cap", "micro_batches")
BETWEEN = "\n"  # stands in no name of a view or of a column


class ScoreParts:
    """The parts of one scoring: number -> view -> column -> values [n]; `of` says what its numbers depend on.

    Raises:
        ValueError: when the folder holds the parts of another scoring, or parts whose own note cannot be read; it names what differs.
    """

    def __init__(self, folder: str | Path, of: Parts) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        finished = any(self.folder.glob("part-*.safetensors"))
        known = _read(self.folder / NOTE)
        if finished and known is None:
            raise ValueError(
                f"{self.folder / NOTE} cannot be read, so nobody knows whose parts {self.folder} holds; delete the folder"
            )
        if known is not None and finished and (other := differences(known, of)):
            raise ValueError(f"{self.folder} holds parts of another scoring: {other}; name another folder, or delete this one")
        write_whole(self.folder / NOTE, json.dumps(of, indent=1) + "\n")

    def load(self, number: int) -> dict[str, dict[str, Tensor]] | None:
        """Return a finished part, or None.

        Raises:
            ValueError: when its file is damaged.
        """
        path = self._path(number)
        if not path.exists():
            return None
        try:
            tensors = load_file(path)
        except Exception as error:  # safetensors has an error of its own for each kind of damage
            raise ValueError(f"{path} is damaged ({error}); delete it, and it is computed again") from None
        part: dict[str, dict[str, Tensor]] = {}
        for name, values in tensors.items():
            view, column = name.split(BETWEEN)
            part.setdefault(view, {})[column] = values
        return part

    def save(self, number: int, part: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Keep a finished part; it is there whole or not at all."""
        # Copies: safetensors refuses tensors that share their memory, as the views' weights do.
        tensors = {f"{view}{BETWEEN}{name}": values.clone() for view, columns in part.items() for name, values in columns.items()}
        write_whole(self._path(number), lambda partial: save_file(tensors, partial))

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:06d}.safetensors"


def fingerprint(
    policy: Policy,
    teacher: Teacher,
    student: Teacher | None,
    objective: object,
    weights: object,
    views: Mapping[str, Sequence[Example]],
    limits: tuple[object, ...],
) -> Parts:
    """Return all that the numbers of a scoring depend on: both sides' weights by content, objective, tokens, limits, versions.

    `teacher` and `student` say whose weights each side has beside the `policy`; a `student` of None has the policy's present ones.
    `views` are each entry's examples by its name, `weights` what each token weighs. `limits` are the number of most probable tokens,
    the tokens of a micro-batch, which decide how sums are rounded, the importance cap, and which examples a micro-batch has.

    Raises:
        TypeError: when something cannot be identified.
    """
    parts: Parts = {}
    for side, whose in (("student", student or live_teacher()), ("teacher", teacher)):
        with whose.beside(policy) as theirs:
            known = {p.data_ptr() for p in [*theirs.model.parameters(), *policy.model.parameters(), *whose.state().values()]}
            parts |= parts_of(f"the {side}'s kind", whose, known) | policy_parts(theirs, f"the {side}")
    parts |= parts_of("objective", objective) | parts_of("weights", weights)
    first = next(iter(views.values()), ())
    facts = [[e.prompts.student_ids, e.rollout.completion_ids, e.rollout.logprobs, *e.facts.values()] for e in first]
    parts["rollouts"] = f"#{digest(facts)}"
    for name, examples in views.items():
        parts[f"view {name!r}"] = f"#{digest([dict(e.prompts.teachers) for e in examples])}"
    return parts | dict(zip(LIMITS, map(str, limits), strict=True)) | versions()


def _read(note: Path) -> Parts | None:
    """Return what a folder's note says; None where there is none, or one that a full disk cut short."""
    try:
        found = json.loads(note.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) and all(isinstance(text, str) for text in found.values()) else None
