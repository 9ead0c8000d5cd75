"""The first half of a step: rollouts are written and judged, and become the examples that are learnt from."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from opsd_lab.objectives import Objective
from opsd_lab.policies.teacher_checks import check_lengths
from opsd_lab.problems.problem import Problem
from opsd_lab.rollouts.base import Rollout, SamplingParams
from opsd_lab.rollouts.group import groups_of
from opsd_lab.rollouts.sampling import problems_of
from opsd_lab.rollouts.sources import Order, Written
from opsd_lab.scoring.batching import Example
from opsd_lab.training.judging import judged, let_through
from opsd_lab.training.ledger import Stopwatch
from opsd_lab.training.records import TrainingParams

if TYPE_CHECKING:
    from opsd_lab.training.trainer import Trainer


class Settings(NamedTuple):
    """The pieces of one step, with the step's numbers in place of schedules and controllers."""

    number: int
    objective: Objective
    sampling: SamplingParams
    params: TrainingParams


class Drawn(NamedTuple):
    """A step before it is taken: what was written, the rewards and weights of its rollouts, and the examples to learn from."""

    settings: Settings
    written: Written
    rewards: list[float] | None
    kept: list[float]
    examples: list[Example]
    watch: Stopwatch

    @property
    def rollouts(self) -> tuple[Rollout, ...]:
        """The rollouts of the step, those that do not count among them."""
        return self.written.rollouts


def draw(trainer: "Trainer", settings: Settings) -> Drawn:
    """Get a step's rollouts, judge them and build their prompts; nothing of the trainer's changes.

    Raises:
        TypeError, ValueError: for what the source, rewards, the gate or a view return.
    """
    watch = Stopwatch()
    with watch.phase("generate"):
        mine = trainer.share(settings.params.problems_of_step(settings.number, len(trainer.problems)))
        problems = [trainer.problems[i] for i in mine]
        seed = int(np.random.SeedSequence([settings.params.seed, settings.number]).generate_state(1)[0])
        sampling = replace(settings.sampling, seed=seed)
        order = Order(trainer.sampler, trainer.teacher, problems, [trainer.prompts[i] for i in mine], sampling)
        written = trainer.source.write(order)
        owners = problems_of(written.rollouts, problems)
        rewards = None if trainer.rewards is None else judged(trainer.rewards, written.rollouts, owners)
        kept = let_through(trainer.gate, rewards, [problem.id for problem in owners])
        examples = _examples(trainer, settings, order, written, owners, rewards, kept)
    return Drawn(settings, written, rewards, kept, examples, watch)


def _examples(
    trainer: "Trainer",
    settings: Settings,
    order: Order,
    written: Written,
    owners: Sequence[Problem],
    rewards: Sequence[float] | None,
    kept: Sequence[float],
) -> list[Example]:
    prompts = {problem.id: shown for problem, shown in zip(order.problems, order.prompts, strict=True)}
    names, groups = [problem.id for problem in owners], groups_of(order.problems, written.rollouts, rewards)
    advantages = [0.0] * len(names) if rewards is None else settings.objective.advantages(rewards, names)
    examples, contexts = [], trainer.contexts
    for i, (rollout, problem, keep) in enumerate(zip(written.rollouts, owners, kept, strict=True)):
        scored = len(rollout.completion_ids) if keep else 0
        if scored and rollout.truncated:
            scored -= {"keep": 0, "keep_without_last_token": 1, "drop": scored}[settings.params.truncated]
        if not scored:
            continue
        shown = prompts[problem.id]
        if contexts.needs_rollout:
            shown = contexts.with_rollout(shown, problem, rollout, groups[i])
        known = {} if rewards is None else {"outcome": rewards[i], "pass_rate": groups[i].pass_rate}
        weight = float(keep) if settings.params.normalisation == "token" else float(keep) / scored
        examples.append(Example(shown, rollout, scored, weight, advantages[i], **known))
    if contexts.needs_rollout and settings.objective.needs_teacher:
        with trainer.teacher.beside(trainer.policy) as theirs:
            for view in contexts.views:
                found = [(e, e.prompts.teachers[view]) for e in examples]
                lengths = [(f"problem {e.rollout.problem_id!r}", len(ids), e.scored) for e, ids in found if ids is not None]
                check_lengths(theirs, "teacher", lengths)
    return examples
