"""Which adapters a model carries and what they do, read from its layers.

peft's wrapper is no witness: transformers puts an adapter from disk into a plain model, and a wrapper may hold adapters that are off.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import Tensor, nn

from opsd_lab.basics.interrupts import deferred_interrupts

SIDE = AuxiliaryTrainingWrapper  # a trained copy of a whole module (modules_to_save), or of some tokens' embeddings


def tuner_layers(model: nn.Module) -> dict[str, BaseTunerLayer]:
    """Return the layers that have adapters, active or not, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)}


def side_modules(model: nn.Module) -> dict[str, SIDE]:
    """Return the modules that are trained as copies beside the adapters, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, SIDE)}


def has_adapter(model: nn.Module) -> bool:
    """Tell whether any layer has an adapter, or any module a trained copy, active or not."""
    return any(isinstance(module, (BaseTunerLayer, SIDE)) for module in model.modules())


def own_parameters(layer: BaseTunerLayer) -> dict[str, nn.Parameter]:
    """Return the parameters that the layer adds to the one below it, by their name in the layer."""
    return {name: p for name, p in layer.named_parameters() if not name.startswith("base_layer.")}


def active_adapters(layer: BaseTunerLayer) -> list[str]:
    """Return the adapters that the layer computes with, in its own order; none where they are switched off."""
    if layer.disable_adapters:
        return []
    held = {key for name in layer.adapter_layer_names for key in getattr(layer, name)}
    return [adapter for adapter in (layer.merged_adapters or layer.active_adapters) if adapter in held]


def active_copy(side: SIDE) -> str | None:
    """Return the adapter whose trained copy computes in the module's place; None where the module itself does."""
    held = side._get_available_adapters()
    present = not side.disable_adapters and side.active_adapters and held.issuperset(side.active_adapters)
    return side.active_adapters[0] if present else None


def is_plain_lora(layer: BaseTunerLayer) -> bool:
    """Tell whether each of the layer's active adapters adds its scale times B A to the weight, and does nothing else."""
    return isinstance(layer, LoraLayer) and not any(
        adapter in layer.lora_variant or layer.lora_bias.get(adapter) for adapter in active_adapters(layer)
    )


def adds_nothing(layer: BaseTunerLayer) -> bool:
    """Tell whether the layer computes as without its adapters: plain LoRA of which one factor is zero."""
    if not is_plain_lora(layer) or layer.merged:
        return False
    return all(any(not factor.any() for factor in _factors(layer, adapter)) for adapter in active_adapters(layer))


def _factors(layer: LoraLayer, adapter: str) -> list[Tensor]:
    embedding = adapter in layer.lora_embedding_A
    first, second = (layer.lora_embedding_A, layer.lora_embedding_B) if embedding else (layer.lora_A, layer.lora_B)
    return [first[adapter], second[adapter]] if embedding else [first[adapter].weight, second[adapter].weight]


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """Compute without any adapter inside the block; what was off before stays off, and what trains is not touched.

    Ctrl-C is held back meanwhile (`opsd_lab.basics.interrupts`).
    """
    # peft's own switch makes every parameter of the active adapters trainable when it comes back on.
    layers = [m for m in model.modules() if isinstance(m, (BaseTunerLayer, SIDE)) and not m.disable_adapters]
    with deferred_interrupts():
        try:
            for layer in layers:
                layer._disable_adapters = True
            yield
        finally:
            for layer in layers:
                layer._disable_adapters = False
