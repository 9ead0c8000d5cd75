"""The policy's present weights as files, for an engine that has weights of its own."""

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from peft import LoraConfig
from peft.tuners.lora import LoraLayer, ParamWrapper
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import ModulesToSaveWrapper
from safetensors.torch import save_file
from torch import Tensor

from opsd_lab.policies.adapters import (
    active_adapters,
    active_copy,
    has_adapter,
    is_plain_lora,
    own_parameters,
    side_modules,
    tuner_layers,
)
from opsd_lab.policies.folding import folded_model
from opsd_lab.policies.policy import Policy, has_fresh_lora

KEEP_THE_BASE = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")  # ways to begin a LoRA that leave the weights below it alone


@dataclass(frozen=True)
class Exported:
    """One version of the weights: `folder` holds a LoRA adapter, or a whole model; None stands for the base model as it is."""

    version: int
    folder: Path | None


class WeightFolders:
    """Writes the policy's weights into temporary folders, each version into one of its own; the latest two are kept.

    All are deleted by `close`, or else when the process ends.

    `parent` is where they are made; None is the system's place for temporary files. Engines on other machines need one that
    they can read.
    """

    def __init__(self, parent: str | Path | None = None) -> None:
        if parent is not None:
            Path(parent).mkdir(parents=True, exist_ok=True)
        self._temporary = tempfile.TemporaryDirectory(prefix="opsd-lab-weights-", dir=parent, ignore_cleanup_errors=True)
        self._root = Path(self._temporary.name)
        self._folders: list[Path] = []
        self._version = 0

    def write(self, policy: Policy) -> Exported:
        """Write the present weights: nothing for a fresh LoRA, which changes nothing; the adapter for a LoRA; else the model.

        Raises:
            ValueError: when an adapter cannot hold what the policy computes; see `write_adapter`.
        """
        self._version += 1
        if has_fresh_lora(policy):
            return Exported(self._version, None)
        folder = self._next_folder()
        if has_adapter(policy.model):
            write_adapter(policy, folder)
        else:
            policy.model.save_pretrained(folder)
        return Exported(self._version, folder)

    def write_folded(self, policy: Policy) -> Exported:
        """Write the whole model with its adapters folded into the weights.

        Raises:
            ValueError: when they cannot be; see `folded_model`.
        """
        self._version += 1
        folder = self._next_folder()
        folded_model(policy).save_pretrained(folder)
        return Exported(self._version, folder)

    def _next_folder(self) -> Path:
        for old in self._folders[:-1]:
            shutil.rmtree(old, ignore_errors=True)
        self._folders = [*self._folders[-1:], self._root / f"version-{self._version}"]
        return self._folders[-1]

    def close(self) -> None:
        """Delete every folder."""
        self._temporary.cleanup()


def memory_folder(policy: Policy, place: Path = Path("/dev/shm")) -> Path | None:
    """Return a folder that is kept in memory and has room for four versions of the policy's weights, or None if there is none."""
    size = sum(p.numel() * p.element_size() for p in policy.model.parameters())
    if not (place.is_dir() and os.access(place, os.W_OK)) or shutil.disk_usage(place).free < 4 * size:
        return None
    return place


def base_weights(policy: Policy) -> str:
    """Return the folder or hub id from which an engine loads the model that the policy was loaded from.

    Raises:
        ValueError: when the policy's model was made in memory, so that there is none.
    """
    if not policy.causal_lm.name_or_path:
        raise ValueError(
            f"{policy.name}: its model was loaded from nowhere, so an engine cannot load it; save it with save_pretrained, and give "
            "the sampler that folder as `model`, or load the policy from there"
        )
    return policy.causal_lm.name_or_path


def write_adapter(policy: Policy, folder: Path) -> None:
    """Write the policy's LoRA as an adapter that every engine reads: of one rank, with its scale in B.

    Several LoRAs on a layer become one, and ranks and scales of their own go into the numbers, so that nothing is left to how an
    engine reads a configuration.

    Raises:
        ValueError: when something computes or trains that is no plain LoRA on a linear layer, or changed the weights below it.
    """
    layers = {name: layer for name, layer in tuner_layers(policy.causal_lm).items() if active_adapters(layer)}
    if beside := _beside_the_lora(policy, layers):
        remedy = "use VLLMSampler(handover='folded') in float32, or HFSampler"
        raise ValueError(f"{policy.name}: {beside}, which an engine's adapter cannot hold; {remedy}")
    pairs = {name: _one_lora(layer) for name, layer in layers.items()}
    rank = max(len(first) for first, _ in pairs.values())
    tensors: dict[str, Tensor] = {}
    for name, (first, second) in pairs.items():
        missing = rank - len(first)
        tensors[f"base_model.model.{name}.lora_A.weight"] = F.pad(first, (0, 0, 0, missing)).contiguous()
        tensors[f"base_model.model.{name}.lora_B.weight"] = F.pad(second, (0, missing)).contiguous()
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=sorted(layers), task_type="CAUSAL_LM", inference_mode=True)
    config.base_model_name_or_path = policy.causal_lm.name_or_path or policy.name
    config.save_pretrained(folder)


def _beside_the_lora(policy: Policy, layers: dict[str, BaseTunerLayer]) -> str | None:
    """Return what makes the policy another function than its base model with a LoRA; None if nothing does."""
    for name, side in side_modules(policy.causal_lm).items():
        if not isinstance(side, ModulesToSaveWrapper) or active_copy(side):
            return f"{name} is a trained copy (modules_to_save, trainable tokens)"
    for name, layer in layers.items():
        if not is_plain_lora(layer) or isinstance(layer, ParamWrapper) or not layer.lora_A.keys() >= set(active_adapters(layer)):
            return f"{name} has an adapter that is no plain LoRA on a linear layer (DoRA, a trained bias or another kind)"
    own = {id(p) for layer in layers.values() for p in own_parameters(layer).values()}
    for name, parameter in policy.trainable().items():
        if id(parameter) not in own:
            return f"{name} trains beside the LoRA"
    for adapter, config in getattr(policy.model, "peft_config", {}).items():
        start = getattr(config, "init_lora_weights", True)
        if isinstance(start, str) and start not in KEEP_THE_BASE:
            return f"adapter {adapter!r} changed the weights below it when it began (init_lora_weights={start!r})"
    return None


def _one_lora(layer: LoraLayer) -> tuple[Tensor, Tensor]:
    """Return float32 A [r, in] and B [out, r] with the sum of the layer's LoRAs as their product."""
    adapters = active_adapters(layer)
    first = [layer.lora_A[adapter].weight.detach().float() for adapter in adapters]
    second = [layer.lora_B[adapter].weight.detach().float() * layer.scaling[adapter] for adapter in adapters]
    return torch.cat(first), torch.cat(second, 1)


def lora_rank(policy: Policy) -> int:
    """Return the rank that `write_adapter` writes."""
    layers = [layer for layer in tuner_layers(policy.causal_lm).values() if isinstance(layer, LoraLayer)]
    return max(sum(layer.r.get(adapter, 0) for adapter in active_adapters(layer)) for layer in layers)
