"""How fast CHAMP's solutions are scored, against a bare forward pass of both sides over the same tokens; run as a script.

The bare pass is the model's own, logits included, over the same padded batches. Both alternate in one process; the ratio is that of
the rates in tokens of the solutions per second, so 0.85 is 15 % slower than the bare pass.
"""

import statistics
import time
from pathlib import Path

import torch
import tyro
from tqdm.auto import tqdm

from opsd_lab.contexts import ContextBuilder
from opsd_lab.objectives import OPSD
from opsd_lab.policies.policy import Policy, load_policy
from opsd_lab.policies.teachers import live_teacher
from opsd_lab.problems.champ import champ_problems, champ_solutions
from opsd_lab.scoring.batching import Example, build_batch, micro_batches
from opsd_lab.supervision.views import build_examples, score_rollouts, text_rollout

BUDGET = 8192


@torch.inference_mode()
def bare(policy: Policy, examples: list[Example]) -> None:
    for group in micro_batches(examples, BUDGET):
        batch = build_batch([examples[i] for i in group], policy.pad_id)
        for ids in (batch.teachers["teacher"].ids, batch.student.ids):
            policy.causal_lm(input_ids=ids.to(policy.device), use_cache=False)


def main(model: str | Path = "smollm2-135m-instruct", every: int = 18, rounds: int = 5) -> None:
    """Time every `every`-th solution, by length, `rounds` times each way."""
    policy, problems = load_policy(model), champ_problems()
    contexts, by_id = ContextBuilder(policy.tokenizer), {problem.id: problem for problem in problems}
    rollouts = [text_rollout(contexts, by_id[solution.problem_id], solution.text) for solution in champ_solutions()]
    chosen = sorted(rollouts, key=lambda rollout: len(rollout.completion_ids))[every // 2 :: every]
    examples = build_examples(contexts, problems, chosen)
    tokens = sum(example.scored for example in examples)
    rates: dict[str, list[float]] = {"bare": [], "scored": []}
    for number in tqdm(range(rounds + 1), desc="rounds"):
        for name, run in (
            ("bare", lambda: bare(policy, examples)),
            ("scored", lambda: score_rollouts(policy, live_teacher(), OPSD(), examples, token_budget=BUDGET, progress=False)),
        ):
            started = time.perf_counter()
            run()
            if number:  # the first round warms up
                rates[name].append(tokens / (time.perf_counter() - started))
    ratios = [scored / forward for scored, forward in zip(rates["scored"], rates["bare"], strict=True)]
    print(f"{len(examples)} solutions, {tokens:,} tokens, {torch.get_num_threads()} threads, {policy.causal_lm.dtype}")
    print(f"bare {statistics.median(rates['bare']):.0f} tokens/s, scored {statistics.median(rates['scored']):.0f} tokens/s")
    print(f"ratio {statistics.median(ratios):.3f} (from {min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    tyro.cli(main)
