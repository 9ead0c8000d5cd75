"""The first half of a step: rollouts are written and judged, and become the examples that are learnt from."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from opsd_lab.contexts import ContextBuilder
from opsd_lab.contexts.views import needs_rollout
from opsd_lab.objectives import Objective, TokenWeights
from opsd_lab.objectives.marks import Signal, marks_of
from opsd_lab.policies.teacher_checks import check_lengths
from opsd_lab.problems.problem import Problem
from opsd_lab.rollouts.base import Rollout, SamplingParams
from opsd_lab.rollouts.gates import Gate
from opsd_lab.rollouts.group import Group, groups_of
from opsd_lab.rollouts.sampling import problems_of
from opsd_lab.rollouts.sources import Order, Written
from opsd_lab.rollouts.teacher_writes import continue_as_teacher
from opsd_lab.scoring.batching import Example
from opsd_lab.training.judging import judged, let_through
from opsd_lab.training.ledger import Stopwatch
from opsd_lab.training.records import Judged, TrainingParams

if TYPE_CHECKING:
    from opsd_lab.training.trainer import Trainer


class Settings(NamedTuple):
    """The pieces of one step, with the step's numbers in place of schedules and controllers."""

    number: int
    objective: Objective
    sampling: SamplingParams
    params: TrainingParams
    contexts: ContextBuilder
    gate: Gate | None
    weights: TokenWeights | None
    signals: Mapping[str, Signal]


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

    @property
    def judged(self) -> Judged:
        """The same with rewards and weights, for the step's record."""
        return Judged(self.rollouts, None if self.rewards is None else tuple(self.rewards), tuple(map(float, self.kept)))


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
        prompts = [trainer.prompts[i] for i in mine]
        if settings.contexts is not trainer.contexts:  # a view has a number that changes with the step
            prompts = [settings.contexts.build(problem) for problem in problems]
        order = Order(trainer.sampler, trainer.teacher, problems, prompts, sampling, settings.contexts)
        written = trainer.source.write(order)
        owners = problems_of(written.rollouts, problems)
        rewards = None if trainer.rewards is None else judged(trainer.rewards, written.rollouts, owners)
        kept = let_through(settings.gate, rewards, [problem.id for problem in owners], written.rollouts)
        examples, asked = _examples(trainer, settings, order, written, owners, rewards, kept)
    return Drawn(settings, replace(written, by_teacher=written.by_teacher + asked), rewards, kept, examples, watch)


def _examples(
    trainer: "Trainer",
    settings: Settings,
    order: Order,
    written: Written,
    owners: Sequence[Problem],
    rewards: Sequence[float] | None,
    kept: Sequence[float],
) -> tuple[list[Example], tuple[Rollout, ...]]:
    """Return the examples, and what the teacher wrote for its views."""
    prompts = {problem.id: shown for problem, shown in zip(order.problems, order.prompts, strict=True)}
    names, groups = [problem.id for problem in owners], groups_of(order.problems, written.rollouts, rewards)
    advantages = [0.0] * len(names) if rewards is None else settings.objective.advantages(rewards, names)
    scored = [_scored(rollout, settings.params) if keep else 0 for rollout, keep in zip(written.rollouts, kept, strict=True)]
    chosen, contexts = [i for i, count in enumerate(scored) if count], settings.contexts
    asked = written_views(order, [(owners[i], written.rollouts[i], groups[i]) for i in chosen])
    examples = []
    for place, i in enumerate(chosen):
        rollout, problem, shown = written.rollouts[i], owners[i], prompts[owners[i].id]
        if contexts.needs_rollout:
            texts = {name: found[place].text for name, found in asked.items() if place in found}
            shown = contexts.with_rollout(shown, problem, rollout, groups[i], texts)
        known = {} if rewards is None else {"outcome": rewards[i], "pass_rate": groups[i].pass_rate}
        known |= {"source": written.sources[i]} if written.sources else {}
        weight = float(kept[i]) if settings.params.normalisation == "token" else float(kept[i]) / scored[i]
        marked = marks_of(trainer.marks, problem, rollout)
        examples.append(Example(shown, rollout, scored[i], weight, advantages[i], **known, marked=marked))
    changing = contexts.needs_rollout or contexts is not trainer.contexts
    if changing and settings.objective.needs_teacher:
        with trainer.teacher.beside(trainer.policy) as theirs:
            for view in contexts.views:
                found = [(e, e.prompts.teachers[view]) for e in examples]
                lengths = [(f"problem {e.rollout.problem_id!r}", len(ids), e.scored) for e, ids in found if ids is not None]
                check_lengths(theirs, "teacher", lengths)
    return examples, tuple({id(r): r for found in asked.values() for r in found.values()}.values())


def _scored(rollout: Rollout, params: TrainingParams) -> int:
    """Return how many of a rollout's tokens are learnt from."""
    count = len(rollout.completion_ids)
    return count - {"keep": 0, "keep_without_last_token": 1, "drop": count}[params.truncated] if rollout.truncated else count


def written_views(order: Order, seen: Sequence[tuple[Problem, Rollout, Group]]) -> dict[str, dict[int, Rollout]]:
    """Return what the teacher writes for each `WrittenView`, by the view's name and the place among `seen`.

    `order` says who the teacher is. `seen` are the rollouts that are learnt from, with their problems and groups. What asks alike is
    written once; where there is nothing to ask, nothing is written.

    Raises:
        TypeError, ValueError: as `continue_as_teacher` does.
    """
    found: dict[str, dict[int, Rollout]] = {}
    for name, view in order.contexts.written.items():
        needs = needs_rollout(view.ask)
        asked: dict[tuple[str, tuple[int, ...]], list[int]] = {}
        for place, (problem, rollout, group) in enumerate(seen):
            ids = order.contexts.teacher_prompt(problem, view.ask, *((rollout, group) if needs else ()))
            if ids is not None:
                asked.setdefault((problem.id, ids), []).append(place)
        found[name] = {}
        if asked:
            drawing = SamplingParams(view.max_new_tokens, temperature=view.temperature, seed=order.params.seed)
            problems = [seen[places[0]][0] for places in asked.values()]
            rollouts = continue_as_teacher(replace(order, problems=problems, params=drawing), [ids for _, ids in asked])
            found[name] = {p: r for places, r in zip(asked.values(), rollouts, strict=True) for p in places}
    return found
