"""Tokens per second of each sampler, on the same prompts, weights and precision.

`generate` is transformers' own loop with the LoRA as it is, which is what trl calls; vLLM serves the same LoRA, folded into the
weights and as an adapter.
"""

import functools
from collections.abc import Callable

import torch
import tyro

from opsd_lab.contexts import ContextBuilder
from opsd_lab.experiments.walkthrough import CHAT, train_problems
from opsd_lab.policies.policy import Policy, add_lora, load_policy
from opsd_lab.rollouts import HFSampler, SamplingParams, VLLMSampler
from tests.benchmarks.measure import alternate, medians, ratio, show

Draw = Callable[[], int]


def disturb(policy: Policy) -> None:
    """Change the LoRA a little, so that it is no longer fresh."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in policy.trainable().items():
        if "lora_B" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 1e-3)


def generate(policy: Policy, prompts: list[list[int]], new: int) -> int:
    """Return how many tokens transformers' `generate` wrote."""
    width = max(map(len, prompts))
    ids = torch.tensor([[policy.pad_id] * (width - len(p)) + p for p in prompts], device=policy.device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=policy.device)
    options = {"do_sample": True, "top_k": 0, "top_p": 1.0, "temperature": 1.0, "eos_token_id": list(policy.eos_ids)}
    with torch.inference_mode():
        found = policy.model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=new, pad_token_id=policy.pad_id, **options)
    ended = torch.isin(found[:, width:], torch.tensor(policy.eos_ids, device=policy.device)).cumsum(-1)
    return int((ended == 0).sum() + (ended > 0).any(-1).sum())


def compare(dtype: torch.dtype, count: int, new: int, rounds: int, seed: int = 0) -> dict[str, object]:
    """Return tokens per second of every way."""
    policy = add_lora(load_policy(dtype=dtype))
    disturb(policy)
    contexts = ContextBuilder(policy.tokenizer, student=CHAT)
    prompts = [contexts.student_prompt(problem) for problem in train_problems()[:count]]
    params = SamplingParams(max_new_tokens=new, seed=seed)
    samplers = {"hf": HFSampler(policy, progress=False), "vllm": VLLMSampler(policy, progress=False)}
    samplers["vllm adapter"] = VLLMSampler(policy, handover="adapter", progress=False)
    tokens: dict[str, int] = {}

    def draw(name: str) -> None:
        tokens[name] = sum(len(r.completion_ids) for r in samplers[name].sample(prompts, params))

    def theirs() -> None:
        tokens["generate"] = generate(policy, prompts, new)

    runs = {name: functools.partial(draw, name) for name in samplers} | {"generate": theirs}
    written: dict[str, list[int]] = {name: [] for name in runs}

    def noted(name: str) -> None:
        runs[name]()
        written[name].append(tokens[name])

    seconds = alternate({name: functools.partial(noted, name) for name in runs}, rounds, f"{count} prompts, {new} new tokens")
    for sampler in samplers.values():
        if isinstance(sampler, VLLMSampler):
            sampler.close()
    per_token = {name: [s / n for s, n in zip(seconds[name], written[name][1:], strict=True)] for name in runs}
    return {
        "dtype": str(dtype),
        "prompts": count,
        "new_tokens": new,
        "tokens": {name: counts[-1] for name, counts in written.items()},
        "tokens_per_second": {name: 1 / value for name, value in medians(per_token).items()},
        "seconds_per_token": per_token,
        "vllm_vs_hf": ratio(per_token, "hf", "vllm"),
        "vllm_adapter_vs_hf": ratio(per_token, "hf", "vllm adapter"),
        "hf_vs_generate": ratio(per_token, "generate", "hf"),
    }


def main(dtype: str = "float32", count: int = 32, new: int = 64, rounds: int = 5) -> None:
    """Print one comparison."""
    show(compare(getattr(torch, dtype), count, new, rounds))


if __name__ == "__main__":
    tyro.cli(main)
