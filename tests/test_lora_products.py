import contextlib
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from opsd_lab.policies.adapters import tuner_layers
from opsd_lab.policies.lora_products import _Gated, _Joined, joined_lora
from opsd_lab.policies.policy import Policy
from opsd_lab.scoring.forward import score_completions
from tests.adapters import lora, lora_config, shake, two_adapters, with_config
from tests.architectures import ARCHITECTURES
from tests.conftest import DEVICE, byte_tokenizer, tiny_policy

IDS = (torch.arange(60).view(3, 20) * 7 % 97).to(DEVICE)


def policy_of(name: str) -> Policy:
    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    model = ARCHITECTURES[name](len(tokenizer), tokenizer.eos_token_id)
    return Policy(name, model.to(DEVICE).eval(), tokenizer)


def numbers(policy: Policy, block: contextlib.AbstractContextManager) -> tuple[Tensor, list[Tensor], int]:
    """Return logits, gradients of what trains, and how many bytes beside the weights were kept for the backward pass."""
    policy.model.zero_grad()
    kept: dict[int, int] = {}
    weights = {parameter.data_ptr() for parameter in policy.model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        if (at := tensor.untyped_storage().data_ptr()) not in weights:
            kept[at] = tensor.untyped_storage().nbytes()
        return tensor

    with block, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = policy.causal_lm(input_ids=IDS, use_cache=False).logits
    logits.log_softmax(-1)[..., 3].sum().backward()
    return logits.detach(), [p.grad.clone() for p in policy.trainable().values()], sum(kept.values())


@pytest.mark.parametrize("name", ["Llama", "Qwen2", "Qwen3", "Mistral", "Gemma 3", "GPT-2"])
def test_the_joined_layers_give_the_same_numbers_and_gradients(name):
    policy = lora(policy_of(name))
    logits, gradients, kept = numbers(policy, contextlib.nullcontext())
    joined, found, less = numbers(policy, joined_lora(policy.causal_lm))
    torch.testing.assert_close(joined, logits, atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(found, gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5 * float(theirs.abs().max()), rtol=1e-4)
    gated = name in ("Llama", "Qwen2", "Qwen3")
    assert less < kept if gated else less <= kept
    assert not any("forward" in vars(module) for module in policy.model.modules())


@pytest.mark.parametrize("bias", [True, False])
def test_the_gradients_are_those_of_finite_differences_in_float64(bias):
    torch.manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, requires_grad=True)

    weight, b = random(5, 4).detach(), random(5).detach() if bias else None
    factors = random(2, 4), random(5, 2)
    assert torch.autograd.gradcheck(lambda x, *f: _Joined.apply(x, weight, b, *f, 1.7), (random(2, 3, 4), *factors))
    assert torch.autograd.gradcheck(
        lambda g, u, *f: _Gated.apply(g, u, weight, b, *f, 0.3), (random(2, 3, 4), random(2, 3, 4), *factors)
    )


@pytest.mark.parametrize("first", [True, False])
def test_what_needs_no_gradient_gets_none_and_the_rest_gets_its_own(first):
    policy = lora(tiny_policy())
    for name, parameter in policy.trainable().items():
        if ("lora_A" in name) == first:
            parameter.requires_grad = False
    _, gradients, _ = numbers(policy, contextlib.nullcontext())
    _, found, _ = numbers(policy, joined_lora(policy.causal_lm))
    assert len(found) == 14
    for ours, theirs in zip(found, gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


def unusual() -> Iterator[tuple[str, Policy]]:
    yield "half precision", Policy("half", lora(tiny_policy()).model.to(torch.bfloat16), byte_tokenizer())
    yield "two adapters", two_adapters(tiny_policy())
    yield "DoRA", lora(tiny_policy(), use_dora=True)
    yield "no adapter", tiny_policy()
    policy = shake(with_config(tiny_policy(), lora_config(lora_dropout=0.5)))
    policy.model.train()
    yield "dropout", policy
    policy = lora(tiny_policy())
    for layer in tuner_layers(policy.causal_lm).values():
        layer.get_base_layer().weight.requires_grad = True
    yield "layers that train", policy
    policy = lora(tiny_policy())
    policy.model.gradient_checkpointing_enable()
    yield "checkpointing", policy


@pytest.mark.parametrize(("name", "policy"), [*unusual()], ids=lambda value: value if isinstance(value, str) else "")
def test_what_cannot_be_joined_computes_as_ever(name, policy):
    torch.manual_seed(1)
    plain = policy.causal_lm(input_ids=IDS).logits
    torch.manual_seed(1)
    with joined_lora(policy.causal_lm):
        assert not any("forward" in vars(module) for module in policy.model.modules()), name
        assert torch.equal(policy.causal_lm(input_ids=IDS).logits, plain)


def test_hooks_on_an_adapters_parts_hear_of_every_pass():
    policy, heard = lora(tiny_policy()), []
    layer = policy.causal_lm.get_decoder().layers[0]
    layer.self_attn.q_proj.lora_A["default"].register_forward_hook(lambda *_: heard.append("lora"))
    layer.mlp.act_fn.register_forward_hook(lambda *_: heard.append("activation"))
    with joined_lora(policy.causal_lm):
        policy.causal_lm(input_ids=IDS)
    assert heard == ["lora", "activation"]


def test_under_autocast_the_layers_compute_as_ever():
    policy = lora(tiny_policy())
    with torch.autocast(DEVICE, torch.bfloat16):
        plain = policy.causal_lm(input_ids=IDS).logits
        with joined_lora(policy.causal_lm):
            assert torch.equal(policy.causal_lm(input_ids=IDS).logits, plain)


def test_an_interruption_leaves_the_layers_as_they_were():
    policy = lora(tiny_policy())
    with pytest.raises(KeyboardInterrupt), joined_lora(policy.causal_lm):
        raise KeyboardInterrupt
    assert not any("forward" in vars(module) for module in policy.model.modules())


def test_scoring_with_gradients_joins_them_and_without_does_not(monkeypatch):
    policy, calls = lora(tiny_policy()), []
    right = _Joined.forward
    monkeypatch.setattr(_Joined, "forward", lambda *inputs: calls.append(1) or right(*inputs))
    starts, mask = torch.tensor([4, 4, 4]).to(DEVICE), torch.ones(3, 16).bool().to(DEVICE)
    with torch.no_grad():
        score_completions(policy, IDS, starts, mask)
    assert not calls
    score_completions(policy, IDS, starts, mask)
    assert len(calls) == 12  # six of the seven layers of two blocks; the seventh is gated
