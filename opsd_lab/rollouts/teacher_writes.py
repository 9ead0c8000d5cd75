"""Completions that the teacher writes, with the privileged information in view."""

import copy
from dataclasses import dataclass, replace

from peft.tuners.tuners_utils import BaseTunerLayer

from opsd_lab.basics.interrupts import interruptible
from opsd_lab.policies.policy import Policy
from opsd_lab.policies.teacher_checks import check_teacher
from opsd_lab.rollouts.base import Sampler
from opsd_lab.rollouts.hf import HFSampler
from opsd_lab.rollouts.sampling import check_room, continue_prompts
from opsd_lab.rollouts.sources import Order, Written


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
            context,
                or the sampler cannot have the teacher's weights.
            TypeError: when the sampler does not say whose weights it has.
        """
        student, writer = _policy_of(order.sampler), self.sampler or order.sampler
        before, handed = _policy_of(writer), False
        own, shown = ([getattr(prompts, f"{side}_ids") for prompts in order.prompts] for side in ("student", "teacher"))
        check_room(student, "student", order.problems, own, order.params)
        try:
            with order.teacher.beside(student) as policy:
                check_teacher(student, policy)
                check_room(policy, "teacher", order.problems, shown, order.params)
                if isinstance(writer, HFSampler):
                    writer = copy.copy(writer)
                    writer.update(policy)
                elif policy.model is student.model or before.model is not policy.model:
                    _check_handover(writer, before, policy)
                    handed = True
                    writer.update(policy)
                with interruptible():  # an engine waits long; what holds Ctrl-C back for a reason does so again inside
                    rollouts = continue_prompts(writer, order.problems, shown, order.params)
        finally:
            if handed:  # outside the teacher's block, where the student's weights are in place again
                writer.update(before)
        prompts = [ids for ids in own for _ in range(order.params.n)]
        rollouts = tuple(replace(r, prompt_ids=ids) for r, ids in zip(rollouts, prompts, strict=True))
        return Written(rollouts, by_teacher=rollouts)


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
