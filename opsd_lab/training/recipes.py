"""Methods as compositions: who writes, what the teacher sees, whose weights teach, what the signal is, which rollouts count."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace

from opsd_lab.basics.options import instance, whole
from opsd_lab.contexts import ChatFormat, ContextBuilder, View, no_privilege
from opsd_lab.objectives.opsd import OPSD, Objective
from opsd_lab.policies.policy import Policy
from opsd_lab.policies.teachers import Teacher, fixed_teacher
from opsd_lab.problems.problem import Problem
from opsd_lab.rollouts.base import Sampler, SamplingParams
from opsd_lab.rollouts.sources import Gate, Rewards, Source, StudentWrites, Texts
from opsd_lab.training.pieces import check_groups
from opsd_lab.training.records import TrainingParams
from opsd_lab.training.trainer import Trainer


def student_writes(policy: Policy) -> Source:
    """Return the source of on-policy rollouts."""
    return StudentWrites()


def texts_of(text: Callable[[Problem], str]) -> Callable[[Policy], Source]:
    """Return the source of given texts; `text` says what a problem's completion is."""

    def source(policy: Policy) -> Source:
        return Texts(text, policy.tokenizer)

    return source


def as_they_are(policy: Policy, problems: Sequence[Problem]) -> list[Problem]:
    """Return the problems."""
    return list(problems)


@dataclass(frozen=True)
class Recipe:
    """One method.

    `n` rollouts are drawn per problem. `problems` may change or choose the training problems, with the initial policy at hand. What
    `sampling` and `training` name replaces what the study sets for all arms.

    Raises:
        TypeError, ValueError: for an objective or `n` of another kind, one rollout a problem where rollouts are compared with each
            other, or names that are none of `SamplingParams` and `TrainingParams`.
    """

    objective: Objective = field(default_factory=OPSD)
    view: View = no_privilege
    source: Callable[[Policy], Source] = student_writes
    teacher: Callable[[Policy], Teacher] = fixed_teacher
    gate: Gate | None = None
    n: int = 1
    problems: Callable[[Policy, Sequence[Problem]], list[Problem]] = as_they_are
    sampling: dict[str, float] = field(default_factory=dict)
    training: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        whole("Recipe: n", self.n, least=1)
        instance("Recipe: objective", self.objective, Objective, "write OPSD(forward_kl), say, not OPSD or forward_kl")
        check_groups(self.objective, self.gate, self.n, "n")
        for name, kind, settled in (("sampling", SamplingParams, {"n", "seed"}), ("training", TrainingParams, {"batch_size"})):
            known = {f.name for f in fields(kind)} - settled
            if unknown := sorted(getattr(self, name).keys() - known):
                raise ValueError(f"Recipe: {name} takes {', '.join(sorted(known))}, not {', '.join(unknown)}")

    def trainer(
        self,
        policy: Policy,
        problems: Sequence[Problem],
        chat: ChatFormat,
        sampler: Sampler,
        sampling: SamplingParams,
        params: TrainingParams,
        rewards: Rewards,
        rollouts: int,
    ) -> Trainer:
        """Return the trainer of this method; a step has `rollouts` rollouts, however many each problem gets.

        Raises:
            ValueError: when `n` does not divide the rollouts, and as `Trainer` does.
        """
        if rollouts % self.n:
            raise ValueError(f"{rollouts} rollouts a step cannot be shared out {self.n} to a problem; choose a multiple")
        needed = self.gate is not None or self.objective.needs_rewards
        return Trainer(
            policy,
            self.problems(policy, problems),
            ContextBuilder(policy.tokenizer, self.view, student=chat, teacher=chat),
            sampler,
            replace(sampling, n=self.n, **self.sampling),
            objective=self.objective,
            teacher=self.teacher(policy),
            params=replace(params, batch_size=rollouts // self.n, **self.training),
            source=self.source(policy),
            rewards=rewards if needed else None,
            gate=self.gate,
        )
