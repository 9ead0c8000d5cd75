import pytest
import torch

from opsd_lab.policies.policy import Policy
from opsd_lab.scoring.forward import score_completions
from tests.adapters import lora
from tests.conftest import DEVICE, tiny_policy

IDS, STARTS, MASK = torch.arange(20)[None].to(DEVICE), torch.tensor([4]).to(DEVICE), torch.ones(1, 16).bool().to(DEVICE)


def gradients(policy: Policy) -> list[torch.Tensor]:
    policy.model.zero_grad()
    score_completions(policy, IDS, STARTS, MASK).logits().log_softmax(-1)[:, 3].sum().backward()
    return [p.grad.clone() for p in policy.trainable().values()]


def counted(policy: Policy) -> list[bool]:
    """Note, at each pass through a layer, whether the layer or anything in it is in training mode."""
    passes, layer = [], policy.causal_lm.get_decoder().layers[0]
    layer.mlp.register_forward_hook(lambda *_: passes.append(any(m.training for m in layer.modules())))
    return passes


def test_checkpointed_layers_are_computed_twice_and_give_the_same_gradients_without_dropout():
    policy = lora(tiny_policy(), lora_dropout=0.5)
    policy.model.double()  # so that what differs is not how a processor rounds the same sums at another place in memory
    passes, plain = counted(policy), gradients(policy)
    assert passes == [False]
    policy.model.gradient_checkpointing_enable()
    passes.clear()
    for kept, recomputed in zip(plain, gradients(policy), strict=True):
        torch.testing.assert_close(recomputed, kept, atol=1e-12, rtol=1e-9)
    assert passes == [False, False] and not any(module.training for module in policy.model.modules())


def test_without_gradients_nothing_is_computed_twice():
    policy = tiny_policy()
    policy.model.gradient_checkpointing_enable()
    passes = counted(policy)
    with torch.no_grad():
        score_completions(policy, IDS, STARTS, MASK)
    assert passes == [False]


def test_checkpointing_that_would_not_act_or_would_lose_gradients_is_refused():
    policy = lora(tiny_policy())
    policy.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})
    with pytest.raises(ValueError, match="use_reentrant': False"):
        score_completions(policy, IDS, STARTS, MASK)
    policy.model.gradient_checkpointing_disable()
    policy.causal_lm.get_decoder().gradient_checkpointing = True
    with pytest.raises(ValueError, match=r"gradient_checkpointing_disable.*token_budget"):
        score_completions(policy, IDS, STARTS, MASK)
