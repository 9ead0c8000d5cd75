"""The policy's present weights as files, for an engine that has weights of its own."""

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from peft import PeftModel
from safetensors.torch import save_file

from opsd_lab import embedded
from opsd_lab.policies import Policy, folded_lora, has_fresh_lora


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
            ValueError: when something trains that is neither in the LoRA nor part of a plain model.
        """
        self._version += 1
        if has_fresh_lora(policy):
            return Exported(self._version, None)
        folder = self._next_folder()
        if isinstance(policy.model, PeftModel):
            if others := [name for name in policy.trainable() if "lora_" not in name]:
                raise ValueError(f"{policy.name}: {others[0]} trains beside the LoRA, which the engine's adapters cannot hold")
            # Embeddings do not train here; looking for them would ask the model hub.
            policy.model.save_pretrained(folder, save_embedding_layers=False)
        else:
            policy.model.save_pretrained(folder)
        return Exported(self._version, folder)

    def write_folded(self, policy: Policy) -> Exported:
        """Write the whole model with its LoRA folded into the weights."""
        self._version += 1
        folder = self._next_folder()
        folder.mkdir()
        tied = bool(policy.causal_lm.config.get_text_config().tie_word_embeddings)
        with folded_lora(policy):
            weights = {name.replace(".base_layer.", "."): value for name, value in policy.causal_lm.state_dict().items()}
            chosen = {name: v for name, v in weights.items() if "lora_" not in name and not (tied and name == "lm_head.weight")}
            save_file(chosen, folder / "model.safetensors", metadata={"format": "pt"})
        policy.causal_lm.config.save_pretrained(folder)
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
    """Return the folder or hub id from which an engine loads the model that the policy was loaded from."""
    return str(embedded.fetch()) if policy.name == embedded.NAME else policy.name
