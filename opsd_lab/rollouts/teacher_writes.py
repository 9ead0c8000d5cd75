"""Completions that the teacher writes, with the privileged information in view."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

from peft.tuners.tuners_utils import BaseTunerLayer

from opsd_lab.basics.interrupts import interruptible
from opsd_lab.contexts.views import View, needs_rollout
from opsd_lab.policies.policy import Policy
from opsd_lab.policies.teacher_checks import check_teacher
from opsd_lab.rollouts.base import Rollout, Sampler
from opsd_lab.rollouts.group import groups_of
from opsd_lab.rollouts.hf import HFSampler
from opsd_lab.rollouts.sampling import check_room, continue_prompts, problems_of
from opsd_lab.rollouts.sources import Order, StudentWrites, Written


@dataclass(frozen=True)
class TeacherWrites:
    """Off policy: the teacher writes from its prompt, with the privileged information in view.

    `HFSampler`, which has no weights of its own, runs the teacher's model. Any other sampler is handed the teacher's weights, writes,
    and is handed its former ones back. `sampler` takes the place of the trainer's; another policy as the teacher needs one of its own
    unless an `HFSampler` writes. The log-probabilities are the teacher's.
    """

    sampler: Sampler | None = None

    def write(self, order: Order) -> Written:
        """Return the teacher's samples, put behind the student's prompts.

        Raises:
            ValueError: when the teacher does not fit the student, there is no one view, a prompt with its completion exceeds a
                context, or the sampler cannot have the teacher's weights.
            TypeError: when the sampler does not say whose weights it has.
        """
        own, shown = ([getattr(prompts, f"{side}_ids") for prompts in order.prompts] for side in ("student", "teacher"))
        check_room(_policy_of(order.sampler), "student", order.problems, own, order.params)
        prompts = [ids for ids in own for _ in range(order.params.n)]
        rollouts = continue_as_teacher(order, shown, self.sampler)
        rollouts = tuple(replace(r, prompt_ids=ids) for r, ids in zip(rollouts, prompts, strict=True))
        return Written(rollouts, by_teacher=rollouts)


@dataclass(frozen=True)
class TeacherRewrites:
    """The student's rollouts, each written again by the teacher, which sees what `view` makes of it (arXiv 2605.08776).

    `view` takes the problem, the rollout and its group, as views do, or the problem alone; where it has nothing, nothing is written.
    The group's rollouts are not judged.
    """

    view: View
    sampler: Sampler | None = None

    def write(self, order: Order) -> Written:
        """Return the texts written anew, behind the student's prompts.

        Raises:
            ValueError: as `TeacherWrites` does, and for prompts made by hand.
        """
        first = StudentWrites().write(order)
        owners, groups = problems_of(first.rollouts, order.problems), groups_of(order.problems, first.rollouts)
        asked = []
        for rollout, problem, group in zip(first.rollouts, owners, groups, strict=True):
            seen = (rollout, group) if needs_rollout(self.view) else ()
            if (ids := order.contexts.teacher_prompt(problem, self.view, *seen)) is not None:
                asked.append((problem, rollout.prompt_ids, ids))
        if not asked:
            return replace(first, rollouts=())
        problems, own, shown = (list(part) for part in zip(*asked, strict=True))
        once = replace(order, problems=problems, params=replace(order.params, n=1))
        again = continue_as_teacher(once, shown, self.sampler)
        again = tuple(replace(r, prompt_ids=ids) for r, ids in zip(again, own, strict=True))
        return replace(first, rollouts=again, by_teacher=again)


def continue_as_teacher(order: Order, prompts: Sequence[tuple[int, ...]], sampler: Sampler | None = None) -> tuple[Rollout, ...]:
    """Return what the teacher of an order writes behind prompts, one for each of the order's problems.

    `sampler` takes the place of the order's; it has the weights that it had when this is done.

    Raises:
        TypeError, ValueError: as `TeacherWrites.write` does.
    """
    student, writer = _policy_of(order.sampler), sampler or order.sampler
    before, handed = _policy_of(writer), False
    try:
        with order.teacher.beside(student) as policy:
            check_teacher(student, policy)
            check_room(policy, "teacher", order.problems, prompts, order.params)
            if isinstance(writer, HFSampler):
                writer = copy.copy(writer)
                writer.update(policy)
            elif policy.model is student.model or before.model is not policy.model:
                _check_handover(writer, before, policy)
                handed = True
                writer.update(policy)
            with interruptible():  # an engine waits long; what holds Ctrl-C back for a reason does so again inside
                return tuple(continue_prompts(writer, order.problems, prompts, order.params))
    finally:
        if handed:  # outside the teacher's block, where the student's weights are in place again
            writer.update(before)


def _policy_of(sampler: Sampler) -> Policy:
    if not isinstance(policy := getattr(sampler, "policy", None), Policy):
        raise TypeError(
            f"{type(sampler).__name__} does not say whose weights it has, so a teacher cannot write with it; give it an attribute "
            "`policy`, which `update` sets"
        )
    return policy


def _check_handover(sampler: Sampler, present: Policy, policy: Policy) -> None:
    name = type(sampler).__name__
    if present.model is not policy.model:
        raise ValueError(
            f"{name} has weights of its own, those of {present.name}, and cannot write as {policy.name}; give the teacher a sampler "
            f"of its own: TeacherWrites({name}(...))"
        )
    if any(module.disable_adapters for module in policy.model.modules() if isinstance(module, BaseTunerLayer)):
        raise ValueError(
            f"{name} has weights of its own and cannot be handed a LoRA that is switched off; let ema_teacher(policy, decay=1.0) "
            "teach, which keeps a copy of the initial policy"
        )
