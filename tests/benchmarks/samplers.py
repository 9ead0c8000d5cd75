"""Tokens per second of each sampler, on the same prompts, weights and precision.

`generate` is transformers' own loop with the LoRA as it is, which is what trl calls; vLLM, where it is installed, serves the same
LoRA, folded into the weights and as an adapter.
"""

import functools
import importlib.util
from collections.abc import Callable

import torch
import tyro

from opsd_lab.contexts import ContextBuilder
from opsd_lab.experiments.walkthrough import CHAT, train_problems
from opsd_lab.policies.policy import Policy, add_lora
from opsd_lab.rollouts import HFSampler, Sampler, SamplingParams, VLLMSampler
from tests.benchmarks.measure import alternate, medians, ratio, show
from tests.benchmarks.step import Workload, embedded

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


def compare(work: Workload, rounds: int, seed: int = 0) -> dict[str, object]:
    """Return tokens per second of every way."""
    policy = add_lora(work.load(work.dtype))
    disturb(policy)
    contexts = ContextBuilder(policy.tokenizer, student=CHAT)
    prompts = [contexts.student_prompt(problem) for problem in train_problems()[: work.prompts]]
    params = SamplingParams(max_new_tokens=work.new_tokens, seed=seed)
    samplers: dict[str, Sampler] = {"hf": HFSampler(policy, progress=False)}
    if importlib.util.find_spec("vllm"):
        samplers["vllm"] = VLLMSampler(policy, progress=False)
        samplers["vllm adapter"] = VLLMSampler(policy, handover="adapter", progress=False)
    tokens: dict[str, int] = {}

    def draw(name: str) -> None:
        tokens[name] = sum(len(r.completion_ids) for r in samplers[name].sample(prompts, params))

    def theirs() -> None:
        tokens["generate"] = generate(policy, prompts, work.new_tokens)

    runs = {name: functools.partial(draw, name) for name in samplers} | {"generate": theirs}
    written: dict[str, list[int]] = {name: [] for name in runs}

    def noted(name: str) -> None:
        runs[name]()
        written[name].append(tokens[name])

    what = f"{work.prompts} prompts, {work.new_tokens} new tokens"
    seconds = alternate({name: functools.partial(noted, name) for name in runs}, rounds, what)
    for sampler in samplers.values():
        if isinstance(sampler, VLLMSampler):
            sampler.close()
    per_token = {name: [s / n for s, n in zip(seconds[name], written[name][1:], strict=True)] for name in runs}
    rates = {f"{name.replace(' ', '_')}_vs_hf": ratio(per_token, "hf", name) for name in samplers if name != "hf"}
    return {
        "dtype": str(work.dtype),
        "prompts": work.prompts,
        "new_tokens": work.new_tokens,
        "tokens": {name: counts[-1] for name, counts in written.items()},
        "tokens_per_second": {name: 1 / value for name, value in medians(per_token).items()},
        "seconds_per_token": per_token,
        **rates,
        "hf_vs_generate": ratio(per_token, "generate", "hf"),
    }


def main(dtype: str = "float32", count: int = 32, new: int = 64, rounds: int = 5) -> None:
    """Print one comparison."""
    show(compare(Workload(embedded, getattr(torch, dtype), count, new), rounds))


if __name__ == "__main__":
    tyro.cli(main)
