import contextlib

import pytest
import torch
from peft.tuners.lora import Linear as LoraLinear

from opsd_lab.policies.adapters import tuner_layers
from opsd_lab.policies.folding import folded_lora
from opsd_lab.policies.policy import Policy, add_lora
from tests.adapters import lora, lora_config
from tests.conftest import tiny_policy

IDS = torch.arange(10)[None]


def logits(policy: Policy) -> torch.Tensor:
    with torch.no_grad():
        return policy.model(input_ids=IDS.to(policy.device)).logits


def trained_lora(dtype=torch.float32, **options):
    policy = add_lora(tiny_policy(), rank=4, **options)
    policy.causal_lm.to(dtype)
    for name, p in policy.trainable().items():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.3)
    return policy


def weights(policy):
    return [(p, p.data_ptr(), p.data.clone()) for p in policy.model.parameters()]


def test_a_folded_lora_computes_the_same_without_its_own_products_and_leaves_the_very_weights():
    policy = trained_lora()
    before, whole = weights(policy), logits(policy)
    with policy.model.disable_adapter():
        assert (logits(policy) - whole).abs().max() > 0.1
    products = []
    for name, module in policy.model.named_modules():
        if "lora_A" in name and isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda *_: products.append(1))
    with folded_lora(policy):
        products.clear()
        torch.testing.assert_close(logits(policy), whole, atol=2e-5, rtol=1e-5)
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


def test_a_fold_that_computes_another_function_is_found_and_not_used(monkeypatch):
    policy = trained_lora()
    whole, right = logits(policy), LoraLinear.get_delta_weight
    monkeypatch.setattr(LoraLinear, "get_delta_weight", lambda layer, adapter: 0.9 * right(layer, adapter))
    before = weights(policy)
    with folded_lora(policy):
        assert torch.equal(logits(policy), whole)
        assert all(p.data_ptr() == address for p, address, _ in before)


def test_a_fold_is_tried_out_until_a_wrong_one_would_show_and_then_no_more(monkeypatch):
    policy, passes = add_lora(tiny_policy(), rank=4), []
    policy.causal_lm.register_forward_hook(lambda *_: passes.append(1))

    def passes_of_a_fold() -> int:
        passes.clear()
        with folded_lora(policy):
            return len(passes)

    assert passes_of_a_fold() == 0  # fresh: the sums are the weights
    for p in policy.trainable().values():
        p.data += 1e-5
    assert passes_of_a_fold() == passes_of_a_fold() == 3
    for p in policy.trainable().values():
        p.data += 0.1
    assert [passes_of_a_fold() for _ in range(3)] == [3, 0, 0]
    policy.model.add_adapter("second", lora_config())
    policy.model.base_model.set_adapter(["default", "second"])
    assert passes_of_a_fold() == 3


def test_only_the_layers_that_were_folded_leave_their_adapters_out():
    policy = lora(tiny_policy(), target_modules=["q_proj", "lm_head", "embed_tokens"], modules_to_save=["norm"])
    whole = logits(policy)
    with folded_lora(policy):
        assert [name for name, layer in tuner_layers(policy.model).items() if layer.merged] == [
            f"base_model.model.model.layers.{i}.self_attn.q_proj" for i in range(2)
        ]
        torch.testing.assert_close(logits(policy), whole, atol=2e-5, rtol=1e-5)
    assert not any(layer.merged for layer in tuner_layers(policy.model).values())
