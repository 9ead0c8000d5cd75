"""Methods as compositions: who writes, what the teacher sees, whose weights teach, what the signal is, which rollouts count."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import reduce

from opsd_lab.basics.options import instance, whole
from opsd_lab.contexts import ChatFormat, ContextBuilder, View, no_privilege
from opsd_lab.objectives import OPSD, Mark, Objective, Signal, TokenWeights
from opsd_lab.policies.policy import Policy
from opsd_lab.policies.teachers import Teacher, fixed_teacher
from opsd_lab.problems.problem import Problem
from opsd_lab.rollouts.base import Sampler, SamplingParams
from opsd_lab.rollouts.gates import Gate, Rewards
from opsd_lab.rollouts.sources import Source, StudentWrites
from opsd_lab.training.ledger import Ledger
from opsd_lab.training.pieces import check_groups
from opsd_lab.training.records import TrainingParams
from opsd_lab.training.start import Start, begun
from opsd_lab.training.trainer import Trainer


def as_they_are(policy: Policy, problems: Sequence[Problem]) -> list[Problem]:
    """Return the problems."""
    return list(problems)


def by_answer(rewards: Rewards) -> Rewards:
    """Return the study's rewards as they are."""
    return rewards


@dataclass(frozen=True)
class Recipe:
    """One method, as data: it prints as it is written, and `methods.recipe_files` reads and writes it as TOML.

    `view` is what the teacher sees, one view or several by name. `source` writes `n` rollouts per problem. `teacher` makes of the
    policy whose weights teach. `gate` weighs rollouts, `weights` tokens; `marks` and `signals` say more of each token, by name.
    `rewards` may change how the study judges. `student_chat`, `teacher_chat` and `evaluation_chat` replace the format that the study
    sets. `problems` may change or choose the training problems, with the initial policy at hand. What `sampling` and `training` name
    replaces what the study sets for all arms. A piece with a method `begin` is made when the run starts, see `training.start`.

    Raises:
        TypeError, ValueError: for an objective or `n` of another kind, one rollout a problem where rollouts are compared with each
            other, or names that are none of `SamplingParams` and `TrainingParams`.
    """

    objective: Objective = field(default_factory=OPSD)
    view: View | Mapping[str, View] = no_privilege
    source: Source = field(default_factory=StudentWrites)
    teacher: Callable[[Policy], Teacher] = fixed_teacher
    gate: Gate | None = None
    weights: TokenWeights | None = None
    marks: dict[str, Mark] = field(default_factory=dict)
    signals: dict[str, Signal] = field(default_factory=dict)
    rewards: Callable[[Rewards], Rewards] = by_answer
    n: int = 1
    student_chat: ChatFormat | None = None
    teacher_chat: ChatFormat | None = None
    evaluation_chat: ChatFormat | None = None
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
        """Return the trainer of this method.

        Args:
            policy: the fresh student.
            problems: what all arms train on.
            chat: the format of both sides, unless the recipe has its own.
            sampler: what continues prompts.
            sampling: how rollouts are drawn, but for what the recipe changes.
            params: how the student is optimised, likewise.
            rewards: what judges rollouts, where the recipe needs it.
            rollouts: how many rollouts a step has, however many each problem gets.

        Raises:
            ValueError: when `n` does not divide the rollouts, and as `Trainer` does.
        """
        if rollouts % self.n:
            raise ValueError(f"{rollouts} rollouts a step cannot be shared out {self.n} to a problem; choose a multiple")
        formats = {"student": self.student_chat or chat, "teacher": self.teacher_chat or chat}
        drawn, chosen = replace(sampling, n=self.n, **self.sampling), self.problems(policy, problems)
        plain = ContextBuilder(policy.tokenizer, no_privilege, **formats)
        judges = self.rewards(rewards)
        own_params = replace(params, batch_size=rollouts // self.n, **self.training)
        start = Start(policy, chosen, plain, sampler, drawn, judges, own_params)
        own = begun(self, start)
        contexts = ContextBuilder(policy.tokenizer, own.view, **formats)
        looks = own.objective.needs_rewards or own.objective.sees_outcomes or contexts.needs_rollout
        needed = looks or own.gate is not None or own.weights is not None or own.signals
        trainer = Trainer(
            policy,
            chosen,
            contexts,
            sampler,
            drawn,
            objective=own.objective,
            teacher=own.teacher(policy),
            params=own_params,
            source=own.source,
            rewards=judges if needed else None,
            gate=own.gate,
            weights=own.weights,
            marks=own.marks,
            signals=own.signals,
        )
        trainer.ledger = reduce(Ledger.plus, start.bills, trainer.ledger)
        return trainer
