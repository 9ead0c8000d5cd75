"""Who writes the completions that a step trains on: the student, the teacher, or a person whose texts are given."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
from transformers import PreTrainedTokenizerBase

from opsd_lab.contexts import ContextPair
from opsd_lab.interrupts import interruptible
from opsd_lab.problems import Problem
from opsd_lab.rollouts.base import Rollout, Sampler, SamplingParams
from opsd_lab.teachers import Teacher
from opsd_lab.token_text import written_tokens

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
        with teacher.weights(), interruptible():  # an engine waits long; what holds Ctrl-C back for a reason does so again inside
            rollouts = (self.sampler or sampler).sample([list(pair.teacher_ids) for pair in pairs], params)
        owners = [pair for pair in pairs for _ in range(params.n)]
        return [replace(rollout, prompt_ids=pair.student_ids) for rollout, pair in zip(rollouts, owners, strict=True)]


@dataclass(frozen=True)
class Texts:
    """Given texts: `text` says what a problem's completion is; an end of sequence is put behind it.

    Raises:
        ValueError: when the tokenizer names no end of sequence.
    """

    text: Callable[[Problem], str]
    tokenizer: PreTrainedTokenizerBase
    writer: Writer = "text"

    def __post_init__(self) -> None:
        if self.tokenizer.eos_token_id is None:
            raise ValueError("Texts: the tokenizer has no end of sequence to put behind a text; set tokenizer.eos_token")

    def write(
        self, sampler: Sampler, teacher: Teacher, problems: Sequence[Problem], pairs: Sequence[ContextPair], params: SamplingParams
    ) -> list[Rollout]:
        """Return the texts as rollouts, one per problem whatever `params.n`; their log-probabilities are NaN.

        Raises:
            ValueError: when a text has no tokens, is changed by the tokenizer, or is longer than `params.max_new_tokens`.
        """
        found = []
        for problem, pair in zip(problems, pairs, strict=True):
            text = self.text(problem)
            ids, tokens = written_tokens(self.tokenizer, text, f"problem {problem.id!r}")
            ids, tokens = (*ids, self.tokenizer.eos_token_id), (*tokens, self.tokenizer.eos_token)
            if len(ids) > params.max_new_tokens:
                raise ValueError(
                    f"problem {problem.id!r}: its text has {len(ids)} tokens, more than max_new_tokens = {params.max_new_tokens}; "
                    "raise it, or leave the problem out"
                )
            found.append(Rollout("", pair.student_ids, ids, (float("nan"),) * len(ids), "stop", text, tokens))
        return found


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
