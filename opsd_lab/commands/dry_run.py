"""What a run would be: its whole recipe, both prompts of a problem, token counts, and what it needs, from one measured step."""

import time

import numpy as np

from opsd_lab.contexts.views import needs_rollout
from opsd_lab.runs.alarms import nothing_to_teach
from opsd_lab.runs.building import Built
from opsd_lab.runs.plan import Plan, plan_to_toml
from opsd_lab.token_view.visible import visible_text
from opsd_lab.training.ledger import peak_memory_gib
from opsd_lab.training.trainer import Trainer

MARK = "▶ ", "▌ "
SHOWN = 100  # lines of a prompt


def described_run(plan: Plan, built: Built) -> str:
    """Return the description; one step is taken in memory, and nothing is written."""
    trainer = built.trainer
    parts = [plan_to_toml(plan).rstrip(), prompts(trainer), counts(trainer)]
    trainable = sum(p.numel() for p in trainer.trainable)
    whole = sum(p.numel() for p in trainer.policy.model.parameters())
    parts.append(f"{trainer.policy.name} on {trainer.policy.device}: {trainable:,} of {whole:,} numbers train")
    return "\n\n".join([*parts, measured_step(plan, built)])


def prompts(trainer: Trainer) -> str:
    """Return both prompts of the first problem; the lines of the teacher's that the student does not see are marked."""
    contexts, problem = trainer.at(1).contexts, trainer.problems[0]
    student = contexts.text(problem, "student")
    parts = [f"The student reads, of problem {problem.id!r}:\n{_marked(student, student)}"]
    for name, view in contexts.views.items():
        if needs_rollout(view):
            parts.append(f"The view {name!r} looks at a rollout, so that its prompt is made in training.")
        elif trainer.prompts[0].teachers[name] is None:
            parts.append(f"The view {name!r} has nothing to show of this problem.")
        else:
            teacher = contexts.text(problem, "teacher", name)
            parts.append(f"The teacher reads ({MARK[0].strip()} marks what the student does not):\n{_marked(teacher, student)}")
    return "\n\n".join([*parts, *filter(None, [nothing_to_teach(trainer)])])


def _marked(text: str, known: str) -> str:
    """Return a text with a mark before each line of the part in which it differs from a known one."""
    start = _shared(text, known)
    end, lines, place = max(start, len(text) - _shared(text[::-1], known[::-1])), [], 0
    for line in text.split("\n"):
        inside = place < end and place + len(line) > start and start < end
        lines.append(f"{MARK[0] if inside else MARK[1]}{visible_text(line) if line else ''}")
        place += len(line) + 1
    more = f"\n... and {len(lines) - SHOWN} more lines" if len(lines) > SHOWN else ""
    return "\n".join(lines[:SHOWN]) + more


def _shared(a: str, b: str) -> int:
    """Return with how many characters two texts begin alike."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def counts(trainer: Trainer) -> str:
    """Return how many problems there are, how long their prompts are, and what has no context under a view."""
    each = f"{trainer.params.batch_size} problems with {trainer.sampling.n} rollouts each"
    lines = [f"{len(trainer.problems):,} problems; a step takes {each}"]
    sides = {"student": [prompt.student_ids for prompt in trainer.prompts]}
    sides |= {f"teacher, {name}": [prompt.teachers[name] for prompt in trainer.prompts] for name in trainer.contexts.views}
    for side, ids in sides.items():
        lengths = [len(one) for one in ids if one is not None]
        if lengths:
            lines.append(f"  prompt of the {side}: {int(np.median(lengths))} tokens in the middle, {max(lengths)} at most")
        if missing := sum(one is None for one in ids):
            lines.append(f"  {missing:,} problems have no context yet for the {side}; such rollouts do not count for it")
    return "\n".join(lines)


def measured_step(plan: Plan, built: Built) -> str:
    """Return what one step took, and what the run would take at that rate."""
    started = time.perf_counter()
    record = next(iter(built.trainer.train(1)))
    step = time.perf_counter() - started
    measuring = 0.0
    if built.probe:
        started = time.perf_counter()
        built.probe.measure(built.trainer)
        measuring = time.perf_counter() - started
    times = plan.steps // plan.probe.every if built.probe else 0
    length, cut = record.metrics["completion_length"], record.metrics["truncated"]
    return (
        f"one step took {step:.1f} s and one measurement {measuring:.1f} s: {plan.steps} steps with {times} measurements take about "
        f"{_duration(plan.steps * step + times * measuring)}\n"
        f"rollouts had {length:.0f} tokens, {cut:.0%} of them cut at {built.trainer.sampling.max_new_tokens}, "
        f"{record.metrics['dropped']:.0f} did not count\n"
        f"at most {peak_memory_gib():.1f} GiB of memory were used"
    )


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
