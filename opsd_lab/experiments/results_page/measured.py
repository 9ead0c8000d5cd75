"""The page's fields about samplers, grading and speed: each beside its peers."""

from collections.abc import Mapping, Sequence

import numpy as np

from opsd_lab.evaluation.estimate import Estimate
from opsd_lab.evaluation.paired import paired_interval
from opsd_lab.evaluation.statistics import mean_interval
from opsd_lab.experiments.results_page.text import Fields, check, markdown, read_json
from opsd_lab.figures.words import interval, number

SAMPLERS = {
    "hf": "transformers, `HFSampler`",
    "vllm": "vLLM in this process, `VLLMSampler`",
    "server": "a vLLM server, `VLLMServerSampler`",
}
GRADED = [("correct", "correct"), ("correct", "incorrect"), ("incorrect", "incorrect"), ("incorrect", "correct")]
BENCHMARKS = ("bench.json", "bench_epyc.json", "bench_h200.json")
FLOOR = "the matrix products alone"
PEERS = {"torch": "PyTorch's `kl_div` on whole logits", "liger": "liger-kernel's chunked loss"}


def samplers() -> Fields:
    """Return the fields of the training that ran with each sampler."""
    results = read_json("three_samplers.json")
    seed = min(run["seed"] for run in results)
    runs = {run["sampler"]: run for run in results if run["seed"] == seed}
    correct = {name: np.array(runs[name]["correct"]) for name in SAMPLERS}
    lines = []
    for name in SAMPLERS:
        run = runs[name]
        minus = paired_interval(correct["hf"], correct[name], correct["hf"].size)
        check("vLLM's accuracy is that of transformers", minus.low <= 0 <= minus.high)
        shown = [_shown(mean_interval(correct[name], correct[name].size)), _shown(minus) if name != "hf" else ""]
        lines.append([SAMPLERS[name], *shown, f"{run['mismatch_mean']:.0e}", f"{run['mismatch_max']:.0e}"])
    columns = ["sampler", "accuracy", "minus the first", "mean mismatch", "largest mismatch"]
    return {"samplers": markdown(columns, lines), "samplers_seed": seed, "samplers_machine": _machine(runs["hf"]["machine"])}


def _shown(found: Estimate) -> str:
    return interval(found.mean, found.low, found.high)


def graders() -> Fields:
    """Return the fields of the grader beside math-verify."""
    found = read_json("bench.json")["found"]["graders"]
    lines = []
    for name, words in {"ours": "`Grader`", "math-verify": "math-verify"}.items():
        verdicts = found[name]["verdicts"]
        shares = [verdicts[label].get(given, 0) / sum(verdicts[label].values()) for label, given in GRADED]
        lines.append([words, *(f"{100 * share:.1f} %" for share in shares), number(found[name]["milliseconds"], 1)])
    wrong = [found[name]["verdicts"]["incorrect"].get("correct", 0) for name in ("ours", "math-verify")]
    check("the grader calls no wrong answer correct, and math-verify some", wrong[0] == 0 < wrong[1])
    columns = ["grader", *(f"{label} answers called {given}" for label, given in GRADED), "ms per answer"]
    return {"answers": f"{found['answers']:,}", "graders": markdown(columns, lines), "graders_machine": _machine(found["machine"])}


def speed() -> Fields:
    """Return the fields of the benchmarks, in the form in which `make bench` writes them, a file for each processor met."""
    found = [read_json(name)["found"] for name in BENCHMARKS]
    writing = [bench["samplers"] for bench in found if "samplers" in bench]
    rates = []
    for one in writing:
        rate = {name: f"{value:.0f}" for name, value in one["tokens_per_second"].items()}
        ours = f"`HFSampler` makes {rate['hf']} tokens a second"
        theirs = f"transformers' `generate` with the LoRA as it is {rate['generate']}"
        rates.append(f"- On {_machine(one['machine'])} {ours}, {theirs}, vLLM {rate['vllm']}.")
    return {
        "bench_dtype": found[0]["step"]["dtype"].removeprefix("torch."),
        "bench_half": found[-1]["gpu"]["dtype"].removeprefix("torch."),
        "bench": markdown(
            ["processor", "what", "compared with", "time", "memory"], [line for bench in found for line in _beside(bench)]
        ),
        "gradient_error": f"{max(_gradient_errors(found, _losses(found[0])[0]['dtype'])):.0e}",
        "half_gradient_error": f"{max(_gradient_errors(found, found[-1]['gpu']['dtype'])):.0e}",
        "bench_liger": number(found[-1]["gpu"]["loss"]["time_vs"]["liger"]["median"], 2),
        "bench_prompts": writing[0]["prompts"],
        "bench_new": writing[0]["new_tokens"],
        "bench_rates": "\n".join(rates),
    }


def _gradient_errors(found: Sequence[Mapping], dtype: str) -> list[float]:
    first = [_losses(bench)[0] for bench in found]
    return [size["gradient_error"]["ours"] for size in first if size["dtype"] == dtype]


def _losses(found: Mapping[str, Mapping]) -> list[Mapping]:
    """Return the comparisons of the loss: of a GPU, those of `tests.benchmarks.gpu`."""
    return [found["gpu"]["loss"]] if "gpu" in found else found["loss"]["sizes"]


def _beside(found: Mapping[str, Mapping]) -> list[list[str]]:
    """Return the rows of one processor: ours divided by what it is compared with."""
    lines = []
    for size in _losses(found):
        what = _loss_of(size)
        for peer in (peer for peer in PEERS if peer in size["time_vs"]):
            lines.append([what, PEERS[peer], number(size["time_vs"][peer]["median"], 2), number(size["memory_vs"][peer], 2)])
    if busy := found.get("loss", {}).get("busy"):
        what = f"{_loss_of(busy)}, a busy neighbour"
        lines.append([what, PEERS["torch"], number(busy["time_vs"]["torch"]["median"], 2), ""])
    if "step" in found:
        step = found["step"]
        what, times = f"a step: {step['prompts']} prompts, {step['new_tokens']} new tokens", step["time_vs_trl"]
        lines.append([what, "trl's SDFTTrainer", number(times["hf"]["median"], 2), number(step["memory_vs_trl"], 2)])
        lines.append([f"{what}, sampling with vLLM", "trl's SDFTTrainer", number(times["vllm"]["median"], 2), ""])
        if floor := step.get("time_vs_floor"):
            lines.append([what, FLOOR, number(floor["hf"]["median"], 2), ""])
    if "gpu" in found:
        lines.append([_loss_of(found["gpu"]), FLOOR, number(found["gpu"]["time_vs_floor"]["median"], 2), ""])
    return [[_machine(found["gpu" if "gpu" in found else "loss"]["machine"]), *line] for line in lines]


def _loss_of(size: Mapping[str, int]) -> str:
    return f"loss with all statistics, {size['tokens']:,} tokens, vocabulary {size['vocabulary']:,}"


def _machine(machine: Mapping[str, object]) -> str:
    processor = f"{machine['cores']} cores of an {machine['processor']} ({', '.join(machine['instructions'])})"
    return f"{machine['gpu']} and {processor}" if machine["gpu"] else processor
