"""How the sandbox's models are made: trained from scratch on their own way of writing, with and without privileged information.

To copy results from a reference is learned early, to calculate late. The student's training ends in between: with the reference in
view it is nearly always right, without it sometimes. That difference is what self-distillation has to work with, as in a large model.
"""

import math
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm
from transformers import Qwen3Config, Qwen3ForCausalLM

from opsd_lab.basics.files import write_whole
from opsd_lab.contexts import (
    SHOWN_SOLUTION,
    ChatFormat,
    ContextBuilder,
    View,
    answer_only,
    bare_solution,
    hints,
    no_privilege,
    partial_solution,
)
from opsd_lab.policies.policy import Policy
from opsd_lab.problems.problem import Problem
from opsd_lab.sandbox.vocabulary import make_tokenizer
from opsd_lab.sandbox.worksheet import draw_problem, own_solution, split_of

CHAT = ChatFormat(instruction="")


@dataclass(frozen=True)
class Size:
    """A Qwen3 model's measures."""

    hidden: int
    layers: int
    intermediate: int
    heads: int = 4
    kv_heads: int = 2

    def build(self, vocabulary: int, end: int) -> Qwen3ForCausalLM:
        """Return the model with fresh weights."""
        config = Qwen3Config(
            vocab_size=vocabulary,
            hidden_size=self.hidden,
            num_hidden_layers=self.layers,
            intermediate_size=self.intermediate,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            head_dim=self.hidden // self.heads,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            initializer_range=0.04,
            bos_token_id=None,
            eos_token_id=end,
            pad_token_id=end,
        )
        return Qwen3ForCausalLM(config)


@dataclass(frozen=True)
class Pretraining:
    """What makes a sandbox model: its size, and the samples it is trained on.

    `tasks` and `views` give the shares of each in the samples. `mistakes` is the share of samples with privileged information in
    which one line has a wrong result that the loss leaves out, so that the model as a teacher stays sound after a mistake.
    """

    size: Size
    steps: int
    batch: int = 64
    learning_rate: float = 3e-3
    mistakes: float = 0.2
    tasks: tuple[tuple[str, float], ...] = (("sheet", 0.5), ("chain", 0.25), ("easy", 0.15), ("recall", 0.1))
    views: tuple[tuple[str, float], ...] = (
        ("none", 0.6),
        ("reference", 0.2),
        ("own words", 0.05),
        ("answer", 0.05),
        ("half", 0.05),
        ("hints", 0.05),
    )
    seed: int = 0


def shown_own_words(problem: Problem) -> str:
    """Show a solution in the model's own way of writing, under the words that present the verified one."""
    return f"{SHOWN_SOLUTION}\n{own_solution(problem)}"


VIEWS: dict[str, View] = {
    "none": no_privilege,
    "reference": bare_solution,
    "own words": shown_own_words,
    "answer": answer_only,
    "half": partial_solution(0.5, closing=""),
    "hints": hints,
}


class Sample(NamedTuple):
    """A prompt with its completion, and which of the completion's tokens count."""

    prompt: list[int]
    completion: list[int]
    counted: list[bool]


def samples(plan: Pretraining, rng: np.random.Generator) -> Iterator[Sample]:
    """Yield training samples without end; no question of another split is among them."""
    tokenizer = make_tokenizer()
    builders = {name: ContextBuilder(tokenizer, view, student=CHAT, teacher=CHAT) for name, view in VIEWS.items()}
    tasks, views = dict(plan.tasks), dict(plan.views)
    while True:
        task = str(rng.choice(list(tasks), p=list(tasks.values())))
        problem = draw_problem(task, rng)
        if split_of(problem) != "train":
            continue
        view = str(rng.choice(list(views), p=list(views.values())))
        prompt = list(builders[view].build(problem).teacher_ids)
        lines = [*problem.meta["lines"], own_solution(problem).rpartition("\n")[2]]
        calculated = [number for number, line in enumerate(lines) if "=" in line]
        mistaken = int(rng.choice(calculated)) if view != "none" and calculated and rng.random() < plan.mistakes else -1
        completion: list[int] = []
        counted: list[bool] = []
        for number, line in enumerate(lines):
            start = ""
            if number == mistaken:
                start, line = _mistaken(line, rng)
            for text, counts in ((start, True), (line, number != mistaken), ("\n" if number < len(lines) - 1 else "", True)):
                ids = tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
                completion += ids
                counted += [counts] * len(ids)
        yield Sample(prompt, [*completion, tokenizer.eos_token_id], [*counted, True])


def _mistaken(line: str, rng: np.random.Generator) -> tuple[str, str]:
    """Return a calculation up to its equals sign, and a wrong result."""
    start, _, result = line.partition("=")
    return f"{start}=", str(abs(int(result) + int(rng.choice([-1, 1])) * int(rng.integers(1, 20))))


def pretrain(plan: Pretraining, *, progress: bool = True) -> Policy:
    """Return a policy trained from scratch; the same plan gives the same weights on the same kind of processor.

    One thread computes, whatever the number of cores: with two the sums would be rounded otherwise, and it gains little at this size.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _pretrain(plan, progress)
    finally:
        torch.set_num_threads(threads)


def _pretrain(plan: Pretraining, progress: bool) -> Policy:
    tokenizer = make_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(plan.seed)
        model = plan.size.build(len(tokenizer), tokenizer.eos_token_id)
    optimizer = torch.optim.AdamW(model.parameters(), lr=plan.learning_rate, weight_decay=0.01, betas=(0.9, 0.98))
    stream = samples(plan, np.random.default_rng(plan.seed))
    started, bar = time.monotonic(), tqdm(range(plan.steps), desc="pre-training", disable=not progress)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = plan.learning_rate * _schedule(step, plan.steps)
        # Samples of like length together: half of the padding, and the gradient is still that of the whole batch.
        drawn = sorted((next(stream) for _ in range(plan.batch)), key=lambda sample: len(sample.prompt) + len(sample.completion))
        parts = [drawn[start : start + 32] for start in range(0, len(drawn), 32)]
        total = sum(sum(sample.counted) for sample in drawn)
        loss = sum(_backward(model, part, tokenizer.eos_token_id, total) for part in parts)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 20 == 0:
            bar.set_postfix(loss=f"{loss:.4f}", seconds=f"{time.monotonic() - started:.0f}")
    return Policy("sandbox", model.eval(), tokenizer)


def _schedule(step: int, steps: int) -> float:
    warm = min(1.0, (step + 1) / 50)
    return warm * (0.05 + 0.95 * (1 + math.cos(math.pi * step / steps)) / 2)


def _backward(model: Qwen3ForCausalLM, part: list[Sample], pad: int, total: int) -> float:
    width = max(len(sample.prompt) + len(sample.completion) for sample in part)
    ids = torch.tensor([_padded(sample.prompt + sample.completion, width, pad) for sample in part])
    # The token at p is predicted at p - 1.
    counted = torch.tensor([_padded([False] * len(sample.prompt) + sample.counted, width, False) for sample in part])[:, 1:]
    hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state[:, :-1][counted]
    loss = F.cross_entropy(model.get_output_embeddings()(hidden), ids[:, 1:][counted], reduction="sum") / total
    loss.backward()
    return float(loss.detach())


def _padded(row: list, width: int, fill: object) -> list:
    return row + [fill] * (width - len(row))


def save_small(policy: Policy, folder: Path) -> None:
    """Write the model with its tokenizer; weights are kept as float16 and become float32 when loaded."""
    with tempfile.TemporaryDirectory() as made:
        policy.model.save_pretrained(made)
        policy.tokenizer.save_pretrained(made)
        weights = Path(made, "model.safetensors")
        tensors: dict[str, Tensor] = {name: value.half() for name, value in load_file(weights).items()}
        save_file(tensors, weights, {"format": "pt"})
        for path in Path(made).iterdir():
            write_whole(folder / path.name, partial(shutil.copyfile, path))
