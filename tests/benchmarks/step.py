"""One optimiser step, whole: ours with each sampler against trl's SDFTTrainer, on the same model, prompts, precision and LoRA.

Every way samples at most 28 tokens for each of the same 16 problems at temperature 1, scores them under both contexts, and takes an
AdamW step on the full-vocabulary forward KL divergence to the initial model. The learning rate is so small that the policies stay
alike, so that all write equally long completions. trl runs without gradient checkpointing, which saves memory and costs time.
"""

import functools
import tempfile
import time
from collections.abc import Callable

import torch
import tyro
from transformers import TrainerCallback

from opsd_lab.contexts import ContextBuilder
from opsd_lab.experiments.walkthrough import CHAT, reference_view, train_problems
from opsd_lab.policies.policy import LORA_TARGETS, Policy, add_lora, load_policy
from opsd_lab.rollouts import HFSampler, Sampler, SamplingParams, VLLMSampler
from opsd_lab.training.trainer import Trainer, TrainingParams
from tests.benchmarks.measure import alternate, medians, peak_memory, ratio, show

PROMPTS, NEW_TOKENS, LEARNING_RATE = 16, 28, 1e-6
Step = Callable[[], float | None]


def _contexts(policy: Policy) -> ContextBuilder:
    return ContextBuilder(policy.tokenizer, reference_view(), student=CHAT, teacher=CHAT)


def ours(make_sampler: Callable[[Policy], Sampler], dtype: torch.dtype, count: int = PROMPTS, length: int = NEW_TOKENS) -> Step:
    """Return what takes one of our steps."""
    policy = add_lora(load_policy(dtype=dtype))
    sampling = SamplingParams(max_new_tokens=length)
    params = TrainingParams(batch_size=count, learning_rate=LEARNING_RATE)
    trainer = Trainer(policy, train_problems()[:count], _contexts(policy), make_sampler(policy), sampling, params=params)
    return lambda: next(None for _ in trainer.train(1, progress=False))


def hf(dtype: torch.dtype) -> Step:
    """Ours, sampling with transformers."""
    return ours(functools.partial(HFSampler, progress=False), dtype)


def vllm(dtype: torch.dtype) -> Step:
    """Ours, sampling with vLLM."""
    return ours(functools.partial(VLLMSampler, progress=False), dtype)


class _Clock(TrainerCallback):
    """Times a step from before its rollouts are sampled until after the optimiser's update."""

    seconds = 0.0

    def on_step_begin(self, *_: object, **__: object) -> None:
        self.seconds = -time.perf_counter()

    def on_step_end(self, *_: object, **__: object) -> None:
        self.seconds += time.perf_counter()


def trl(dtype: torch.dtype) -> Step:
    """trl's SDFTTrainer; what its `train` does before and after the step is not counted."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl.experimental.sdft import SDFTConfig, SDFTTrainer

    policy = load_policy(dtype=dtype)
    contexts, tokenizer = _contexts(policy), policy.tokenizer
    pairs = [contexts.build(problem) for problem in train_problems()[:PROMPTS]]
    rows = [{"prompt": tokenizer.decode(p.student_ids), "privileged_context": tokenizer.decode(p.teacher_ids)} for p in pairs]
    assert [tuple(tokenizer(row["prompt"])["input_ids"]) for row in rows] == [p.student_ids for p in pairs]
    assert [tuple(tokenizer(row["privileged_context"])["input_ids"]) for row in rows] == [p.teacher_ids for p in pairs]
    args = SDFTConfig(
        output_dir=tempfile.mkdtemp(prefix="opsd-lab-bench-"),
        per_device_train_batch_size=PROMPTS,
        num_generations=1,
        max_steps=1,
        max_prompt_length=None,
        max_completion_length=NEW_TOKENS,
        temperature=1.0,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        distillation_mode="full_logits",
        distillation_alpha=0.0,
        distillation_is_clip=None,
        teacher_model_kind="base",
        shuffle_dataset=False,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=not torch.cuda.is_available(),
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    lora = LoraConfig(r=16, lora_alpha=32, target_modules=LORA_TARGETS, lora_dropout=0.0, task_type="CAUSAL_LM")
    clock = _Clock()
    trainer = SDFTTrainer(
        policy.model, args, Dataset.from_list(rows), processing_class=tokenizer, callbacks=[clock], peft_config=lora
    )

    # Its template can only put a solution beside the student's prompt; here both sides' prompts are given whole.
    trainer.teacher_context_builder._compose_teacher_prompt = lambda prompt, context: context

    def step() -> float:
        trainer.train()
        return clock.seconds

    return step


WAYS: dict[str, Callable[[torch.dtype], Step]] = {"trl": trl, "hf": hf, "vllm": vllm}


def _second(name: str, dtype: torch.dtype) -> Step:
    step = WAYS[name](dtype)
    step()
    return step


def compare(dtype: torch.dtype, rounds: int) -> dict[str, object]:
    """Return seconds and peak bytes of every way, and the ratios."""
    steps = {name: make(dtype) for name, make in WAYS.items()}
    seconds = alternate(steps, rounds, f"step in {dtype}")
    memory = {name: peak_memory(functools.partial(_second, name, dtype)) for name in ("trl", "hf")}
    return {
        "dtype": str(dtype),
        "prompts": PROMPTS,
        "new_tokens": NEW_TOKENS,
        "seconds": medians(seconds),
        "rounds": seconds,
        "peak_bytes": memory,
        "time_vs_trl": {name: ratio(seconds, name, "trl") for name in ("hf", "vllm")},
        "memory_vs_trl": memory["hf"] / memory["trl"],
    }


def main(dtype: str = "float32", rounds: int = 5) -> None:
    """Print one comparison."""
    show(compare(getattr(torch, dtype), rounds))


if __name__ == "__main__":
    tyro.cli(main)
