"""The model: loading it, and its LoRA."""

from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import cached_file
from transformers.utils.peft_utils import find_adapter_config_file

from opsd_lab.policies.adapters import active_adapters, adds_nothing, has_adapter, own_parameters, side_modules, tuner_layers
from opsd_lab.policies.architecture import ContextLimit, context_limit
from opsd_lab.policies.gguf_files import gguf_checkpoint, is_gguf
from opsd_lab.policies.packaged import NAME, PACKAGED, packaged_checkpoint

LORA_TARGETS = "all-linear"


@dataclass(frozen=True)
class Policy:
    """A causal language model with its tokenizer.

    `name` is what messages and pages call it, and nothing else. `model` is the transformers model, with or without peft's wrapper
    around it. It is put into evaluation mode, so that without dropout everyone who computes with it computes the same function.

    Raises:
        ValueError: when neither the tokenizer nor the generation config names an end-of-sequence token; for a tokenizer without a
            fast backend; for an adapter that acts outside the model's layers.
        TypeError: when the model is neither a transformers model nor one wrapped by peft.
    """

    name: str
    model: PreTrainedModel | PeftModel
    tokenizer: PreTrainedTokenizerBase

    def __post_init__(self) -> None:
        if getattr(self.tokenizer, "backend_tokenizer", None) is None:
            raise ValueError(
                f"{self.name}: its tokenizer ({type(self.tokenizer).__name__}) has no fast backend, which tells each token's text; "
                "save it with a tokenizer.json (transformers converts most), or take a model that has one"
            )
        _check_wrapper(self.name, self.model)
        if not self.eos_ids:
            raise ValueError(f"{self.name}: no end-of-sequence token, so no completion could end; set tokenizer.eos_token")
        self.model.eval()

    @property
    def causal_lm(self) -> PreTrainedModel:
        """The transformers model under the LoRA, with the LoRA's layers in place."""
        return self.model if isinstance(self.model, PreTrainedModel) else self.model.get_base_model()

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

    def ensure_evaluation_mode(self) -> None:
        """Put the model into evaluation mode, if anything has been put into training mode since the policy was made."""
        if any(module.training for module in self.model.modules()):
            self.model.eval()

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return the parameters that training changes, by name."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}


def _check_wrapper(name: str, model: nn.Module) -> None:
    """Refuse a model whose layers alone do not compute what it computes as a whole."""
    if not isinstance(model, (PreTrainedModel, PeftModel)):
        raise TypeError(
            f"{name}: a {type(model).__name__} is no model of transformers, nor one wrapped by peft; give the model inside"
        )
    for adapter, config in getattr(model, "peft_config", {}).items():
        kind = str(getattr(config.peft_type, "value", config.peft_type))
        if config.is_prompt_learning or kind in ("XLORA", "POLY") or getattr(config, "alora_invocation_tokens", None):
            raise ValueError(
                f"{name}: its adapter {adapter!r} ({kind}) acts outside the model's layers, so that scoring and sampling would "
                "lose it; use an adapter on layers, such as add_lora's"
            )


class _Given:
    """Stands where a policy's model was before `add_lora` took it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, *inputs: object, **options: object) -> None:
        self.__getattr__("forward")

    def __getattr__(self, attribute: str) -> object:
        raise ValueError(
            f"{self._name}: this policy's model was given to add_lora and carries its LoRA now; use the policy that add_lora "
            "returned. For the model without the LoRA, load it once more"
        )


NAME_THE_BASE = "write its folder or hub id into base_model_name_or_path of adapter_config.json"


def load_policy(name: str | Path = NAME, *, dtype: str | torch.dtype = "auto", device: str | None = None) -> Policy:
    """Load a policy by hub id, by local folder, by GGUF file, or one of the packaged models, such as the default.

    A GGUF file is a path or "owner/repository/file.gguf" on a hub; see `opsd_lab.policies.gguf_files`.

    A hub id or folder of a LoRA gives the model that the LoRA was trained on, as its `adapter_config.json` names it, with that LoRA,
    which trains on. Then the policy's name is the model's.

    `dtype` "auto" keeps the checkpoint's own, which is bfloat16 for most; on an x86 processor without AMX it is float32 instead,
    since such a processor multiplies float32 faster. `device` None takes CUDA where there is one.

    Raises:
        FileNotFoundError, CorruptModelError: for a packaged model and a GGUF file, see `packaged` and `gguf_files`.
        OSError: from transformers, when the name is neither a folder nor reachable on the hub.
        ValueError: when a LoRA does not name the model that it belongs to, or that is not to be found; and for a device that is not
            there.
    """
    source = checkpoint_of(name)
    if find_adapter_config_file(str(source)) is not None:
        return _load_adapter(str(source), dtype=dtype, device=device)
    place = usable_device(device)
    # False, not left out: transformers would ask at the terminal whether to run the code.
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, trust_remote_code=False)
    if dtype == "auto" and model.dtype == torch.bfloat16 and place.type == "cpu" and not multiplies_bfloat16():
        model = model.float()
    return Policy(str(name), model.to(place), tokenizer)


def usable_device(name: str | None) -> torch.device:
    """Return a device by its name; None is CUDA where there is one, and else the processor.

    Raises:
        ValueError: for a device that is not there.
    """
    try:
        return torch.empty(0, device=name or ("cuda" if torch.cuda.is_available() else "cpu")).device
    except (RuntimeError, AssertionError) as error:  # the latter from a torch without CUDA
        raise ValueError(f"the device {name!r} cannot be used: {str(error).splitlines()[0]}; take another, such as 'cpu'") from None


def checkpoint_of(name: str | Path) -> str | Path:
    """Return the folder or hub id from which transformers loads a model's name; a packaged model's and a GGUF file's is in the cache.

    Raises:
        FileNotFoundError, CorruptModelError, OSError, ValueError: as `packaged_checkpoint` and `gguf_checkpoint` do.
    """
    if str(name) in PACKAGED:
        return packaged_checkpoint(str(name))
    return gguf_checkpoint(name) if is_gguf(name) else name


def whole_model_of(name: str | Path) -> str | Path:
    """Return the folder or hub id of the whole model behind a name: a LoRA's is the model that it was trained on.

    Raises:
        FileNotFoundError, CorruptModelError, OSError, ValueError: as `load_policy` does.
    """
    source = checkpoint_of(name)
    return source if find_adapter_config_file(str(source)) is None else whole_model_of(_base_of(str(source)))


def _base_of(source: str) -> str:
    name = PeftConfig.from_pretrained(source).base_model_name_or_path
    if not name:
        raise ValueError(f"{source}: the adapter does not name the model that it was trained on; {NAME_THE_BASE}")
    return name


def _load_adapter(source: str, *, dtype: str | torch.dtype, device: str | None) -> Policy:
    name = _base_of(source)
    try:
        base = load_policy(name, dtype=dtype, device=device)
    except OSError as error:
        raise ValueError(f"{source}: the adapter's model {name!r} cannot be loaded ({error}); {NAME_THE_BASE}") from error
    model = PeftModel.from_pretrained(base.model, source, is_trainable=True)
    # Training code often saves the tokenizer beside the adapter, with a chat template of its own.
    own = cached_file(source, "tokenizer_config.json", _raise_exceptions_for_missing_entries=False)
    return Policy(base.name, model, AutoTokenizer.from_pretrained(source, trust_remote_code=False) if own else base.tokenizer)


def multiplies_bfloat16() -> bool:
    """Tell whether this processor multiplies bfloat16 matrices faster than float32 ones; where torch cannot tell, take it to.

    On x86 processors that takes AMX. With avx512_bf16 alone, 1,600 tokens through a layer of SmolLM2 (576 to 1,536) ran at 143 GF/s
    in bfloat16 and at 248 in float32, on two cores of an Intel Xeon with torch 2.13.
    """
    abilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}  # torch 2.11 has it not
    known = abilities.get("architecture") == "x86_64"
    return not known or bool(abilities.get("amx_bf16"))


def add_lora(policy: Policy, *, rank: int = 16, alpha: int = 32, seed: int = 0, targets: str | list[str] = LORA_TARGETS) -> Policy:
    """Return the policy with a fresh LoRA on its linear layers; only the LoRA trains, in float32.

    `rank` is the size that the A and B matrices share, and `alpha` / `rank` is what their product is multiplied by. `targets` are the
    layers as peft names them; the default takes all linear ones but the output layer.

    A fresh LoRA changes nothing yet (its B matrices are zero), so the policy with the LoRA off is the initial policy. The
    same `seed` gives the same A matrices. The model given is wrapped, not copied: the policy that was given cannot be used any more.

    Raises:
        ValueError: when the policy has an adapter already.
    """
    if has_adapter(policy.model):
        raise ValueError(
            f"{policy.name} has a LoRA already, which trains on as it is. For a fresh one load the model anew; to keep what it has "
            "learned underneath, make it part of the weights first: Policy(name, policy.model.merge_and_unload(), tokenizer)"
        )
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, lora_dropout=0.0, task_type="CAUSAL_LM")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = get_peft_model(policy.model, config, autocast_adapter_dtype=True)
    object.__setattr__(policy, "model", _Given(policy.name))  # whoever kept it would take the student for the initial policy
    return Policy(policy.name, model, policy.tokenizer)


def has_fresh_lora(policy: Policy) -> bool:
    """Tell whether the policy has a LoRA that changes nothing yet, and trains nothing else.

    Only then is the policy with its adapters off the initial policy, whatever will have been trained.
    """
    layers = tuner_layers(policy.model).values()
    own = {id(p) for layer in layers for p in own_parameters(layer).values()}
    trainable = policy.trainable().values()
    only_lora = bool(trainable) and all(id(p) in own for p in trainable)
    return only_lora and not side_modules(policy.model) and all(adds_nothing(layer) for layer in layers)


def check_trainable(policy: Policy) -> None:
    """Make sure that something trains, and that what trains takes part in the model.

    Raises:
        ValueError: when every parameter is frozen, or when an adapter trains that is switched off, inactive or merged.
    """
    layers = tuner_layers(policy.model)
    if not policy.trainable():
        adapted = "its adapter is frozen; load it by load_policy, or by PeftModel.from_pretrained(..., is_trainable=True)"
        plain = "all its weights are frozen; add_lora(policy) gives it a LoRA, policy.model.requires_grad_(True) trains all weights"
        raise ValueError(f"{policy.name} has nothing to train: {adapted if layers else plain}")
    for name, layer in layers.items():
        active = [] if layer.merged else active_adapters(layer)
        for inner, parameter in own_parameters(layer).items():
            if parameter.requires_grad and not set(inner.split(".")) & set(active):
                state = "merged into the weights" if layer.merged else "switched off" if layer.disable_adapters else "not active"
                raise ValueError(f"{policy.name}: {name}.{inner} trains, but its adapter is {state}; make it active, or freeze it")
