"""A tiny model on disk and a real vLLM server that serves it."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import util
from pathlib import Path

import httpx
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from opsd_lab.policies.policy import Policy, add_lora, load_policy
from tests.conftest import byte_tokenizer

START = 300.0  # s


def require_vllm() -> None:
    """Skip where vLLM is not installed; in CI that is a failure."""
    if util.find_spec("vllm") is None:
        if os.environ.get("CI"):
            pytest.fail("vLLM is not installed; run `make vllm`")
        pytest.skip("vLLM is not installed: `make vllm`")


def save_tiny(folder: Path, seed: int = 0, *, tied: bool = True) -> Path:
    """Save a random two-layer model whose heads are as wide as vLLM's kernels need them."""
    tokenizer = byte_tokenizer()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=256,
        tie_word_embeddings=tied,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny(folder: Path, *, lora: bool = True) -> Policy:
    policy = load_policy(folder, device="cpu")
    return add_lora(policy, rank=4, alpha=8) if lora else policy


def perturb(policy: Policy, seed: int, scale: float = 0.3) -> None:
    """Change what trains, as an update would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter) * scale * 0.2)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def server(model: Path, log: Path, *more: str, rank: int = 8) -> Iterator[tuple[str, subprocess.Popen]]:
    """Run a vLLM server with room for adapters of a rank, and with `more` arguments; give its URL and its process."""
    port = free_port()
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--port", str(port)]
    command += [
        "--host",
        "127.0.0.1",
        "--enable-lora",
        "--max-lora-rank",
        str(rank),
        "--generation-config",
        "vllm",
        "--dtype",
        "float32",
    ]
    command += ["--kv-cache-memory-bytes", str(2**27), "--enforce-eager", *more]
    environment = os.environ | {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START
        while True:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text(errors="replace")[-3000:]
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{url}/health", timeout=5.0).status_code == 200:
                    break
            time.sleep(0.5)
        yield url, process
    finally:
        stop(process)


def stop(process: subprocess.Popen) -> None:
    """End a server with everything it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 9)
    process.wait()
