"""The page's fields about samplers, grading and speed: each beside its peers."""

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
GRADED = [("correct", "correct"), ("correct", "incorrect"), ("incorrect", "incorrect"), ("incorrect", "correct")]
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


def _shown(interval: Estimate) -> str:
    return estimate(interval.mean, interval.low, interval.high)


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
