"""Atomic checkpoints, and resuming from them exactly.

A checkpoint is one safetensors file: what trains, the optimiser's moments, the teacher's own tensors; in its metadata the step, the
ledger, what the experiment is, and a digest of all this. All randomness of training derives from the seed and the step, so nothing
else is needed to go on as if nothing had happened.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from opsd_lab.basics.files import write_whole
from opsd_lab.basics.interrupts import deferred_interrupts
from opsd_lab.identity.digest import digest
from opsd_lab.identity.leaves import tensor_digest
from opsd_lab.identity.parts import Parts, differences, parts_of, policy_parts, versions
from opsd_lab.policies.policy import Policy
from opsd_lab.training.ledger import Ledger
from opsd_lab.training.trainer import Trainer

WRITTEN = ("step", "ledger", "states", "experiment")  # the metadata beside the digest of the whole


def experiment_parts(trainer: Trainer) -> Parts:
    """Return what a trainer's run depends on, part by part: its pieces, problems, prompts, initial policy and versions.

    What training changes is left out: the student's trainable weights, the teacher's and the optimiser's tensors.

    Raises:
        TypeError: when a piece cannot be identified; it names the piece and the remedy.
    """
    trainable = {p.data_ptr() for p in trainer.policy.trainable().values()}
    states = {value.data_ptr() for value in trainer.teacher.state().values()}
    known = {p.data_ptr() for p in trainer.policy.model.parameters()} | states
    pieces = {"training": trainer.params, "sampling": trainer.sampling, "objective": trainer.objective, "teacher": trainer.teacher}
    pieces |= {"source": trainer.source, "rewards": trainer.rewards, "gate": trainer.gate, "weights": trainer.weights}
    pieces |= {"marks": trainer.marks, "signals": trainer.signals} if trainer.marks or trainer.signals else {}
    if trainer.contexts.needs_rollout or trainer.at(1).contexts is not trainer.contexts:  # other views are known by what they showed
        pieces["views"] = dict(trainer.contexts.views)
    parts = {key: text for name, piece in pieces.items() for key, text in parts_of(name, piece, known).items()}
    prompts = {"problems": trainer.problems}
    prompts |= {"the student's prompts": [shown.student_ids for shown in trainer.prompts]}
    prompts |= {"the teacher's prompts": [dict(shown.teachers) for shown in trainer.prompts]}
    parts |= {name: f"#{digest(value, name)}" for name, value in prompts.items()}
    parts |= policy_parts(trainer.policy, "the model", trainable)
    return parts | {"the initial weights": f"#{trainer.initial_weights}"} | versions()


def save_checkpoint(trainer: Trainer, path: str | Path, experiment: Parts | None = None) -> None:
    """Write the trainer's state; an interruption leaves the previous file as it was.

    `experiment` is what `experiment_parts` returned of the same trainer, for those who save often.

    Raises:
        TypeError: when a piece of the experiment cannot be identified, so that nobody could tell whose checkpoint it is.
    """
    tensors = {name: value.contiguous() for name, value in _state(trainer).items()}
    states = json.dumps(list(trainer.states.values()))
    written = [str(trainer.step), json.dumps(asdict(trainer.ledger)), states, json.dumps(experiment or experiment_parts(trainer))]
    metadata = dict(zip(WRITTEN, written, strict=True))
    metadata["content"] = _content(tensors, metadata)
    write_whole(path, lambda partial: save_file(tensors, partial, metadata))


def load_checkpoint(trainer: Trainer, path: str | Path, experiment: Parts | None = None) -> None:
    """Put a trainer that was built like the saved one into the saved state; where that fails, the trainer stays as it was.

    `experiment` is what `experiment_parts` returned of this trainer, where it is known already.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file is damaged, or belongs to another experiment; it names what differs.
        TypeError: when a piece of this trainer's experiment cannot be identified.
    """
    path = Path(path)
    tensors, metadata = _read(path)
    if other := differences(json.loads(metadata["experiment"]), experiment or experiment_parts(trainer)):
        raise ValueError(f"{path} belongs to another experiment: {other}; build the trainer as the saved one was")
    present = _state(trainer)
    mine = {name: value for name, value in present.items() if not name.startswith("optimizer/")}
    if wrong := [name for name, value in mine.items() if name not in tensors or tensors[name].shape != value.shape]:
        raise ValueError(f"{path}: {wrong[0]} is missing or has another shape; build the trainer as the saved one was")
    before = {name: value.clone() for name, value in present.items()}, trainer.step, trainer.ledger, list(trainer.states.values())
    with deferred_interrupts(points=False):
        try:
            ledger, states = Ledger(**json.loads(metadata["ledger"])), json.loads(metadata["states"])
            _put(trainer, tensors, int(metadata["step"]), ledger, states)
        except BaseException:
            _put(trainer, *before)
            raise


def load_weights(policy: Policy, path: str | Path) -> int:
    """Put a checkpoint's weights into what trains of a policy that was made as the saved one was; return the checkpoint's step.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file is damaged, or the policy, its initial weights among it, is another; it names what differs.
    """
    tensors, metadata = _read(Path(path))
    trainable = policy.trainable()
    parts = policy_parts(policy, "the model", {p.data_ptr() for p in trainable.values()})
    parts |= {"the initial weights": f"#{tensor_digest(trainable)}"}
    saved = json.loads(metadata["experiment"])
    if other := differences({name: saved.get(name) for name in parts}, parts):
        raise ValueError(f"{path} belongs to another model: {other}; make the policy as that of the run was made")
    with torch.no_grad():
        for name, p in trainable.items():
            p.copy_(tensors[f"policy/{name}"])
    return int(metadata["step"])


def _state(trainer: Trainer) -> dict[str, Tensor]:
    """Return all tensors that training changes, by name; the trainer's own, not copies."""
    tensors = {f"policy/{name}": p.detach() for name, p in trainer.policy.trainable().items()}
    tensors |= {f"teacher/{name}": value for name, value in trainer.teacher.state().items()}
    for index, moments in trainer.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": torch.as_tensor(value) for name, value in moments.items()}
    return tensors


def _put(trainer: Trainer, tensors: Mapping[str, Tensor], step: int, ledger: Ledger, states: list) -> None:
    groups: dict[str, dict[str, Tensor]] = {"policy": {}, "teacher": {}, "optimizer": {}}
    for name, value in tensors.items():
        kind, _, rest = name.partition("/")
        groups[kind][rest] = value
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in groups["optimizer"].items():
        index, _, kind = name.partition("/")
        moments.setdefault(int(index), {})[kind] = value
    trainer.teacher.load_state(groups["teacher"])
    with torch.no_grad():
        for name, p in trainer.policy.trainable().items():
            p.copy_(groups["policy"][name])
    trainer.optimizer.load_state_dict({"state": moments, "param_groups": trainer.optimizer.state_dict()["param_groups"]})
    trainer.step, trainer.ledger = step, ledger
    trainer.states = dict(zip(trainer.states, states, strict=True))
    trainer.sampler.update(trainer.policy)


def _content(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    return digest([tensor_digest(tensors), {name: metadata[name] for name in WRITTEN}])


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return a checkpoint's tensors and metadata, once its content is known to be what was written."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except Exception as error:  # each kind of damage has an error of its own
        raise ValueError(f"{path} is damaged, or no checkpoint: {error}") from None
    if missing := {*WRITTEN, "content"} - metadata.keys():
        raise ValueError(f"{path} is damaged, or no checkpoint of this version: its metadata lack {', '.join(sorted(missing))}")
    if metadata["content"] != _content(tensors, metadata):
        raise ValueError(f"{path} is damaged: its content is not what was written; go back to another checkpoint")
    return tensors, metadata
