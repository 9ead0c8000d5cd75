"""How many operations one token takes in each kind of layer, or that nobody here knows."""

from collections.abc import Iterator
from dataclasses import dataclass

from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from torch import nn
from transformers import PreTrainedConfig
from transformers.pytorch_utils import Conv1D

# What the layers that read a block's input are called: with a frozen embedding their gradient by it is left out.
READS_INPUT = (
    "q_proj",
    "k_proj",
    "v_proj",
    "qkv_proj",
    "c_attn",
    "query_key_value",
    "Wqkv",
    "q_a_proj",
    "kv_a_proj_with_mqa",
    "in_proj",
)
ACTIVE_EXPERTS = ("num_experts_per_tok", "moe_topk", "moe_k", "num_experts_per_token")


class UncountableError(NotImplementedError):
    """A layer whose operations cannot be told from its shapes."""


@dataclass(frozen=True)
class LayerCost:
    """Operations of one layer for one token: its own weights', its adapters', and what of both trains or reads the block's input."""

    own: int
    adapters: int = 0
    trained: int = 0
    reading: int = 0


def layer_costs(trunk: nn.Module, config: PreTrainedConfig) -> Iterator[LayerCost]:
    """Yield the cost of each layer with weights of its own; one that the model uses twice comes twice.

    Raises:
        UncountableError: when a layer's operations cannot be told; it names the layer's class.
    """
    inside: set[nn.Module] = set()
    for name, module in trunk.named_modules(remove_duplicate=False):
        if module in inside:
            continue
        parts = name.split(".")
        reading = "0" in parts and parts[-1] in READS_INPUT
        if isinstance(module, ModulesToSaveWrapper):
            chosen = [
                adapter for adapter in module.active_adapters if adapter in module.modules_to_save and not module.disable_adapters
            ]
            unused = [module.original_module] if chosen else [module.modules_to_save]
            inside.update(inner for part in unused for inner in part.modules())
        elif isinstance(module, BaseTunerLayer):
            inside.update(module.modules())
            yield _adapted(module, config, reading)
        elif (size := _own(module, config)) is not None:
            trains = any(parameter.requires_grad for parameter in module.parameters(recurse=False) if parameter.ndim > 1)
            yield LayerCost(size, 0, size * trains, size * reading)


def _adapted(module: BaseTunerLayer, config: PreTrainedConfig, reading: bool) -> LayerCost:
    base = module.get_base_layer()
    active = [] if module.disable_adapters or module.merged else list(module.active_adapters)
    plain = isinstance(base, (nn.Linear, Conv1D, nn.Embedding)) and isinstance(module, LoraLayer)
    if active and (not plain or any(name in getattr(module, "lora_variant", {}) for name in active)):
        variant = next((type(v).__name__ for n, v in getattr(module, "lora_variant", {}).items() if n in active), "")
        raise UncountableError(f"{type(module).__name__} {variant} on {type(base).__name__}".replace("  ", " "))
    size, inner, outer = _own(base, config) or 0, 0, 0
    for name in active:
        for factors, is_inner in ((module.lora_A, True), (module.lora_B, False)):
            if name in factors:
                products = 2 * factors[name].weight.numel()
                inner, outer = inner + products * is_inner, outer + products * (not is_inner)
        if name in module.lora_embedding_B:
            outer += 2 * module.lora_embedding_B[name].numel()
    trained = sum(
        2 * p.numel()
        for n, p in module.named_parameters()
        if p.requires_grad and p.ndim > 1 and any(f".{a}" in f".{n}" for a in active)
    )
    trained += size * any(p.requires_grad for p in base.parameters() if p.ndim > 1)
    return LayerCost(size, inner + outer, trained, (size + inner) * reading)


def _own(module: nn.Module, config: PreTrainedConfig) -> int | None:
    """Return the operations of a layer's own weights for one token, or None for a layer that multiplies no matrices."""
    if isinstance(module, nn.Linear):
        return 2 * module.in_features * module.out_features
    if isinstance(module, (Conv1D, nn.Conv1d)):
        return 2 * module.weight.numel()
    if isinstance(module, nn.Embedding):
        return None
    matrices = [parameter for parameter in module.parameters(recurse=False) if parameter.ndim > 1]
    kind = type(module).__name__
    if hasattr(module, "ssm_state_size") and hasattr(module, "intermediate_size"):  # Mamba: state in and out, channel by channel
        return 4 * module.intermediate_size * module.ssm_state_size
    if hasattr(module, "num_v_heads") and hasattr(module, "head_k_dim"):  # the delta rule: read, write, read again
        return 6 * module.num_v_heads * module.head_k_dim * module.head_v_dim
    if not matrices:
        return None
    if kind.endswith("Router"):
        return sum(2 * matrix.numel() for matrix in matrices)
    if kind.endswith("Experts"):
        chosen = next((count for name in ACTIVE_EXPERTS if (count := getattr(config, name, None))), None)
        if chosen and kind != "JetMoeParallelExperts":
            return sum(2 * matrix[0].numel() * chosen for matrix in matrices if matrix.ndim == 3)
    raise UncountableError(kind)


def pair_cost(trunk: nn.Module, config: PreTrainedConfig) -> int:
    """Return the operations of attention between one query and one key, all layers: the scores and the values.

    Raises:
        UncountableError: when some layer mixes tokens neither by attention nor by a recurrent state or a convolution.
    """
    total, by_layer = 0, getattr(config, "per_layer_config", None)
    for blocks in (module for module in trunk.children() if isinstance(module, nn.ModuleList)):
        for index, block in enumerate(blocks):
            inner = [module for _, module in block.named_modules(remove_duplicate=False)]
            attends = [module for module in inner if type(module).__name__.endswith(("Attention", "SdpaAttention"))]
            total += _pair(by_layer[index] if by_layer else config) if attends else 0
            mixes = attends or any(
                hasattr(m, "ssm_state_size") or hasattr(m, "num_v_heads") or isinstance(m, nn.Conv1d) for m in inner
            )
            if not mixes and len(inner) > 1:
                raise UncountableError(type(block).__name__)
    return total


def _pair(config: PreTrainedConfig) -> int:
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    if rotated := getattr(config, "qk_rope_head_dim", None):  # DeepSeek's keys are longer than its values
        return 2 * heads * (config.qk_nope_head_dim + rotated + config.v_head_dim)
    return 4 * heads * (getattr(config, "attention_head_dim", None) or width)
