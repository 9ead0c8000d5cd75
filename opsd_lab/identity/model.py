"""What models and tokenizers are, by content: plain data and digests of tensors' bytes."""

import json
import re
from collections.abc import Mapping, Set

from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from opsd_lab.identity.leaves import address, tensor_digest

# Where a model came from, and what wrote it: not what it computes.
ORIGIN = {
    "_name_or_path",
    "transformers_version",
    "_commit_hash",
    "base_model_name_or_path",
    "revision",
    "auto_mapping",
    "peft_version",
}
ORIGIN |= {"inference_mode", "dtype", "torch_dtype"}


def model_data(model: nn.Module, skipped: Set[int] = frozenset()) -> dict[str, object]:
    """Return what a model computes with: architecture, precision, weights, and its adapters apart.

    Tensors that lie at the addresses `skipped` count by name, shape and dtype only. A layer counts by its class, its settings by what
    it prints of them.
    """
    config = model.config.to_dict() if hasattr(model, "config") else {}
    layers = {name: module for name, module in model.named_modules() if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper)}
    inside = tuple(f"{name}.{attribute}.".lstrip(".") for name, layer in layers.items() for attribute in _adapter_attributes(layer))
    tensors = model.state_dict() | dict(model.named_buffers())
    ours = {name for name in tensors if name.startswith(inside)} if inside else set()
    return {
        "architecture": {
            "config": {key: value for key, value in config.items() if key not in ORIGIN},
            "attention": getattr(getattr(model, "config", None), "_attn_implementation", None),
            "layers": [(name, f"{type(m).__module__}.{type(m).__qualname__}", _settings(m)) for name, m in model.named_modules()],
            "training": any(module.training for module in model.modules()),
        },
        "precision": sorted({str(value.dtype) for name, value in tensors.items() if name not in ours and value.is_floating_point()}),
        "weights": _contents({name: value for name, value in tensors.items() if name not in ours}, skipped),
        "adapter": None
        if not layers
        else {
            "configs": {name: _without_origin(config) for name, config in getattr(model, "peft_config", {}).items()},
            "state": {name: _adapter_state(layer) for name, layer in layers.items()},
            "weights": _contents({name: tensors[name] for name in ours}, skipped),
        },
    }


def tokenizer_data(tokenizer: PreTrainedTokenizerBase) -> dict[str, object]:
    """Return what a tokenizer makes tokens and prompts with; padding and truncation, which calls set, are left out."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        rules: object = [type(tokenizer).__qualname__, tokenizer.get_vocab()]
    else:
        rules = {key: value for key, value in json.loads(backend.to_str()).items() if key not in ("padding", "truncation")}
    return {"rules": json.dumps(rules, sort_keys=True), "special": tokenizer.special_tokens_map, "template": tokenizer.chat_template}


def _settings(module: nn.Module) -> str:
    # Containers print their children, which have lines of their own; an adapter's configs say more than it prints.
    printed = "" if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper) else module.extra_repr()
    return re.sub(r" at 0x[0-9a-fA-F]+", "", printed)


def _adapter_attributes(layer: nn.Module) -> list[str]:
    return [*layer.adapter_layer_names, *layer.other_param_names]


def _adapter_state(layer: nn.Module) -> dict[str, object]:
    found = {name: getattr(layer, name, None) for name in ("disable_adapters", "active_adapters", "merged_adapters", "scaling")}
    return {name: dict(value) if isinstance(value, Mapping) else value for name, value in found.items()}


def _without_origin(config: object) -> dict[str, object]:
    return {key: value for key, value in config.to_dict().items() if key not in ORIGIN}


def _contents(tensors: Mapping[str, Tensor], skipped: Set[int]) -> list[object]:
    shapes = [(name, str(value.dtype), tuple(value.shape)) for name, value in sorted(tensors.items())]
    return [shapes, tensor_digest({name: value for name, value in tensors.items() if address(value) not in skipped})]
