"""The page's fields about samplers and speed: the same training with each sampler, and the library beside its peers."""

from collections.abc import Mapping

import numpy as np

from opsd_lab.evaluation.estimate import Estimate
from opsd_lab.evaluation.paired import paired_interval
from opsd_lab.evaluation.statistics import mean_interval
from opsd_lab.experiments.results_page.text import Fields, check, estimate, markdown, read_json
from opsd_lab.figures.words import number

SAMPLERS = {
    "hf": "transformers, `HFSampler`",
    "vllm": "vLLM in this process, `VLLMSampler`",
    "server": "a vLLM server, `VLLMServerSampler`",
}
PEERS = {"torch": "PyTorch's `kl_div` on whole logits", "liger": "liger-kernel's chunked loss"}


def samplers() -> Fields:
    """Return the fields of the training that ran with each sampler."""
    results = read_json("three_samplers.json")
    seed = min(int(key.split()[1]) for key in results)
    runs = {name: results[f"{name} {seed}"] for name in SAMPLERS}
    correct = {name: np.array([int(c) for c in run["correct"]]) for name, run in runs.items()}
    lines = []
    for name, run in runs.items():
        minus = paired_interval(correct["hf"], correct[name], correct["hf"].size)
        check("vLLM's accuracy is that of transformers", minus.low <= 0 <= minus.high)
        shown = [_shown(mean_interval(correct[name], correct[name].size)), _shown(minus) if name != "hf" else ""]
        lines.append([SAMPLERS[name], *shown, f"{run['mismatch_mean']:.0e}", f"{run['mismatch_max']:.0e}"])
    columns = ["sampler", "accuracy", "minus the first", "mean mismatch", "largest mismatch"]
    return {"samplers": markdown(columns, lines), "samplers_seed": seed, "samplers_machine": _machine(runs["hf"]["machine"])}


def _shown(interval: Estimate) -> str:
    return estimate(interval.mean, interval.low, interval.high)


def speed() -> Fields:
    """Return the fields of the benchmarks, in the form in which `make bench` writes them."""
    found = read_json("bench.json")["found"]
    loss, step, writing = found["loss"]["sizes"], found["step"], found["samplers"]
    lines = []
    for size in loss:
        what = f"loss with all statistics, {size['tokens']:,} tokens, vocabulary {size['vocabulary']:,}"
        for peer in (peer for peer in PEERS if peer in size["time_vs"]):
            lines.append([what, PEERS[peer], number(size["time_vs"][peer]["median"], 2), number(size["memory_vs"][peer], 2)])
    what, times = f"a step: {step['prompts']} prompts, {step['new_tokens']} new tokens", step["time_vs_trl"]
    lines.append([what, "trl's SDFTTrainer", number(times["hf"]["median"], 2), number(step["memory_vs_trl"], 2)])
    lines.append([f"{what}, sampling with vLLM", "trl's SDFTTrainer", number(times["vllm"]["median"], 2), ""])
    check("loss and step are faster than the peers'", all(float(line[2]) < 1 for line in lines))
    return {
        "bench_machine": _machine(found["step"]["machine"]),
        "bench_dtype": step["dtype"].removeprefix("torch."),
        "bench": markdown(["what", "beside", "time", "memory"], lines),
        "gradient_error": f"{loss[0]['gradient_error']['ours']:.0e}",
        "bench_prompts": writing["prompts"],
        "bench_new": writing["new_tokens"],
        **{f"rate_{name}": f"{writing['tokens_per_second'][name]:.0f}" for name in ("hf", "generate", "vllm")},
    }


def _machine(machine: Mapping[str, object]) -> str:
    processor = f"{machine['cores']} cores of an {machine['processor']} ({', '.join(machine['instructions'])})"
    return f"{machine['gpu']} and {processor}" if machine["gpu"] else processor
