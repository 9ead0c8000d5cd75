"""Ways to adapt a model that people use, each by name: a function that takes a policy and returns one with other logits.

`ADAPTERS` are those that every architecture is tried with; `MORE_ADAPTERS` are tried on Llama-like models with tied embeddings.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from peft import IA3Config, LoHaConfig, LoraConfig, PeftConfig, get_peft_model

from opsd_lab.policies.policy import Policy, add_lora, load_policy
from tests.conftest import DEVICE

Adapt = Callable[[Policy], Policy]


def shake(policy: Policy, amount: float = 0.1, seed: int = 0) -> Policy:
    """Change everything that trains, as training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter.add_(amount * torch.randn(parameter.shape, generator=generator).to(parameter))
    return policy


def with_config(policy: Policy, config: PeftConfig, **options: str) -> Policy:
    """Wrap the policy's model by peft, as users do who bring a model of their own."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Policy(policy.name, get_peft_model(policy.model, config, **options), policy.tokenizer)


def lora_config(**options: object) -> LoraConfig:
    return LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | options)


def lora(policy: Policy, **options: object) -> Policy:
    return shake(with_config(policy, lora_config(**options)))


def module_name(policy: Policy, module: torch.nn.Module) -> str:
    return next(name for name, found in policy.model.named_modules() if found is module)


def head_name(policy: Policy) -> str:
    return module_name(policy, policy.causal_lm.get_output_embeddings())


def trained_head(policy: Policy) -> Policy:
    return lora(policy, modules_to_save=[head_name(policy)])


def two_adapters(policy: Policy) -> Policy:
    """Two LoRAs at once, of different ranks and scales."""
    policy = lora(policy)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        policy.model.add_adapter("second", lora_config(r=2, lora_alpha=1))
        policy.model.base_model.set_adapter(["default", "second"])
    return shake(policy, seed=1)


def from_disk(policy: Policy) -> Policy:
    """A LoRA that was trained, saved, and loaded by the folder of its adapter."""
    with tempfile.TemporaryDirectory() as folder:
        base, adapter = Path(folder) / "base", Path(folder) / "adapter"
        policy.model.save_pretrained(base)
        policy.tokenizer.save_pretrained(base)
        plain = load_policy(base, dtype=policy.causal_lm.dtype, device=DEVICE)
        shake(add_lora(plain, rank=4, alpha=8)).model.save_pretrained(adapter)
        return load_policy(adapter, dtype=policy.causal_lm.dtype, device=DEVICE)


ADAPTERS: dict[str, Adapt] = {
    "all weights": partial(shake, amount=0.02),
    "lora": lora,
    "rslora": partial(lora, use_rslora=True),
    "dora": partial(lora, use_dora=True),
    "lora bias": partial(lora, lora_bias=True),
    "modules_to_save head": trained_head,
    "lora from disk": from_disk,
    "two adapters": two_adapters,
}


def in_a_plain_model(policy: Policy) -> Policy:
    """A LoRA that transformers put into the model, without peft's wrapper."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        policy.model.add_adapter(lora_config())
    return shake(policy)


def merged(policy: Policy) -> Policy:
    policy = lora(policy)
    policy.model.merge_adapter()
    return policy


def two_doras(policy: Policy) -> Policy:
    policy = lora(policy, use_dora=True)
    policy.model.add_adapter("second", lora_config(r=2, use_dora=True))
    policy.model.base_model.set_adapter(["default", "second"])
    return shake(policy, seed=1)


MORE_ADAPTERS: dict[str, Adapt] = {
    "another name": lambda policy: shake(with_config(policy, lora_config(), adapter_name="mine")),
    "bias all": partial(lora, bias="all"),
    "bias lora_only": partial(lora, bias="lora_only"),
    "dropout": partial(lora, lora_dropout=0.3),
    "dora with dropout": partial(lora, use_dora=True, lora_dropout=0.3),
    "two doras": two_doras,
    "ranks and scales of their own": partial(lora, rank_pattern={"q_proj": 2}, alpha_pattern={"v_proj": 1}),
    "pissa": partial(lora, init_lora_weights="pissa"),
    "modules_to_save norm": partial(lora, modules_to_save=["norm"]),
    "modules_to_save embeddings": partial(lora, modules_to_save=["embed_tokens"]),
    "trainable tokens": partial(lora, trainable_token_indices=[3, 4, 5]),
    "lora on the head": partial(lora, target_modules=["q_proj", "lm_head"]),
    "lora on the embeddings": partial(lora, target_modules=["q_proj", "embed_tokens"]),
    "in a plain model": in_a_plain_model,
    "merged": merged,
    "ia3": lambda policy: shake(with_config(policy, IA3Config(task_type="CAUSAL_LM"))),
    "loha": lambda policy: shake(with_config(policy, LoHaConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "up_proj"]))),
}
