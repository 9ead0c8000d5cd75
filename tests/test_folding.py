import contextlib

import pytest
import torch

from opsd_lab.folding import folded_lora
from opsd_lab.policies import Policy, add_lora
from tests.conftest import tiny_policy

IDS = torch.arange(10)[None]


def logits(policy: Policy) -> torch.Tensor:
    with torch.no_grad():
        return policy.model(input_ids=IDS).logits


def trained_lora(dtype=torch.float32, **options):
    policy = add_lora(tiny_policy(), rank=4, **options)
    policy.causal_lm.to(dtype)
    for name, p in policy.trainable().items():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.3)
    return policy


def weights(policy):
    return [(p, p.data_ptr(), p.data.clone()) for p in policy.model.parameters()]


@pytest.mark.parametrize("transposed", [False, True])
def test_a_folded_lora_computes_the_same_without_its_own_products_and_leaves_the_very_weights(transposed):
    policy = trained_lora()
    before, whole = weights(policy), logits(policy)
    with policy.model.disable_adapter():
        assert (logits(policy) - whole).abs().max() > 0.1
    products = []
    for name, module in policy.model.named_modules():
        if "lora_A" in name and isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda *_: products.append(1))
    with folded_lora(policy, transposed=transposed):
        products.clear()
        torch.testing.assert_close(logits(policy), whole, atol=2e-5, rtol=1e-5)
        projection = policy.causal_lm.get_decoder().layers[0].mlp.up_proj.get_base_layer().weight
        assert projection.T.is_contiguous() == transposed
        assert not products
    with pytest.raises(KeyboardInterrupt), folded_lora(policy):
        raise KeyboardInterrupt
    assert all(p.data_ptr() == address and torch.equal(p.data, data) for p, address, data in before)
    assert torch.equal(logits(policy), whole) and products


@pytest.mark.parametrize("kind", ["half precision", "tied head", "switched off", "no LoRA"])
def test_what_cannot_be_folded_exactly_computes_as_ever(kind):
    if kind == "no LoRA":
        policy = tiny_policy()
    else:
        targets = ["lm_head"] if kind == "tied head" else "all-linear"
        policy = trained_lora(torch.bfloat16 if kind == "half precision" else torch.float32, targets=targets)
    with policy.model.disable_adapter() if kind == "switched off" else contextlib.nullcontext():
        before, whole = weights(policy), logits(policy)
        with folded_lora(policy):
            assert all(p.data_ptr() == address for p, address, _ in before)
            assert torch.equal(logits(policy), whole)
