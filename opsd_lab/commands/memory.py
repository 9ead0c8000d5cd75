"""How much memory a plan needs, told from shapes before a model is loaded, and how much there is."""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from opsd_lab.policies.policy import multiplies_bfloat16, whole_model_of
from opsd_lab.runs.building import SANDBOX, named_model
from opsd_lab.runs.plan import Plan

GIB = 2**30
ADAM = 12  # bytes of a trained number beside its weight: gradient and both moments, in float32


@dataclass(frozen=True)
class Need:
    """What a run needs at least, in bytes: the weights, what trains of them beside, and the logits of one micro-batch."""

    weights: int
    training: int
    logits: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.training + self.logits


def needed(plan: Plan, config: PretrainedConfig) -> Need:
    """Return the least that a plan needs, from the shapes of its model."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    numbers = sum(p.numel() for p in model.parameters())
    dtype = getattr(config, "dtype", None) or torch.float32
    if plan.model.dtype != "auto":
        dtype = getattr(torch, plan.model.dtype)
    elif dtype == torch.bfloat16 and plan.model.device != "cuda" and not torch.cuda.is_available() and not multiplies_bfloat16():
        dtype = torch.float32
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    lora = sum(plan.model.rank * (m.in_features + m.out_features) for m in linear)
    trained = numbers if plan.model.trains == "all" else lora
    tokens = 256  # the loss takes the vocabulary a few tokens at a time
    vocabulary = getattr(config.get_text_config(), "vocab_size", 0)
    copies = 4 * lora if plan.model.trains == "lora" else 0
    return Need(numbers * dtype.itemsize + copies, trained * ADAM, tokens * vocabulary * 4 * 3)


def available(device: str) -> int:
    """Return the bytes that are free on a device, as far as the system and its limits say."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info()[0]
    known = []
    for line in Path("/proc/meminfo").read_text().splitlines() if Path("/proc/meminfo").exists() else ():
        if line.startswith("MemAvailable:"):
            known.append(int(line.split()[1]) * 1024)
    limit, used = (Path(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if limit.exists() and used.exists() and (text := limit.read_text().strip()).isdigit():
        known.append(int(text) - int(used.read_text()))
    return min(known, default=2**62)


def check_memory(plan: Plan) -> None:
    """Make sure, before the model is loaded, that its weights and what trains of them fit.

    Raises:
        ValueError: when they do not; it says what is needed, what there is, and the remedies.
        OSError: when the model is not to be found.
    """
    if plan.model.name == SANDBOX:
        return
    with named_model(plan.model.name):
        need = needed(plan, AutoConfig.from_pretrained(whole_model_of(plan.model.name), trust_remote_code=False))
    device = plan.model.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if need.total > (there := available(device)):
        raise ValueError(
            f"{plan.model.name} needs at least {need.total / GIB:.1f} GiB here ({need.weights / GIB:.1f} of weights, "
            f"{need.training / GIB:.1f} to train them), and {there / GIB:.1f} are free on {device}; take a smaller model, "
            "model.dtype=bfloat16, model.trains=lora, or a larger machine"
        )
