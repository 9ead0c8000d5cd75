"""Small random models written as GGUF files, as llama.cpp's converter writes them: three architectures, two kinds of tokenizer."""

from pathlib import Path

import gguf
import numpy as np
import torch
import transformers as tf
from tokenizers import pre_tokenizers
from transformers import PreTrainedModel

from opsd_lab.contexts import CHATML
from tests.architectures import small

EIGHT = gguf.GGMLQuantizationType.Q8_0
SPECIAL = ["<|im_start|>", "<|im_end|>"]
SHAPE = small(hidden_size=64, intermediate_size=96, head_dim=16, num_key_value_heads=2)
KINDS = {
    "llama": (tf.LlamaConfig, tf.LlamaForCausalLM, gguf.MODEL_ARCH.LLAMA, {}),
    "qwen2": (tf.Qwen2Config, tf.Qwen2ForCausalLM, gguf.MODEL_ARCH.QWEN2, {"tie_word_embeddings": True}),
    "gemma3": (tf.Gemma3TextConfig, tf.Gemma3ForCausalLM, gguf.MODEL_ARCH.GEMMA3, {"sliding_window": 8}),
}


def small_model(kind: str) -> PreTrainedModel:
    """Return a random model whose weights bfloat16 holds exactly."""
    config, model, _, more = KINDS[kind]
    torch.manual_seed(0)
    ids = {"vocab_size": len(tokens(kind)), "bos_token_id": 1, "eos_token_id": len(tokens(kind)) - 1, "pad_token_id": 0}
    made = model(config(**SHAPE | ids | {"initializer_range": 0.2, "rope_theta": 10000.0} | more))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(
                parameter.bfloat16().float() if parameter.dim() > 1 else (1 + 0.25 * torch.randn_like(parameter)).bfloat16()
            )
    return made.eval()


def tokens(kind: str) -> list[str]:
    """Return the vocabulary: bytes as byte-level BPE or as SentencePiece writes them."""
    if kind == "gemma3":
        return ["<pad>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *SPECIAL]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    return [*letters, "ab", *SPECIAL]


def write_gguf(
    path: Path, kind: str, *, template: str | None = CHATML, quantised: bool = False, left_out: str = "", wrong: str = ""
) -> PreTrainedModel:
    """Write a small model and return it; `quantised` rounds its matrices to eight bits.

    The tensor `left_out` is not written. `wrong` is "parts", which says that there are two files, or "positions", which scales them.
    """
    model = small_model(kind)
    config, (_, _, arch, _) = model.config, KINDS[kind]
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch])
    writer.add_name(f"small {kind}")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    if kind == "gemma3":
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
        writer.add_sliding_window(config.sliding_window)
    _write_tokenizer(writer, kind, template)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    for name, value in model.state_dict().items():
        if config.tie_word_embeddings and name == "lm_head.weight":
            continue
        written = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if written == left_out:
            continue
        array = _as_written(kind, name, value.float().numpy(), config)
        if quantised and array.ndim == 2:
            packed = gguf.quantize(array, EIGHT)
            writer.add_tensor(written, packed, raw_dtype=EIGHT)
            rounded = _as_read(kind, name, gguf.dequantize(packed, EIGHT), config)
            value.copy_(torch.from_numpy(rounded).bfloat16())
        else:
            writer.add_tensor(written, array)
    if wrong == "parts":
        writer.add_uint16("split.count", 2)
    if wrong == "positions":
        writer.add_tensor("rope_freqs.weight", np.ones(4, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def _write_tokenizer(writer: gguf.GGUFWriter, kind: str, template: str | None) -> None:
    vocabulary = tokens(kind)
    control = {i for i, token in enumerate(vocabulary) if token in ("<pad>", "<bos>", "<unk>", *SPECIAL)}
    is_byte = [token.startswith("<0x") for token in vocabulary]
    kinds = [gguf.TokenType.CONTROL if i in control else gguf.TokenType.BYTE if byte else 1 for i, byte in enumerate(is_byte)]
    writer.add_tokenizer_model("llama" if kind == "gemma3" else "gpt2")
    writer.add_tokenizer_pre({"llama": "llama-bpe", "qwen2": "qwen2", "gemma3": "default"}[kind])
    writer.add_token_list(vocabulary)
    writer.add_token_types(kinds)
    if kind == "gemma3":
        writer.add_token_scores([-1000.0] * len(vocabulary))
        writer.add_bos_token_id(1)
        writer.add_pad_token_id(0)
        writer.add_unk_token_id(2)
    else:
        writer.add_token_merges(["a b"])
        writer.add_pad_token_id(len(vocabulary) - 1)
    writer.add_eos_token_id(len(vocabulary) - 1)
    if template is not None:
        writer.add_chat_template(template)


def _as_written(kind: str, name: str, array: np.ndarray, config: tf.PreTrainedConfig) -> np.ndarray:
    """Return a weight as the file has it: Llama's rotated halves interleaved, Gemma's norms with 1 added."""
    if kind == "gemma3" and "norm" in name:
        return array + 1
    if heads := _rotated(kind, name, config):
        return array.reshape(heads, 2, -1, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)
    return array


def _as_read(kind: str, name: str, array: np.ndarray, config: tf.PreTrainedConfig) -> np.ndarray:
    if heads := _rotated(kind, name, config):
        return array.reshape(heads, -1, 2, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)
    return array


def _rotated(kind: str, name: str, config: tf.PreTrainedConfig) -> int | None:
    if kind != "llama":
        return None
    return {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
