"""Who writes the completions that a step learns from, and what writing them took."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from opsd_lab.basics.options import name_of, real, whole
from opsd_lab.contexts import ContextBuilder, Prompts
from opsd_lab.policies.teachers import Teacher
from opsd_lab.problems.problem import Problem
from opsd_lab.rollouts.base import Rollout, Sampler, SamplingParams
from opsd_lab.rollouts.sampling import check_room, continue_prompts


@dataclass(frozen=True)
class Order:
    """What a step asks of a source: completions of some problems, whose prompts are given, and who can write them.

    `contexts` made the prompts; None where they were made by hand.
    """

    sampler: Sampler
    teacher: Teacher
    problems: Sequence[Problem]
    prompts: Sequence[Prompts]
    params: SamplingParams
    contexts: ContextBuilder | None = None

    def of(self, chosen: Sequence[int]) -> "Order":
        """Return the order for some of the problems."""
        return replace(self, problems=[self.problems[i] for i in chosen], prompts=[self.prompts[i] for i in chosen])


@dataclass(frozen=True)
class Written:
    """The rollouts that a step learns from, and all that was sampled for it, from the student and from the teacher, kept or not.

    `sources` numbers who wrote each of the rollouts, where several did; empty where one did.
    """

    rollouts: tuple[Rollout, ...]
    by_student: tuple[Rollout, ...] = ()
    by_teacher: tuple[Rollout, ...] = ()
    sources: tuple[int, ...] = ()

    def plus(self, other: "Written") -> "Written":
        """Return both, one behind the other."""
        return Written(*(mine + theirs for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True)))

    def from_source(self, number: int) -> "Written":
        """Return this with all rollouts numbered as one source's."""
        return replace(self, sources=(number,) * len(self.rollouts))


class Source(Protocol):
    """Where completions come from; each continues the student's prompt, whoever wrote it, and names its problem.

    A source with an attribute `samples` that is false gives rollouts without log-probabilities.
    """

    def write(self, order: Order) -> Written:
        """Return completions of the problems, `order.params.n` of each where they are sampled."""
        ...


@dataclass(frozen=True)
class StudentWrites:
    """On policy: the student writes from its own prompt."""

    def write(self, order: Order) -> Written:
        """Return the student's samples.

        Raises:
            ValueError: when a prompt with its completion exceeds the context; it names the problem.
        """
        prompts = [prompts.student_ids for prompts in order.prompts]
        check_room(getattr(order.sampler, "policy", None), "student", order.problems, prompts, order.params)
        rollouts = tuple(continue_prompts(order.sampler, order.problems, prompts, order.params))
        return Written(rollouts, by_student=rollouts)


def _all_sample(sources: Sequence[Source]) -> bool:
    return all(getattr(source, "samples", True) for source in sources)


@dataclass(frozen=True)
class Stored:
    """Rollouts that exist, such as those of `load_rollouts`: each problem has its own, all of them at every step.

    With `some`, a problem may have none.

    Raises:
        ValueError: for no rollouts.
    """

    rollouts: tuple[Rollout, ...] = field(repr=False)
    some: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "rollouts", tuple(self.rollouts))
        if not self.rollouts:
            raise ValueError("Stored: there are no rollouts")

    def write(self, order: Order) -> Written:
        """Return the problems' rollouts; nothing is sampled.

        Raises:
            ValueError: when a problem has none, or one that continues another prompt than its student's.
        """
        found: list[Rollout] = []
        for problem, prompts in zip(order.problems, order.prompts, strict=True):
            mine = [rollout for rollout in self.rollouts if rollout.problem_id == problem.id]
            if not mine and not self.some:
                raise ValueError(f"Stored: problem {problem.id!r} has no rollout; leave it out of the training problems")
            if any(rollout.prompt_ids != prompts.student_ids for rollout in mine):
                raise ValueError(
                    f"Stored: a rollout of problem {problem.id!r} continues another prompt than the student's; build the contexts as "
                    "when it was written"
                )
            found += mine
        return Written(tuple(found))


@dataclass(frozen=True)
class SourceMixture:
    """Each problem of a step goes to one of several sources, drawn by their shares with the step's seed; they number the rollouts.

    Raises:
        TypeError, ValueError: for no sources, another number of shares, or shares that are not positive.
    """

    sources: tuple[Source, ...]
    shares: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.sources or len(self.sources) != len(self.shares):
            raise ValueError(f"SourceMixture: {len(self.sources)} sources and {len(self.shares)} shares; give one share for each")
        for share in self.shares:
            real("SourceMixture: a share", share, above=0, varies=False)

    @property
    def samples(self) -> bool:
        """Whether all rollouts are sampled."""
        return _all_sample(self.sources)

    def write(self, order: Order) -> Written:
        """Return what the sources write."""
        shares = np.array(self.shares) / sum(self.shares)
        drawn = np.random.default_rng(order.params.seed).choice(len(self.sources), len(order.problems), p=shares)
        found = Written(())
        for i, source in enumerate(self.sources):
            if len(chosen := np.flatnonzero(drawn == i)):
                found = found.plus(source.write(order.of(chosen.tolist())).from_source(i))
        return found


@dataclass(frozen=True)
class Together:
    """Each problem gets what all of several sources write of it; they number the rollouts, in their order.

    Raises:
        ValueError: for no sources.
    """

    sources: tuple[Source, ...]

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("Together: there are no sources")

    @property
    def samples(self) -> bool:
        """Whether all rollouts are sampled."""
        return _all_sample(self.sources)

    def write(self, order: Order) -> Written:
        """Return what the sources write, source by source."""
        found = Written(())
        for i, source in enumerate(self.sources):
            found = found.plus(source.write(order).from_source(i))
        return found


@dataclass(frozen=True)
class PerProblem:
    """Another source's completions, `n` of each problem, however many the recipe asks for.

    Raises:
        TypeError, ValueError: for a number that is none.
    """

    source: Source
    n: int

    def __post_init__(self) -> None:
        whole("PerProblem: n", self.n, least=1)

    @property
    def samples(self) -> bool:
        """Whether all rollouts are sampled."""
        return _all_sample((self.source,))

    def write(self, order: Order) -> Written:
        """Return what the source writes."""
        return self.source.write(replace(order, params=replace(order.params, n=self.n)))


@dataclass(frozen=True)
class BestOf:
    """Another source's completions, of which a function keeps some: `choose` gets a problem with its rollouts, returns those to keep.

    What is not kept was written all the same, and is billed.
    """

    source: Source
    choose: Callable[[Problem, Sequence[Rollout]], Sequence[Rollout]]

    @property
    def samples(self) -> bool:
        """Whether all rollouts are sampled."""
        return _all_sample((self.source,))

    def write(self, order: Order) -> Written:
        """Return what is kept.

        Raises:
            TypeError: when something else is kept than rollouts of the problem.
        """
        written, kept = replace(self.source.write(order), sources=()), []
        for problem in {problem.id: problem for problem in order.problems}.values():
            mine = [rollout for rollout in written.rollouts if rollout.problem_id == problem.id]
            chosen = list(self.choose(problem, mine))
            if any(all(rollout is not known for known in mine) for rollout in chosen):
                raise TypeError(f"BestOf: {name_of(self.choose)} kept something else than rollouts of problem {problem.id!r}")
            kept += chosen
        return replace(written, rollouts=tuple(kept))
