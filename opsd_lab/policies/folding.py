"""A LoRA as part of the weights: for sampling, where its own products cost more than their share, and for engines."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from peft.tuners.lora import Linear as LoraLinear
from peft.utils.other import TrainableTokensWrapper
from torch import Tensor, nn
from transformers import PreTrainedModel

from opsd_lab.basics.interrupts import deferred_interrupts
from opsd_lab.policies.adapters import (
    active_adapters,
    active_copy,
    adapters_off,
    adds_nothing,
    is_plain_lora,
    side_modules,
    tuner_layers,
)
from opsd_lab.policies.policy import Policy
from opsd_lab.policies.weight_swaps import swapped

PROOF_TOKENS = 8
TOLERANCE = (
    1e-3  # nats: what float32 rounding may change in the proof's log-probabilities; 2.3e-4 was seen with SmolLM2 without AVX-512
)
SHOWN = 0.1  # nats: adapters that change the tokens by more would show a wrong fold

Folded = list[tuple[LoraLinear, dict[nn.Parameter, Tensor]]]


_PROVEN: WeakKeyDictionary[PreTrainedModel, tuple] = WeakKeyDictionary()  # which layers and adapters were found to fold


@contextmanager
def folded_lora(policy: Policy) -> Iterator[None]:
    """Compute with each LoRA as part of its layer's weights inside the block, where that changes nothing but float32 rounding.

    A LoRA's own products cost more than their share where few tokens are computed at a time. The weights afterwards are the very
    ones from before. Layers that cannot be folded exactly compute as ever beside those that can: half precision, in which the sum
    would be rounded; weights that several modules share; quantised layers; adapters other than LoRA. Whether the rest computes the
    same function is not taken for granted: the log-probabilities of a few tokens are computed with and without folding, and where
    they differ the block computes as ever. That is done at every call until the adapters change those tokens so much that a wrong
    fold would show, and then once for a model with the same adapters: three passes of 8 tokens, 0.2 s each with SmolLM2 on one core.
    """
    if not (layers := foldable_layers(policy)):
        yield
        return
    model, structure = policy.causal_lm, tuple((layer, is_plain_lora(layer), *active_adapters(layer)) for layer in layers)
    if _PROVEN.get(model) == structure or all(adds_nothing(layer) for layer in layers):
        with _in_place([(layer, _sums(layer)) for layer in layers]):
            yield
        return
    expected = _few_logprobs(policy)
    with adapters_off(nn.ModuleList(layers)):
        would_show = _distance(_few_logprobs(policy), expected) > SHOWN
    with _in_place([(layer, _sums(layer)) for layer in layers]):
        if _distance(_few_logprobs(policy), expected) <= TOLERANCE:
            if would_show:
                _PROVEN[model] = structure
            yield
            return
    yield


def foldable_layers(policy: Policy) -> list[LoraLinear]:
    """Return the layers whose LoRA can become part of float32 weights that no other module has."""
    holders: dict[int, int] = {}
    for module in policy.causal_lm.modules():
        for parameter in module.parameters(recurse=False):
            holders[parameter.data_ptr()] = holders.get(parameter.data_ptr(), 0) + 1
    return [
        layer
        for layer in tuner_layers(policy.causal_lm).values()
        if type(layer) is LoraLinear
        and active_adapters(layer)
        and not layer.merged
        and all(p.dtype == torch.float32 and holders[p.data_ptr()] == 1 for p in layer.get_base_layer().parameters())
        and _can_merge(layer)
    ]


def _can_merge(layer: LoraLinear) -> bool:
    """Tell whether peft can merge the layer's adapters: plain ones and DoRA, and a bias only where there is one to add it to."""
    adapters = active_adapters(layer)
    known = all(adapter not in layer.lora_variant or layer.use_dora[adapter] for adapter in adapters)
    return known and (layer.get_base_layer().bias is not None or not any(layer.lora_bias[adapter] for adapter in adapters))


@torch.no_grad()
def _sums(layer: LoraLinear) -> dict[nn.Parameter, Tensor]:
    """Return what each parameter of the layer's base becomes with the adapters in it."""
    base = layer.get_base_layer()
    if is_plain_lora(layer):
        weight = base.weight.data
        total = torch.empty_like(weight)
        for count, adapter in enumerate(active_adapters(layer)):
            torch.add(total if count else weight, layer.get_delta_weight(adapter), out=total)
        return {base.weight: total}
    kept = {parameter: parameter.data for parameter in base.parameters()}
    with deferred_interrupts(points=False):
        try:
            layer.merge(safe_merge=True)
            merged = {parameter: parameter.data for parameter in kept}
        except ValueError:  # peft refuses weights that are no numbers; whoever computes with them says so better
            merged = kept
        finally:
            layer.merged_adapters = []
            for parameter, data in kept.items():
                parameter.data = data
    return merged


@contextmanager
def _in_place(folded: Folded) -> Iterator[None]:
    """Put the sums in place of the weights inside the block, and tell those layers, and no others, to use them alone."""
    named = {f"{number}.{i}": pair for number, (_, sums) in enumerate(folded) for i, pair in enumerate(sums.items())}
    with swapped({name: p for name, (p, _) in named.items()}, {name: data for name, (_, data) in named.items()}):
        try:
            for layer, _ in folded:
                layer.merged_adapters = active_adapters(layer)
            yield
        finally:
            for layer, _ in folded:
                layer.merged_adapters = []


@torch.inference_mode()
def _few_logprobs(policy: Policy) -> Tensor:
    size = policy.causal_lm.config.get_text_config().vocab_size
    ids = torch.tensor([[policy.eos_ids[0], *range(min(PROOF_TOKENS - 1, size))]], device=policy.device)
    return policy.causal_lm(input_ids=ids, use_cache=False).logits.float().log_softmax(-1)


def _distance(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max())


def folded_model(policy: Policy) -> PreTrainedModel:
    """Return a model without adapters that computes as the policy does; it shares the weights that are not folded.

    Raises:
        ValueError: naming the first layer whose adapter cannot become part of its weights.
    """
    model = policy.causal_lm
    with folded_lora(policy):
        if reason := _unfolded(policy, folded=[]):
            raise ValueError(reason)
        state = _plain_state(model)
    with torch.device("meta"):
        bare = type(model)._from_config(copy.deepcopy(model.config), dtype=model.dtype)
    try:
        bare.load_state_dict(state, assign=True)
    except RuntimeError as error:  # a name or a shape that the plain model does not have
        raise ValueError(f"{policy.name}: its adapters do not fit into the plain model: {error}; sample with HFSampler") from error
    bare.generation_config = model.generation_config
    return bare


def unfoldable(policy: Policy) -> str | None:
    """Return why `folded_model` would refuse the policy as far as its layers show, or None if it would not."""
    return _unfolded(policy, foldable_layers(policy))


def _unfolded(policy: Policy, folded: list[LoraLinear]) -> str | None:
    """Return what computes beside the weights when the adapters of some layers are folded; None if nothing does."""
    remedy = "use handover='adapter' where an adapter can hold it, or HFSampler"
    sides = side_modules(policy.causal_lm)
    for name, layer in tuner_layers(policy.causal_lm).items():
        inside = layer in folded or layer.merged or any(name.startswith(f"{side}.") for side in sides)
        if active_adapters(layer) and not inside:
            base = layer.get_base_layer()
            kind = f"{type(layer).__name__} adapter on a {next(base.parameters()).dtype} {type(base).__name__}"
            return f"{policy.name}: the {kind} {name} cannot be folded into the weights exactly; {remedy}"
    tied = policy.causal_lm.config.get_text_config().tie_word_embeddings
    ends = policy.causal_lm.get_input_embeddings(), policy.causal_lm.get_output_embeddings()
    for name, side in sides.items():
        if tied and side in ends and active_copy(side):
            return f"{policy.name}: {name} has a trained copy, though embeddings and output layer are one matrix here; use HFSampler"
    return None


def _plain_state(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return the model's tensors under the names that they have without adapters; adapters are left out."""
    state = model.state_dict()
    for name, side in side_modules(model).items():
        held = {key: state.pop(key) for key in list(state) if key.startswith(f"{name}.")}
        if isinstance(side, TrainableTokensWrapper):
            state[f"{name}.weight"] = side.weight.detach()
            continue
        chosen = f"{name}.modules_to_save.{copy_name}." if (copy_name := active_copy(side)) else f"{name}.original_module."
        state |= {f"{name}.{key.removeprefix(chosen)}": value for key, value in held.items() if key.startswith(chosen)}
    for name in tuner_layers(model):
        for key in [key for key in state if key.startswith(f"{name}.") and not key.startswith(f"{name}.base_layer.")]:
            del state[key]
    return {".".join(part for part in key.split(".") if part != "base_layer"): value for key, value in state.items()}
