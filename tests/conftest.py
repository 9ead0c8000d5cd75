"""A random two-layer model, a byte tokenizer with a chat template, and the embedded real model."""

import os
import signal
from collections.abc import Iterator

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from opsd_lab.contexts import CHATML, ChatFormat, ContextBuilder
from opsd_lab.policies.policy import Policy, add_lora, load_policy
from opsd_lab.problems.problem import Problem

# Where the small random models of the tests stand: OPSD_LAB_TEST_DEVICE=cuda tries everything that they try on a GPU.
DEVICE = os.environ.get("OPSD_LAB_TEST_DEVICE", "cpu")


def byte_tokenizer(chat_template: str | None = CHATML, **special: str) -> PreTrainedTokenizerFast:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, **(special or {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>"})
    )
    tokenizer.chat_template = chat_template
    return tokenizer


def tiny_policy(seed: int = 0, *, context: int = 512) -> Policy:
    tokenizer = byte_tokenizer()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Policy("tiny", LlamaForCausalLM(config).to(DEVICE).eval(), tokenizer)


PROBLEMS = [
    Problem(f"p{i}", f"What is {i} + {i + 1}?", str(2 * i + 1), f"{i} + {i + 1} = {2 * i + 1}. So \\boxed{{{2 * i + 1}}}.", ("Add.",))
    for i in range(3, 15)
]


@pytest.fixture(autouse=True, scope="session")
def ctrl_c() -> Iterator[None]:
    """Let Ctrl-C reach the tests that press it; a shell's background job, such as a CI run, starts with it ignored."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.fixture
def policy() -> Policy:
    """A tiny float32 policy with a fresh LoRA."""
    return add_lora(tiny_policy(), rank=4, alpha=8)


@pytest.fixture
def problems() -> list[Problem]:
    return list(PROBLEMS)


@pytest.fixture
def contexts(policy: Policy) -> ContextBuilder:
    chat = ChatFormat(response_prefix="Calculation:")
    return ContextBuilder(policy.tokenizer, student=chat, teacher=chat)


@pytest.fixture(scope="session")
def smollm2() -> Policy:
    """The embedded model, without a LoRA; tests must not train it."""
    return load_policy()
