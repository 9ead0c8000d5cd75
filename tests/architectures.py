"""Small random models of many architectures, made in place from transformers' own classes: two layers, 32 wide."""

from collections.abc import Callable

import torch
import transformers as tf
from transformers import PreTrainedConfig, PreTrainedModel

from opsd_lab.policies.policy import Policy
from tests.conftest import DEVICE, byte_tokenizer

PADDED = 320  # rows of a head that is larger than the tokenizer
LONGROPE_SWITCH = 64  # tokens after which the longrope model takes its other frequencies
DYNAMIC_SWITCH = 96


def small(**more: object) -> dict[str, object]:
    """Return the options that most configs share; `more` overrides them."""
    return {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 256,
        **more,
    }


def of(config: type[PreTrainedConfig], model: type[PreTrainedModel], **options: object) -> Callable[[int, int], PreTrainedModel]:
    """Return a function that makes the model for a vocabulary size and an end-of-sequence id."""

    def make(vocabulary: int, eos: int) -> PreTrainedModel:
        known = {"vocab_size": vocabulary, "initializer_range": 0.2, "pad_token_id": eos, "bos_token_id": eos, "eos_token_id": eos}
        return model(config(**{**known, **options}))

    return make


EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
DELTA = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
}
STATE_SPACE = {
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_d_state": 8,
    "mamba_n_groups": 1,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "mamba_chunk_size": 16,
}

ARCHITECTURES: dict[str, Callable[[int, int], PreTrainedModel]] = {
    # dense
    "Llama": of(tf.LlamaConfig, tf.LlamaForCausalLM, **small()),
    "Llama, tied": of(tf.LlamaConfig, tf.LlamaForCausalLM, **small(tie_word_embeddings=True)),
    "Llama, padded vocabulary": of(tf.LlamaConfig, tf.LlamaForCausalLM, **small(vocab_size=PADDED)),
    "Llama, dynamic NTK": of(
        tf.LlamaConfig,
        tf.LlamaForCausalLM,
        **small(max_position_embeddings=DYNAMIC_SWITCH, rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}),
    ),
    "Llama, yarn": of(
        tf.LlamaConfig,
        tf.LlamaForCausalLM,
        **small(rope_parameters={"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 64}),
    ),
    "Qwen2": of(tf.Qwen2Config, tf.Qwen2ForCausalLM, **small()),
    "Qwen3": of(tf.Qwen3Config, tf.Qwen3ForCausalLM, **small(tie_word_embeddings=True)),
    "Mistral": of(tf.MistralConfig, tf.MistralForCausalLM, **small(sliding_window=8)),
    "Phi-3, longrope": of(
        tf.Phi3Config,
        tf.Phi3ForCausalLM,
        **small(
            original_max_position_embeddings=LONGROPE_SWITCH,
            rope_parameters={
                "rope_type": "longrope",
                "rope_theta": 1e4,
                "short_factor": [1.0] * 4,
                "long_factor": [4.0] * 4,
                "original_max_position_embeddings": LONGROPE_SWITCH,
            },
        ),
    ),
    "Phi": of(tf.PhiConfig, tf.PhiForCausalLM, **small()),
    "GPT-2": of(tf.GPT2Config, tf.GPT2LMHeadModel, n_embd=32, n_layer=2, n_head=4, n_positions=256),
    "GPT-NeoX": of(tf.GPTNeoXConfig, tf.GPTNeoXForCausalLM, **small()),
    "OLMo 2": of(tf.Olmo2Config, tf.Olmo2ForCausalLM, **small()),
    "StableLM": of(tf.StableLmConfig, tf.StableLmForCausalLM, **small()),
    "Starcoder2": of(tf.Starcoder2Config, tf.Starcoder2ForCausalLM, **small(sliding_window=8)),
    "SmolLM3": of(tf.SmolLM3Config, tf.SmolLM3ForCausalLM, **small()),
    "GPT-J": of(tf.GPTJConfig, tf.GPTJForCausalLM, n_embd=32, n_layer=2, n_head=4, n_positions=256, rotary_dim=4),
    "OPT": of(tf.OPTConfig, tf.OPTForCausalLM, **small(ffn_dim=48, word_embed_proj_dim=32, init_std=0.2)),
    # soft-capped
    "Gemma 2": of(tf.Gemma2Config, tf.Gemma2ForCausalLM, **small(final_logit_softcapping=3.0, sliding_window=8)),
    "Gemma 3": of(
        tf.Gemma3TextConfig,
        tf.Gemma3ForCausalLM,
        **small(sliding_window=8, layer_types=["sliding_attention", "full_attention"], final_logit_softcapping=4.0),
    ),
    "Gemma 4": of(
        tf.Gemma4TextConfig,
        tf.Gemma4ForCausalLM,
        **small(
            sliding_window=8,
            layer_types=["sliding_attention", "full_attention"],
            global_head_dim=16,
            hidden_size_per_layer_input=0,
            final_logit_softcapping=3.0,
        ),
    ),
    # scaled logits
    "Cohere": of(tf.CohereConfig, tf.CohereForCausalLM, **small(logit_scale=0.25)),
    "Cohere 2": of(
        tf.Cohere2Config,
        tf.Cohere2ForCausalLM,
        **small(logit_scale=0.25, sliding_window=8, layer_types=["sliding_attention", "full_attention"]),
    ),
    "Granite": of(
        tf.GraniteConfig,
        tf.GraniteForCausalLM,
        **small(logits_scaling=4.0, residual_multiplier=0.5, embedding_multiplier=2.0, attention_multiplier=0.3),
    ),
    # mixtures of experts
    "Mixtral": of(tf.MixtralConfig, tf.MixtralForCausalLM, **small(**EXPERTS)),
    "Qwen3-MoE": of(
        tf.Qwen3MoeConfig,
        tf.Qwen3MoeForCausalLM,
        **small(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, mlp_only_layers=[]),
    ),
    "Qwen2-MoE": of(
        tf.Qwen2MoeConfig,
        tf.Qwen2MoeForCausalLM,
        **small(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, shared_expert_intermediate_size=24),
    ),
    "OLMoE": of(tf.OlmoeConfig, tf.OlmoeForCausalLM, **small(num_experts=4, num_experts_per_tok=2)),
    "GPT-OSS": of(
        tf.GptOssConfig,
        tf.GptOssForCausalLM,
        **small(**EXPERTS, sliding_window=8, layer_types=["sliding_attention", "full_attention"]),
    ),
    "DeepSeek-V3": of(
        tf.DeepseekV3Config,
        tf.DeepseekV3ForCausalLM,
        **small(
            num_key_value_heads=4,
            n_routed_experts=4,
            num_experts_per_tok=2,
            n_group=2,
            topk_group=1,
            n_shared_experts=1,
            moe_intermediate_size=32,
            first_k_dense_replace=1,
            kv_lora_rank=8,
            q_lora_rank=12,
            qk_rope_head_dim=8,
            qk_nope_head_dim=8,
            v_head_dim=8,
        ),
    ),
    "Llama 4": of(
        tf.Llama4TextConfig,
        tf.Llama4ForCausalLM,
        **small(
            intermediate_size_mlp=48,
            num_local_experts=4,
            num_experts_per_tok=1,
            attention_chunk_size=16,
            no_rope_layers=[1, 0],
            interleave_moe_layer_step=2,
            layer_types=["chunked_attention", "full_attention"],
        ),
    ),
    # hybrids and state spaces
    "Qwen3.5": of(tf.Qwen3_5TextConfig, tf.Qwen3_5ForCausalLM, **small(**DELTA)),
    "Qwen3-Next": of(
        tf.Qwen3NextConfig,
        tf.Qwen3NextForCausalLM,
        **small(**DELTA, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, shared_expert_intermediate_size=24),
    ),
    "LFM2": of(tf.Lfm2Config, tf.Lfm2ForCausalLM, **small(layer_types=["conv", "full_attention"], block_multiple_of=8)),
    "Granite 4": of(
        tf.GraniteMoeHybridConfig,
        tf.GraniteMoeHybridForCausalLM,
        **small(**EXPERTS, **STATE_SPACE, layer_types=["mamba", "attention"], shared_intermediate_size=24),
    ),
    "Falcon-H1": of(tf.FalconH1Config, tf.FalconH1ForCausalLM, **small(**STATE_SPACE, mamba_d_ssm=64)),
    "Jamba": of(
        tf.JambaConfig,
        tf.JambaForCausalLM,
        **small(
            num_experts=4,
            num_experts_per_tok=2,
            expert_layer_period=2,
            expert_layer_offset=1,
            attn_layer_period=2,
            attn_layer_offset=1,
            use_mamba_kernels=False,
            mamba_d_state=8,
        ),
    ),
    "Bamba": of(tf.BambaConfig, tf.BambaForCausalLM, **small(**STATE_SPACE, attn_layer_indices=[1])),
    "Zamba 2": of(
        tf.Zamba2Config,
        tf.Zamba2ForCausalLM,
        **small(
            layers_block_type=["mamba", "hybrid"],
            num_key_value_heads=4,
            n_mamba_heads=8,
            mamba_headdim=8,
            mamba_d_state=8,
            mamba_ngroups=1,
            num_mem_blocks=1,
            attention_head_dim=16,
            chunk_size=16,
        ),
    ),
    "Mamba": of(tf.MambaConfig, tf.MambaForCausalLM, hidden_size=32, num_hidden_layers=2, state_size=8),
    "Mamba 2": of(
        tf.Mamba2Config,
        tf.Mamba2ForCausalLM,
        hidden_size=32,
        num_hidden_layers=2,
        state_size=8,
        num_heads=8,
        head_dim=8,
        n_groups=1,
        chunk_size=16,
    ),
    "Falcon-Mamba": of(tf.FalconMambaConfig, tf.FalconMambaForCausalLM, hidden_size=32, num_hidden_layers=2, state_size=8),
    "RWKV": of(
        tf.RwkvConfig, tf.RwkvForCausalLM, hidden_size=32, num_hidden_layers=2, attention_hidden_size=32, intermediate_size=48
    ),
    # ALiBi
    "Bloom": of(tf.BloomConfig, tf.BloomForCausalLM, hidden_size=32, n_layer=2, n_head=4),
    "MPT": of(tf.MptConfig, tf.MptForCausalLM, d_model=32, n_layers=2, n_heads=4),
    "Falcon, ALiBi": of(
        tf.FalconConfig,
        tf.FalconForCausalLM,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        alibi=True,
        new_decoder_architecture=True,
        num_kv_heads=2,
    ),
}


def build(name: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> Policy:
    """Return a policy with the named architecture, random weights, and several tokens that end a completion."""
    tokenizer = byte_tokenizer()
    torch.manual_seed(seed)
    model = ARCHITECTURES[name](len(tokenizer), tokenizer.eos_token_id).to(DEVICE, dtype).eval()
    model.generation_config.eos_token_id = [*range(20), tokenizer.eos_token_id]
    return Policy(name, model, tokenizer)
