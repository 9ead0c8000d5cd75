"""Who writes the completions that a step trains on: the student, the teacher, or a person whose texts are given."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import PreTrainedTokenizerBase

from opsd_lab.basics.interrupts import interruptible
from opsd_lab.contexts import ContextPair, given_tokens, turn_ends
from opsd_lab.contexts.control import ControlTokens
from opsd_lab.policies.policy import Policy
from opsd_lab.policies.teacher_checks import check_lengths, check_teacher
from opsd_lab.policies.teachers import Teacher
from opsd_lab.problems.problem import Problem
from opsd_lab.rollouts.base import Rollout, Sampler, SamplingParams
from opsd_lab.rollouts.hf import HFSampler

Writer = Literal["student", "teacher", "text"]
Rewards = Callable[[Sequence[Rollout], Sequence[Problem]], list[float]]
"""From rollouts and their problems to a reward each."""
Gate = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From rewards [R] and the numbers of their problems [R] to which rollouts are trained on [R]."""


class Source(Protocol):
    """Where completions come from; each continues the student's prompt, whoever wrote it."""

    writer: Writer

    def write(
        self, sampler: Sampler, teacher: Teacher, problems: Sequence[Problem], pairs: Sequence[ContextPair], params: SamplingParams
    ) -> list[Rollout]:
        """Return `params.n` completions for each problem, problem by problem."""
        ...


@dataclass(frozen=True)
class StudentWrites:
    """On policy: the student writes from its own prompt."""

    writer: Writer = "student"

    def write(
        self, sampler: Sampler, teacher: Teacher, problems: Sequence[Problem], pairs: Sequence[ContextPair], params: SamplingParams
    ) -> list[Rollout]:
        """Return the student's samples.

        Raises:
            ValueError: when a prompt with its completion exceeds the context; it names the problem.
        """
        if isinstance(student := getattr(sampler, "policy", None), Policy):
            check_lengths(student, "student", _lengths(problems, [pair.student_ids for pair in pairs], params))
        return sampler.sample([list(pair.student_ids) for pair in pairs], params)


@dataclass(frozen=True)
class TeacherWrites:
    """Off policy: the teacher writes from its prompt, with the privileged information in view.

    `HFSampler`, which has no weights of its own, runs the teacher's model. Any other sampler is handed the teacher's weights, writes,
    and is handed its former ones back. `sampler` takes the place of the trainer's; another policy as the teacher needs one of its own
    unless an `HFSampler` writes. The log-probabilities are the teacher's.
    """

    sampler: Sampler | None = None
    writer: Writer = "teacher"

    def write(
        self, sampler: Sampler, teacher: Teacher, problems: Sequence[Problem], pairs: Sequence[ContextPair], params: SamplingParams
    ) -> list[Rollout]:
        """Return the teacher's samples, put behind the student's prompts.

        Raises:
            ValueError: when the teacher does not fit the student, a prompt with its completion exceeds a context, or the sampler
                cannot have the teacher's weights.
            TypeError: when the sampler does not say whose weights it has.
        """
        student, writer = _policy_of(sampler), self.sampler or sampler
        before = _policy_of(writer)
        check_lengths(student, "student", _lengths(problems, [pair.student_ids for pair in pairs], params))
        handed = False
        try:
            with teacher.beside(student) as policy:
                check_teacher(student, policy)
                check_lengths(policy, "teacher", _lengths(problems, [pair.teacher_ids for pair in pairs], params))
                if isinstance(writer, HFSampler):
                    writer = copy.copy(writer)
                    writer.update(policy)
                elif policy.model is student.model or before.model is not policy.model:
                    _check_handover(writer, before, policy)
                    handed = True
                    writer.update(policy)
                with interruptible():  # an engine waits long; what holds Ctrl-C back for a reason does so again inside
                    rollouts = writer.sample([list(pair.teacher_ids) for pair in pairs], params)
        finally:
            if handed:  # outside the teacher's block, where the student's weights are in place again
                writer.update(before)
        owners = [pair for pair in pairs for _ in range(params.n)]
        return [replace(rollout, prompt_ids=pair.student_ids) for rollout, pair in zip(rollouts, owners, strict=True)]


def _lengths(problems: Sequence[Problem], prompts: Sequence[Sequence[int]], params: SamplingParams) -> list[tuple[str, int, int]]:
    new = params.max_new_tokens
    return [(f"problem {problem.id!r}", len(prompt), new) for problem, prompt in zip(problems, prompts, strict=True)]


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


@dataclass(frozen=True)
class Texts:
    """Given texts: `text` says what a problem's completion is, tokenised behind its prompt and ended as the template ends turns.

    Special tokens that a text mentions stay text. `control` names the control tokens that texts do write, such as `<think>` and
    `</think>`.
    """

    text: Callable[[Problem], str]
    tokenizer: PreTrainedTokenizerBase
    control: tuple[str, ...] = ()
    writer: Writer = "text"

    def write(
        self, sampler: Sampler, teacher: Teacher, problems: Sequence[Problem], pairs: Sequence[ContextPair], params: SamplingParams
    ) -> list[Rollout]:
        """Return the texts as rollouts, one per problem whatever `params.n`; their log-probabilities are NaN.

        Raises:
            ValueError: when a text cannot be tokenised behind its prompt (see `given_tokens`) or is longer than
                `params.max_new_tokens`, a pair was made by hand, or the turn's end does not end the sampler's completions, where
                its policy is known.
        """
        end, found = "", []
        for problem, pair in zip(problems, pairs, strict=True):
            whose = f"problem {problem.id!r}"
            if pair.student is None:
                raise ValueError(f"{whose}: Texts needs pairs from ContextBuilder.build, which know the prompt's text")
            text, end = self.text(problem), end or self._end(pair.student.control, sampler)
            ids, tokens = given_tokens(pair.student, text, whose, end=end, control=self.control)
            if len(ids) > params.max_new_tokens:
                raise ValueError(
                    f"{whose}: its text has {len(ids)} tokens, more than max_new_tokens = {params.max_new_tokens}; "
                    "raise it, or leave the problem out"
                )
            found.append(Rollout("", pair.student_ids, ids, (float("nan"),) * len(ids), "stop", text, tokens))
        return found

    def _end(self, control: ControlTokens, sampler: Sampler) -> str:
        own, theirs = self.tokenizer, control.tokenizer
        if (own.chat_template, len(own)) != (theirs.chat_template, len(theirs)):
            raise ValueError("Texts: its tokenizer is not the contexts'; give both the policy's")
        if not (ends := turn_ends(control)):
            raise ValueError(
                "Texts: neither the chat template nor the tokenizer has an end to put behind a text; set tokenizer.eos_token"
            )
        policy = getattr(sampler, "policy", None)
        stops = policy.eos_ids if isinstance(policy, Policy) else None
        fitting = [end for end in ends if stops is None or control.as_it_is(end)[-1] in stops]
        if not fitting:
            raise ValueError(
                f"Texts: the chat template ends a turn with {ends[0]!r}, which does not end the completions of {policy.name} "
                f"({', '.join(map(repr, own.convert_ids_to_tokens(stops)))} do); add its id to model.generation_config.eos_token_id"
            )
        if fitting[0].strip() in self.control:
            raise ValueError(f"Texts.control names {fitting[0].strip()!r}, which would end a text before its end; leave it out")
        return fitting[0]


def correct_only(rewards: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Train on rollouts with a positive reward (arXiv 2605.06188)."""
    return rewards > 0


def incorrect_only(rewards: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Train on rollouts without a positive reward (arXiv 2605.10889)."""
    return rewards <= 0


def mixed_groups(rewards: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Train on the rollouts of problems whose rollouts' rewards differ (arXiv 2503.14476, dynamic sampling without refilling)."""
    lowest = {group: rewards[groups == group].min() for group in np.unique(groups)}
    highest = {group: rewards[groups == group].max() for group in np.unique(groups)}
    return np.array([lowest[group] < highest[group] for group in groups], dtype=bool)


mixed_groups.needs_groups = True  # one rollout alone never differs
