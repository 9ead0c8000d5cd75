"""One optimiser step, whole: ours with each sampler against trl's SDFTTrainer, on the same model, prompts, precision and LoRA.

Every way samples at most 28 tokens for each of the same 16 problems at temperature 1, scores them under both contexts, and takes an
AdamW step on the full-vocabulary forward KL divergence to the initial model. The learning rate is so small that the policies stay
alike, so that all write equally long completions. trl runs without gradient checkpointing, which saves memory and costs time. The
floor is what `tests.benchmarks.floor` says.
"""

import functools
import importlib.util
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import tyro
from transformers import TrainerCallback

from opsd_lab.contexts import ContextBuilder, View, answer_only
from opsd_lab.experiments.walkthrough import CHAT, control_view, reference_view, train_problems
from opsd_lab.objectives import OPSD
from opsd_lab.objectives.targets import GeometricMixture
from opsd_lab.policies.policy import LORA_TARGETS, Policy, add_lora, load_policy
from opsd_lab.rollouts import HFSampler, Sampler, SamplingParams, VLLMSampler
from opsd_lab.training.trainer import Trainer, TrainingParams
from tests.benchmarks.floor import floor, rows_of
from tests.benchmarks.measure import alternate, medians, peak_memory, ratio, show

LEARNING_RATE = 1e-6
Step = Callable[[], float | None]


@dataclass(frozen=True)
class Workload:
    """The model in a precision; how many problems, rollouts of each, views, new tokens, and words that make prompts longer."""

    load: Callable[[torch.dtype], Policy]
    dtype: torch.dtype
    prompts: int = 16
    new_tokens: int = 28
    each: int = 1
    views: int = 1
    words: int = 0


def embedded(dtype: torch.dtype) -> Policy:
    """Return the embedded model."""
    return load_policy(dtype=dtype)


VIEWS: dict[str, View] = {"solution": reference_view(), "answer": answer_only, "other solution": control_view()}


def prompts_of(policy: Policy, work: Workload) -> ContextBuilder:
    """Return what renders the workload's prompts."""
    view = reference_view() if work.views == 1 else dict(list(VIEWS.items())[: work.views])
    chat = replace(CHAT, instruction=" ".join(["word"] * work.words))
    return ContextBuilder(policy.tokenizer, view, student=chat, teacher=chat)


def objective_of(work: Workload) -> OPSD:
    """Return OPSD; several views are mixed in equal parts."""
    return OPSD() if work.views == 1 else OPSD(target=GeometricMixture(dict.fromkeys(list(VIEWS)[: work.views], 1 / work.views)))


def ours(make_sampler: Callable[[Policy], Sampler], work: Workload) -> Step:
    """Return what takes one of our steps."""
    policy = add_lora(work.load(work.dtype))
    sampling = SamplingParams(max_new_tokens=work.new_tokens, n=work.each)
    params, contexts = TrainingParams(batch_size=work.prompts, learning_rate=LEARNING_RATE), prompts_of(policy, work)
    problems, sampler = train_problems()[: work.prompts], make_sampler(policy)
    trainer = Trainer(policy, problems, contexts, sampler, sampling, objective=objective_of(work), params=params)
    return lambda: next(None for _ in trainer.train(1, progress=False))


def hf(work: Workload) -> Step:
    """Ours, sampling with transformers."""
    return ours(functools.partial(HFSampler, progress=False), work)


def vllm(work: Workload) -> Step:
    """Ours, sampling with vLLM."""
    return ours(functools.partial(VLLMSampler, progress=False), work)


class _Clock(TrainerCallback):
    """Times a step from before its rollouts are sampled until after the optimiser's update."""

    seconds = 0.0

    def on_step_begin(self, *_: object, **__: object) -> None:
        self.seconds = -time.perf_counter()

    def on_step_end(self, *_: object, **__: object) -> None:
        self.seconds += time.perf_counter()


def trl(work: Workload) -> Step:
    """trl's SDFTTrainer; what its `train` does before and after the step is not counted."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl.experimental.sdft import SDFTConfig, SDFTTrainer

    policy = work.load(work.dtype)
    contexts, tokenizer = prompts_of(policy, work), policy.tokenizer
    pairs = [contexts.build(problem) for problem in train_problems()[: work.prompts]]
    rows = [{"prompt": tokenizer.decode(p.student_ids), "privileged_context": tokenizer.decode(p.teacher_ids)} for p in pairs]
    assert [tuple(tokenizer(row["prompt"])["input_ids"]) for row in rows] == [p.student_ids for p in pairs]
    assert [tuple(tokenizer(row["privileged_context"])["input_ids"]) for row in rows] == [p.teacher_ids for p in pairs]
    args = SDFTConfig(
        output_dir=tempfile.mkdtemp(prefix="opsd-lab-bench-"),
        per_device_train_batch_size=work.prompts,
        num_generations=1,
        max_steps=1,
        max_prompt_length=None,
        max_completion_length=work.new_tokens,
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


WAYS: dict[str, Callable[[Workload], Step]] = {"trl": trl, "hf": hf, "vllm": vllm}


def _second(name: str, work: Workload) -> Step:
    step = WAYS[name](work)
    step()
    return step


def compare(work: Workload, rounds: int) -> dict[str, object]:
    """Return seconds and peak bytes of every way, and the ratios to trl and to the floor; without vLLM where it is not installed."""
    names = [name for name in WAYS if name != "vllm" or importlib.util.find_spec("vllm")]
    policy = work.load(work.dtype)
    alone = floor(policy, rows_of(policy, work.prompts, work.new_tokens))
    seconds = alternate({name: WAYS[name](work) for name in names} | {"floor": alone}, rounds, f"step in {work.dtype}")
    memory = {name: peak_memory(functools.partial(_second, name, work)) for name in ("trl", "hf")}
    return {
        "dtype": str(work.dtype),
        "prompts": work.prompts,
        "new_tokens": work.new_tokens,
        "seconds": medians(seconds),
        "rounds": seconds,
        "peak_bytes": memory,
        "time_vs_trl": {name: ratio(seconds, name, "trl") for name in names if name != "trl"},
        "time_vs_floor": {name: ratio(seconds, name, "floor") for name in names},
        "memory_vs_trl": memory["hf"] / memory["trl"],
    }


def main(dtype: str = "float32", rounds: int = 5) -> None:
    """Print one comparison."""
    show(compare(Workload(embedded, getattr(torch, dtype)), rounds))


if __name__ == "__main__":
    tyro.cli(main)
