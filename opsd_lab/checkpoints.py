"""Atomic checkpoints, and resuming from them exactly.

A checkpoint is one safetensors file: what trains, the optimiser's moments, the teacher's own tensors; the step and the ledger
are in its metadata. All randomness of training derives from the seed and the step, so nothing else is needed to go on as if
nothing had happened.
"""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from opsd_lab.files import write_whole
from opsd_lab.ledger import Ledger
from opsd_lab.trainer import Trainer


def save_checkpoint(trainer: Trainer, path: Path) -> None:
    """Write the trainer's state; an interruption leaves the previous file as it was."""
    tensors = {f"policy/{name}": p.detach() for name, p in trainer.policy.trainable().items()}
    tensors |= {f"teacher/{name}": value for name, value in trainer.teacher.state().items()}
    for index, moments in trainer.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": torch.as_tensor(value) for name, value in moments.items()}
    metadata = {"step": str(trainer.step), "ledger": json.dumps(asdict(trainer.ledger)), "params": json.dumps(asdict(trainer.params))}
    tensors = {name: value.contiguous() for name, value in tensors.items()}
    write_whole(path, lambda partial: save_file(tensors, partial, metadata))


def load_checkpoint(trainer: Trainer, path: Path) -> None:
    """Put a trainer that was built like the saved one into the saved state.

    Raises:
        ValueError: when the checkpoint belongs to other training parameters or to a policy with other trainable parameters.
    """
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    saved, present = json.loads(metadata["params"]), asdict(trainer.params)
    if changed := sorted(k for k in present if saved.get(k) != present[k]):
        raise ValueError(f"{path}: written with other training parameters: {', '.join(f'{k} = {saved.get(k)!r}' for k in changed)}")
    groups: dict[str, dict[str, torch.Tensor]] = {"policy": {}, "teacher": {}, "optimizer": {}}
    for name, value in tensors.items():
        kind, rest = name.split("/", 1)
        groups[kind][rest] = value
    trainable = trainer.policy.trainable()
    if trainable.keys() != groups["policy"].keys():
        other = sorted(trainable.keys() ^ groups["policy"].keys())
        raise ValueError(f"{path}: the policy has other trainable parameters, such as {other[:3]}; build it as the saved one was")
    trainer.teacher.load_state(groups["teacher"])
    with torch.no_grad():
        for name, p in trainable.items():
            p.copy_(groups["policy"][name])
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in groups["optimizer"].items():
        index, kind = name.split("/")
        moments.setdefault(int(index), {})[kind] = value
    trainer.optimizer.load_state_dict({"state": moments, "param_groups": trainer.optimizer.state_dict()["param_groups"]})
    trainer.step, trainer.ledger = int(metadata["step"]), Ledger(**json.loads(metadata["ledger"]))
    trainer.sampler.update(trainer.policy)
