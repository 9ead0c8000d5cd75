"""Who writes the completions that a step trains on: the student, the teacher, or a person whose texts are given."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
from transformers import PreTrainedTokenizerBase

from opsd_lab.contexts import ContextPair, given_tokens, turn_ends
from opsd_lab.contexts.control import ControlTokens
from opsd_lab.policies import Policy
from opsd_lab.problems import Problem
from opsd_lab.rollouts.base import Rollout, Sampler, SamplingParams
from opsd_lab.teachers import Teacher

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
        """Return the student's samples."""
        return sampler.sample([list(pair.student_ids) for pair in pairs], params)


@dataclass(frozen=True)
class TeacherWrites:
    """Off policy: the teacher writes from its prompt, with the privileged information in view.

    Without a sampler of the teacher's own the trainer's is used under the teacher's weights, which takes a sampler that runs the
    policy's model itself (`HFSampler`). The log-probabilities are the teacher's.
    """

    sampler: Sampler | None = None
    writer: Writer = "teacher"

    def write(
        self, sampler: Sampler, teacher: Teacher, problems: Sequence[Problem], pairs: Sequence[ContextPair], params: SamplingParams
    ) -> list[Rollout]:
        """Return the teacher's samples, put behind the student's prompts."""
        with teacher.weights():
            rollouts = (self.sampler or sampler).sample([list(pair.teacher_ids) for pair in pairs], params)
        owners = [pair for pair in pairs for _ in range(params.n)]
        return [replace(rollout, prompt_ids=pair.student_ids) for rollout, pair in zip(rollouts, owners, strict=True)]


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
