"""The files that engines load hold the function that the policy computes, or are refused."""

import json

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from opsd_lab.policies import packaged
from opsd_lab.policies.adapters import has_adapter
from opsd_lab.policies.policy import Policy, load_policy
from opsd_lab.rollouts.exported import WeightFolders, base_weights, lora_rank
from tests.adapters import ADAPTERS, MORE_ADAPTERS, lora
from tests.conftest import tiny_policy
from tests.test_adapter_agreement import base, few

ALL = ADAPTERS | MORE_ADAPTERS
# What cannot become part of the weights of a model whose head is tied to the embeddings, and why.
NOT_FOLDED = {
    "modules_to_save head": "one matrix",
    "modules_to_save embeddings": "one matrix",
    "trainable tokens": "one matrix",
    "lora on the head": "cannot be folded",
    "lora on the embeddings": "cannot be folded",
    "ia3": "cannot be folded",
    "loha": "cannot be folded",
}
NOT_AN_ADAPTER = {
    "dora": "no plain LoRA",
    "two doras": "no plain LoRA",
    "dora with dropout": "no plain LoRA",
    "lora bias": "no plain LoRA",
    "lora on the embeddings": "no plain LoRA",
    "ia3": "no plain LoRA",
    "loha": "no plain LoRA",
    "modules_to_save head": "trained copy",
    "modules_to_save norm": "trained copy",
    "modules_to_save embeddings": "trained copy",
    "trainable tokens": "trained copy",
    "bias all": "bias trains beside the LoRA",
    "bias lora_only": "bias trains beside the LoRA",
    "pissa": "changed the weights below it",
}


@pytest.fixture
def folders(tmp_path):
    made = WeightFolders(tmp_path)
    yield made
    made.close()


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(1, 12)[None], use_cache=False).logits


@pytest.mark.parametrize("name", ALL)
def test_a_folded_model_on_disk_computes_as_the_policy_or_is_refused_with_the_reason(name, folders):
    policy = ALL[name](base())
    tensors = [(p, p.data_ptr(), p.detach().clone()) for p in policy.model.parameters()]
    if name in NOT_FOLDED:
        with pytest.raises(ValueError, match=f"{NOT_FOLDED[name]}.*HFSampler"):
            folders.write_folded(policy)
    else:
        found = AutoModelForCausalLM.from_pretrained(folders.write_folded(policy).folder)
        torch.testing.assert_close(logits(found), few(policy), atol=1e-4, rtol=1e-5)
    assert all(p.data_ptr() == place and torch.equal(p, data) for p, place, data in tensors)


def test_an_untied_model_is_folded_with_its_trained_head(folders):
    policy = ADAPTERS["modules_to_save head"](base(tied=False))
    found = AutoModelForCausalLM.from_pretrained(folders.write_folded(policy).folder)
    torch.testing.assert_close(logits(found), few(policy), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("name", [name for name in ALL if name not in ("all weights", "lora from disk")])
def test_an_adapter_on_disk_computes_as_the_policy_or_is_refused_with_the_reason(name, folders):
    policy = ALL[name](base())
    if name in NOT_AN_ADAPTER:
        with pytest.raises(ValueError, match=f"{NOT_AN_ADAPTER[name]}.*HFSampler"):
            folders.write(policy)
        return
    folder = folders.write(policy).folder
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["r"] == config["lora_alpha"] == lora_rank(policy)
    found = PeftModel.from_pretrained(base().model, folder)
    torch.testing.assert_close(logits(found), few(policy), atol=1e-4, rtol=1e-5)


def test_the_engine_loads_the_model_that_a_loras_policy_was_loaded_from():
    policy = ADAPTERS["lora from disk"](base())
    assert has_adapter(policy.model) and base_weights(policy) == policy.causal_lm.name_or_path == policy.name


def test_an_engine_is_not_sent_to_load_a_model_by_the_label_of_its_policy():
    loaded = load_policy()
    assert base_weights(Policy("a label", loaded.model, loaded.tokenizer)) == str(packaged.fetch())
    with pytest.raises(ValueError, match=r"loaded from nowhere.*save_pretrained"):
        base_weights(tiny_policy())


def test_half_precision_is_not_folded_since_it_would_round(folders):
    policy: Policy = lora(base(torch.bfloat16))
    with pytest.raises(ValueError, match=r"bfloat16 Linear.*cannot be folded.*handover='adapter'"):
        folders.write_folded(policy)
