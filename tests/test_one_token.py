"""The pass of one new token: the model's own numbers for every form of its layers, and no use where somebody changed a layer."""

import pytest
import torch
import transformers as tf

from opsd_lab.policies.policy import Policy
from opsd_lab.rollouts import decoding, one_token
from opsd_lab.rollouts.decoding import CachedSteps, OneTokenSteps, steps_for
from tests.architectures import build, of, small
from tests.conftest import DEVICE, byte_tokenizer

PROMPTS = [[30, 31, 32, 33], [40, 41], [50, 51, 52, 53, 54, 55], [40, 41]]
FORMS = {
    "Llama": (tf.LlamaConfig, tf.LlamaForCausalLM, {}),
    "Llama with biases": (tf.LlamaConfig, tf.LlamaForCausalLM, {"attention_bias": True, "mlp_bias": True}),
    "Llama, a key for every head": (tf.LlamaConfig, tf.LlamaForCausalLM, {"num_key_value_heads": 4}),
    "Llama with GELU": (tf.LlamaConfig, tf.LlamaForCausalLM, {"hidden_act": "gelu"}),
    "Qwen2": (tf.Qwen2Config, tf.Qwen2ForCausalLM, {}),
    "Qwen3": (tf.Qwen3Config, tf.Qwen3ForCausalLM, {}),
    "Qwen3, heads wider than the states": (tf.Qwen3Config, tf.Qwen3ForCausalLM, {"head_dim": 16}),
}


def policy_of(form: str) -> Policy:
    """Return a small random policy whose norms and biases are no constants."""
    config, model, more = FORMS[form]
    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    made = of(config, model, **small(**more))(len(tokenizer), tokenizer.eos_token_id)
    for parameter in made.parameters():
        if parameter.dim() == 1:
            parameter.data.add_(torch.randn_like(parameter), alpha=0.3)
    return Policy(f"small {form}", made.to(DEVICE).eval(), tokenizer)


@torch.inference_mode()
def grown(kind: type[CachedSteps], policy: Policy) -> torch.Tensor:
    """Return the states of all sequences after each of six tokens, the second and fourth of which end one of them each."""
    steps, found, rows = kind(policy, PROMPTS), [], len(PROMPTS)
    for step in range(6):
        found.append(steps.states())
        going = torch.tensor([(row, step) not in ((1, 1), (0, 3)) for row in range(rows)], device=policy.device)
        steps.grow(torch.arange(60, 60 + rows, device=policy.device) + step, going)
        rows = int(going.sum())
    return torch.cat(found)


@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_the_states_are_those_of_the_models_own_pass(form, joined, monkeypatch):
    if not joined:
        monkeypatch.setattr(one_token, "LEAST", 0)
    policy = policy_of(form)
    assert steps_for(policy) is OneTokenSteps
    torch.testing.assert_close(grown(OneTokenSteps, policy), grown(CachedSteps, policy), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("kind", [OneTokenSteps, CachedSteps])
@pytest.mark.parametrize("share", [0.75, 0.5, 0.0])
def test_sequences_that_ended_may_stay_in_the_cache_and_change_nothing_for_the_others(kind, share, monkeypatch):
    policy = policy_of("Qwen2")
    monkeypatch.setattr(decoding, "WORTH", {})
    left = grown(kind, policy)
    monkeypatch.setattr(decoding, "WORTH", {policy.device.type: share})
    torch.testing.assert_close(grown(kind, policy), left, rtol=1e-5, atol=2e-5)


def test_weights_that_changed_are_those_of_the_next_sequences():
    policy = policy_of("Qwen3")
    before = grown(OneTokenSteps, policy)
    with torch.no_grad():
        policy.causal_lm.model.layers[0].self_attn.v_proj.weight.mul_(2)
    after = grown(OneTokenSteps, policy)
    assert not torch.allclose(before, after, atol=1e-3)
    torch.testing.assert_close(after, grown(CachedSteps, policy), rtol=1e-5, atol=2e-5)


def test_a_hook_anywhere_in_the_layers_is_heeded():
    policy = policy_of("Llama")
    layer, own = policy.causal_lm.model.layers[1], grown(CachedSteps, policy)
    for module in (layer, layer.self_attn, layer.mlp, layer.input_layernorm):
        handle = module.register_forward_hook(lambda module, given, found: found)
        assert steps_for(policy) is CachedSteps
        handle.remove()
    layer.self_attn.q_proj.register_forward_hook(lambda module, given, found: 2 * found)
    assert steps_for(policy) is OneTokenSteps  # it calls the projections that it cannot join
    torch.testing.assert_close(grown(OneTokenSteps, policy), grown(CachedSteps, policy), rtol=1e-5, atol=2e-5)
    assert not torch.allclose(grown(OneTokenSteps, policy), own, atol=1e-3)


def test_a_trunk_that_computes_something_else_is_found_out():
    policy = policy_of("Qwen3")
    policy.causal_lm.model.layers[0].mlp.act_fn = torch.nn.ReLU()  # known: it is asked for its own activation
    assert steps_for(policy) is OneTokenSteps
    other = policy_of("Qwen3")
    attention = other.causal_lm.model.layers[0].self_attn
    attention.__class__ = type(
        "Doubled", (type(attention),), {"forward": lambda self, *a, **k: (2 * super(type(self), self).forward(*a, **k)[0], None)}
    )
    assert steps_for(other) is CachedSteps


@pytest.mark.parametrize("architecture", ["Mistral", "Gemma 2", "GPT-2"])
def test_other_architectures_keep_their_own_pass(architecture):
    assert steps_for(build(architecture)) is CachedSteps
