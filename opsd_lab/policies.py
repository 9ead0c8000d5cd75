"""The model: loading it, and its LoRA."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from opsd_lab import embedded
from opsd_lab.architecture import ContextLimit, context_limit

LORA_TARGETS = "all-linear"


@dataclass(frozen=True)
class Policy:
    """A causal language model with its tokenizer.

    `model` is the transformers model, wrapped by peft where it has a LoRA.

    Raises:
        ValueError: when neither the tokenizer nor the generation config names an end-of-sequence token.
    """

    name: str
    model: PreTrainedModel | PeftModel
    tokenizer: PreTrainedTokenizerBase

    def __post_init__(self) -> None:
        if not self.eos_ids:
            raise ValueError(f"{self.name}: no end-of-sequence token, so no completion could end; set tokenizer.eos_token")

    @property
    def causal_lm(self) -> PreTrainedModel:
        """The transformers model under the LoRA, with the LoRA's layers in place."""
        return self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Every token id that ends a completion."""
        configured = getattr(self.causal_lm.generation_config, "eos_token_id", None)
        ids = configured if isinstance(configured, list) else [configured]
        return tuple(dict.fromkeys(i for i in [*ids, self.tokenizer.eos_token_id] if i is not None))

    @property
    def pad_id(self) -> int:
        """The id that fills padding; any will do, since masks come from lengths."""
        return self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.eos_ids[0]

    @property
    def context_length(self) -> int:
        """The longest sequence that may be computed, in tokens; `UNLIMITED` where the model has no longest position."""
        return self.context_limit.tokens

    @property
    def context_limit(self) -> ContextLimit:
        """The longest sequence whose numbers depend on nothing but itself, and why no longer one."""
        return context_limit(self.causal_lm.config)

    @property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        return self.causal_lm.device

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return the parameters that training changes, by name."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}


def load_policy(name: str | Path = embedded.NAME, *, dtype: str | torch.dtype = "auto", device: str | None = None) -> Policy:
    """Load a policy by hub id, by local folder, or the embedded default.

    `dtype` "auto" keeps the checkpoint's own, which is bfloat16 for most; on an x86 processor without AMX it is float32 instead,
    since such a processor multiplies float32 faster. `device` None takes CUDA where there is one.

    Raises:
        FileNotFoundError, CorruptModelError: for the embedded model, see `opsd_lab.embedded`.
        OSError: from transformers, when the name is neither a folder nor reachable on the hub.
    """
    source = embedded.fetch() if name == embedded.NAME else name
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype)
    if dtype == "auto" and model.dtype == torch.bfloat16 and place.type == "cpu" and not multiplies_bfloat16():
        model = model.float()
    return Policy(str(name), model.to(place).eval(), tokenizer)


def multiplies_bfloat16() -> bool:
    """Tell whether this processor multiplies bfloat16 matrices faster than float32 ones; where torch cannot tell, take it to.

    On x86 processors that takes AMX. With avx512_bf16 alone, 1,600 tokens through a layer of SmolLM2 (576 to 1,536) ran at 143 GF/s
    in bfloat16 and at 248 in float32, on two cores of an Intel Xeon with torch 2.13.
    """
    abilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}  # torch 2.11 has it not
    known = abilities.get("architecture") == "x86_64"
    return not known or bool(abilities.get("amx_bf16"))


def add_lora(policy: Policy, *, rank: int = 16, alpha: int = 32, seed: int = 0, targets: str | list[str] = LORA_TARGETS) -> Policy:
    """Return the policy with a fresh LoRA on its linear layers; only the LoRA trains.

    A fresh LoRA changes nothing yet (its B matrices are zero), so the policy with the LoRA off is the initial policy. The
    same seed gives the same A matrices. The model given is wrapped, not copied.

    Raises:
        ValueError: when the policy has a LoRA already.
    """
    if isinstance(policy.model, PeftModel):
        raise ValueError(f"{policy.name} has a LoRA already; load the policy anew for a fresh one")
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, lora_dropout=0.0, task_type="CAUSAL_LM")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = get_peft_model(policy.model, config)
    return Policy(policy.name, model.eval(), policy.tokenizer)


def has_fresh_lora(policy: Policy) -> bool:
    """Tell whether the policy has a LoRA that changes nothing yet (all B matrices zero) and trains nothing else."""
    trainable = policy.trainable()
    b_matrices = [p for name, p in trainable.items() if "lora_B" in name]
    only_lora = all("lora_" in name for name in trainable)
    return bool(b_matrices) and only_lora and not any(p.any() for p in b_matrices)


@contextmanager
def folded_lora(policy: Policy, *, transposed: bool = False) -> Iterator[None]:
    """Compute with W + B A in place of each weight W inside the block, where that changes nothing but float32 rounding.

    A LoRA's own products cost more than their share where few tokens are computed at a time. The weights afterwards are the very
    ones from before. In half precision the sum would be rounded, so that another policy would sample; there, and for anything but
    a single LoRA on plain linear layers of the trunk, the block computes as ever. `transposed` lays the sums out in memory column
    by column, in which no file takes them: 16 rows through the weights of SmolLM2 then took 51 ms instead of 68, on two cores of an
    Intel Xeon with torch 2.13.
    """
    if not (layers := _foldable_layers(policy)):
        yield
        return
    weights = [layer.get_base_layer().weight for layer in layers]
    kept = [weight.data for weight in weights]
    try:
        with torch.no_grad():
            for layer, weight in zip(layers, weights, strict=True):
                folded = weight.new_empty(weight.shape[::-1]).T if transposed else torch.empty_like(weight)
                weight.data = torch.add(weight.data, layer.get_delta_weight("default"), out=folded)
        with policy.model.disable_adapter():
            yield
    finally:
        for weight, data in zip(weights, kept, strict=True):
            weight.data = data


def can_fold_lora(policy: Policy) -> bool:
    """Tell whether `folded_lora` folds anything."""
    return bool(_foldable_layers(policy))


def _foldable_layers(policy: Policy) -> list[LoraLinear]:
    """Return all layers with a LoRA, or none unless every one can be folded."""
    layers = [module for module in policy.model.modules() if isinstance(module, BaseTunerLayer)]
    ends = policy.causal_lm.get_input_embeddings(), policy.causal_lm.get_output_embeddings()
    tied = {parameter.data_ptr() for end in ends for parameter in end.parameters()}
    for layer in layers:
        if type(layer) is not LoraLinear or layer.active_adapters != ["default"] or layer.disable_adapters:
            return []
        weight = layer.get_base_layer().weight
        if weight.dtype != torch.float32 or weight.data_ptr() in tied:
            return []
    return layers
