"""The premise of a run, looked at now and then: the accuracy of the student, and of the teacher under its view, on fixed problems."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from opsd_lab.basics.options import whole
from opsd_lab.contexts import ContextBuilder
from opsd_lab.contexts.views import needs_rollout
from opsd_lab.evaluation.estimate import Estimate
from opsd_lab.evaluation.outcomes import By, check_references, grade_rollouts
from opsd_lab.evaluation.statistics import avg_at_k
from opsd_lab.grading import Grader
from opsd_lab.problems.problem import Problem, check_unique
from opsd_lab.rollouts import Rollout, SamplingParams, sample_rollouts
from opsd_lab.rollouts.sampling import check_room
from opsd_lab.rollouts.sources import Order
from opsd_lab.rollouts.teacher_writes import continue_as_teacher

if TYPE_CHECKING:
    from opsd_lab.training.trainer import Trainer


@dataclass(frozen=True)
class Probe:
    """Measures accuracy on `problems`, at every `every`-th step of a run: the student's, and the teacher's unless `teacher` is false.

    `sampling` says how answers are drawn, each time with the same seed, and `by` which answer of a completion counts. `contexts` are
    those of the evaluation; None takes the run's own. A view that looks at a rollout, or has nothing to show for a problem, has no
    teacher's answer there.

    Raises:
        TypeError, ValueError: for no problems, two with one id, or a number of steps that is none.
    """

    problems: tuple[Problem, ...] = field(repr=False)
    grader: Grader = field(repr=False)
    sampling: SamplingParams
    every: int = 10
    by: By = "final"
    teacher: bool = True
    contexts: ContextBuilder | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "problems", tuple(self.problems))
        whole("Probe: every", self.every, least=1)
        if not self.problems:
            raise ValueError("Probe: there are no problems")
        check_unique(self.problems)
        check_references(self.grader, self.problems)

    def identity_data(self) -> dict[str, object]:
        """Return what the numbers depend on."""
        found = {"problems": self.problems, "sampling": self.sampling, "every": self.every, "by": self.by, "teacher": self.teacher}
        own = self.contexts
        return found | {"grader": self.grader, "contexts": own and (own.student, own.teacher, dict(own.views))}

    def is_due(self, step: int) -> bool:
        """Return whether a step is measured."""
        return step % self.every == 0

    def check(self, trainer: "Trainer") -> None:
        """Build every prompt that measuring needs, so that what cannot be built is reported before any work.

        Raises:
            ValueError: when one cannot be built, or leaves no room for an answer; it names the problem.
        """
        contexts = self.contexts or trainer.contexts
        prompts = [contexts.student_prompt(problem) for problem in self.problems]
        check_room(trainer.policy, "student", self.problems, prompts, self.sampling)
        if self.teacher and trainer.objective.needs_teacher:
            for problems, shown in self._shown(trainer).values():
                check_room(trainer.policy, "teacher", problems, shown, self.sampling)

    def measure(self, trainer: "Trainer") -> dict[str, float]:
        """Return `accuracy`, `truncated_answers`, `answer_length` and `teacher_accuracy`, each accuracy with its 95 % interval.

        With several views each has a `teacher_accuracy` of its own, its name behind it.

        Raises:
            ValueError: when a prompt cannot be built, or leaves no room for an answer; it names the problem.
        """
        contexts = self.contexts or trainer.contexts
        rollouts = sample_rollouts(trainer.sampler, contexts, self.problems, self.sampling)
        found = _named("accuracy", self._accuracy(rollouts))
        found["truncated_answers"] = float(np.mean([rollout.truncated for rollout in rollouts]))
        found["answer_length"] = float(np.mean([len(rollout.completion_ids) for rollout in rollouts]))
        return found | (self._of_teacher(trainer) if self.teacher and trainer.objective.needs_teacher else {})

    def _of_teacher(self, trainer: "Trainer") -> dict[str, float]:
        found: dict[str, float] = {}
        contexts = trainer.at(trainer.step + 1).contexts
        for name, (problems, prompts) in self._shown(trainer).items():
            order = Order(trainer.sampler, trainer.teacher, problems, [], self.sampling, contexts)
            label = "teacher_accuracy" if len(contexts.views) == 1 else f"teacher_accuracy_{name}"
            found |= _named(label, self._accuracy(continue_as_teacher(order, prompts)))
        return found

    def _shown(self, trainer: "Trainer") -> dict[str, tuple[tuple[Problem, ...], tuple[tuple[int, ...], ...]]]:
        """Return the problems that a view shows something of, with the teacher's prompts, by the view's name."""
        found = {}
        contexts = trainer.at(trainer.step + 1).contexts
        for name, view in contexts.views.items():
            if needs_rollout(view):
                continue
            shown = [(problem, contexts.teacher_prompt(problem, view)) for problem in self.problems]
            if kept := [(problem, ids) for problem, ids in shown if ids is not None]:
                found[name] = tuple(zip(*kept, strict=True))
        return found

    def _accuracy(self, rollouts: Sequence[Rollout]) -> Estimate:
        grades = grade_rollouts(self.grader, rollouts, self.problems)
        correct = np.array([getattr(grade, self.by) == "correct" for grade in grades])
        return avg_at_k(correct.reshape(-1, self.sampling.n))


def _named(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.mean, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
