"""What a result depends on, part by part: each part's name with a text that is the same only for the same content.

Caches, studies and checkpoints keep these parts beside what they keep, and compare them before they hand it out; what differs is
named. A text is a plain value as it is written, or a name with a digest behind it.
"""

import re
import sys
from collections.abc import Mapping, Set
from importlib import metadata

import numpy as np
import peft
import torch
import transformers

from opsd_lab.identity.digest import attributes_of, digest
from opsd_lab.identity.model import model_data
from opsd_lab.policies.policy import Policy

Parts = dict[str, str]
DIGEST = re.compile(r"#[0-9a-f]{64}\Z")
SHOWN = 60  # characters of a plain value; longer ones count by their digest
LISTED = 8


def parts_of(name: str, value: object, skipped: Set[int] = frozenset()) -> Parts:
    """Return the parts of one value: its kind, and each of its attributes under `name.attribute`; a value without any is one part.

    Tensors at the addresses `skipped` count by dtype and shape only.

    Raises:
        TypeError: when something cannot be identified; see `opsd_lab.identity.digest.digest`.
    """
    attributes = attributes_of(value)
    if attributes is None:
        return {name: _text(value, name, skipped)}
    names = {key: f"{name}.{str(key).lstrip('_')}" for key in attributes}
    of_attributes = {names[key]: _text(entry, names[key], skipped) for key, entry in attributes.items()}
    return {name: f"{type(value).__qualname__}#{digest(type(value), name)}", **of_attributes}


def policy_parts(policy: Policy, name: str = "model", skipped: Set[int] = frozenset()) -> Parts:
    """Return the parts of a policy by content, with the weights that are in place.

    Tensors at the addresses `skipped` count by name, shape and dtype only.

    Raises:
        TypeError: when the bytes of a tensor cannot be read.
    """
    found = model_data(policy.model, skipped)
    adapters = (found["adapter"] or {}).get("configs", {})
    shown = {
        "precision": ", ".join(found["precision"]).replace("torch.", ""),
        "LoRA rank": ", ".join(str(config.get("r")) for config in adapters.values()),
        "LoRA alpha": ", ".join(str(config.get("lora_alpha")) for config in adapters.values()),
    }
    digests = {key: f"#{digest(found[key], key)}" for key in ("architecture", "weights", "adapter")}
    digests["tokenizer"] = f"#{digest((policy.tokenizer, policy.eos_ids))}"
    return {f"{name}'s {key}": text for key, text in (shown | digests).items()}


def versions() -> Parts:
    """Return the versions of what computes: Python and the libraries whose numbers a result has."""
    found = {"python": "{}.{}".format(*sys.version_info), "opsd_lab": _own_version()}
    found |= {library.__name__: library.__version__.partition("+")[0] for library in (torch, transformers, peft, np)}
    return {f"version of {name}": version for name, version in found.items()}


def differences(saved: Mapping[str, str], present: Mapping[str, str]) -> str:
    """Return what differs, in words, with both values where they can be shown: "training.seed (0 there, 9 here)"; "" for nothing."""
    names = [name for name in dict.fromkeys([*present, *saved]) if saved.get(name) != present.get(name)]
    told = []
    for name in names[:LISTED]:
        there, here = (_shown(parts.get(name)) for parts in (saved, present))
        told.append(f"{name} ({there} there, {here} here)" if there != here else name)
    return ", ".join(told) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")


def _text(value: object, name: str, skipped: Set[int]) -> str:
    if value is None or type(value) in (bool, int, float, str):
        text = repr(value)
        if len(text) <= SHOWN and not DIGEST.search(text):
            return text
    label = getattr(value, "__qualname__", "") or (type(value).__qualname__ if hasattr(value, "__dict__") else "")
    return f"{label}#{digest(value, name, skipped)}"


def _shown(text: str | None) -> str:
    return "nothing" if text is None else DIGEST.sub("", text) or "a content"


def _own_version() -> str:
    try:
        return metadata.version("opsd-lab")
    except metadata.PackageNotFoundError:  # used from a folder that is not installed
        return "not installed"
