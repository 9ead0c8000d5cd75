"""The pieces put together: what each completion token contributes to the loss, and the record of why."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from opsd_lab.basics.options import name_of, real
from opsd_lab.divergences import (
    Divergence,
    LossTerms,
    Side,
    Tokens,
    divergence_terms,
    forward_kl,
    fused_losses,
    jsd,
    read_columns,
    sampled_token,
    sampled_token_terms,
)
from opsd_lab.divergences.reference import NONE as OPTIONS
from opsd_lab.divergences.reference import Support, Tail, check_options
from opsd_lab.divergences.terms import changed
from opsd_lab.scoring.batching import Example
from opsd_lab.scoring.forward import CompletionStates
from opsd_lab.tokens.table import TokenTable
from opsd_lab.tokens.text import token_texts

Columns = dict[str, Tensor]


class TokenLosses(NamedTuple):
    """Per-token results of one batch: `loss` [N] carries the gradient; `columns` are TokenTable's numbers, each [N], detached."""

    loss: Tensor
    columns: Columns


class Objective(ABC):
    """From both sides' states to per-token losses; the trainer alone weighs and sums them.

    Where `needs_teacher` is false, the student stands for the teacher: gap and divergence are 0. Where `needs_rewards` is true,
    rollouts are graded, and `advantages` says what becomes of the rewards; where `needs_groups` is, a rollout's advantage comes from
    the others of its problem. `needs_sampled_logprobs` says that the losses hold the student's probability against the sampler's.
    """

    needs_teacher: bool = True
    needs_rewards: bool = False
    needs_groups: bool = False
    needs_sampled_logprobs: bool = False

    @abstractmethod
    def terms(self, student: Side, teacher: Side, tokens: Tokens, slope: bool) -> LossTerms:
        """Return the losses of a few tokens [n] and, where `slope` says so, their derivatives by the student's logits."""

    def advantages(self, rewards: Sequence[float], groups: Sequence[int]) -> list[float]:
        """Return a rollout's advantage; here its reward as it is. `groups` numbers the problems that the rollouts belong to."""
        return list(rewards)

    def __call__(self, student: CompletionStates, teacher: CompletionStates, tokens: Tensor | Tokens) -> TokenLosses:
        """Return the losses of the completion tokens [N], given as ids or with what else is known of them.

        No gradient reaches the teacher.
        """
        tokens = tokens if isinstance(tokens, Tokens) else Tokens(tokens)
        return TokenLosses(*fused_losses(self._terms_and_columns, student, teacher, tokens))

    def columns(
        self, student: CompletionStates, teachers: Mapping[str, CompletionStates], token_ids: Tensor, top_k: int = 0
    ) -> dict[str, Columns]:
        """Return the columns of the tokens under each teacher, without losses; `top_k` > 0 adds the arrays of `TopTokens`."""

        def compute(ours: Side, theirs: Side, tokens: Tokens, slope: bool) -> tuple[LossTerms, Columns]:
            terms, columns = self._terms_and_columns(ours, theirs, tokens, slope)
            return terms, columns | (top_columns(ours, theirs, top_k) if top_k else {})

        return read_columns(compute, student, teachers, Tokens(token_ids))

    def _terms_and_columns(self, student: Side, teacher: Side, tokens: Tokens, slope: bool) -> tuple[LossTerms, Columns]:
        terms = self.terms(student, teacher, tokens, slope)
        columns = {"loss": terms.loss, "divergence": terms.divergence, "clipped": terms.clipped}
        return terms, columns | token_statistics(student, teacher, tokens.ids)


@dataclass(frozen=True)
class OPSD(Objective):
    """Full-vocabulary on-policy self-distillation (arXiv 2601.18734, Algorithm 1): the loss of a token is its divergence.

    The options are those of `opsd_lab.divergences`. A divergence of one's own takes the logits of student and teacher [n, V] and,
    by name, those options that are used with it; it returns [n]. Log-probabilities, entropies and ranks are recorded at
    temperature 1.

    A small `pointwise_clip` turns the gradient of `forward_kl` against the teacher: entries above the clip, which the teacher
    prefers, lose their slope, and those that it avoids keep theirs. On SmolLM2's own rollouts the mean cosine of clipped and
    unclipped gradient by the logits was .35 at .05, -.61 at 1e-3, -.77 at 1e-6; `TrainingParams.measure_clip` records it.

    Raises:
        TypeError: for a divergence that cannot be called with both sides' logits and the options given, or an option of another kind.
        ValueError: for an option out of its range, or one that does nothing; it names the option and the remedy.
    """

    divergence: Divergence = forward_kl
    temperature: float = 1.0
    pointwise_clip: float | None = None
    vocab_top_k: int | None = None
    tail: Tail = "bucket"
    support: Support = "teacher"

    def __post_init__(self) -> None:
        check_options(**self.options)
        if self.vocab_top_k is None and (unused := [name for name in ("tail", "support") if getattr(self, name) != OPTIONS[name]]):
            raise ValueError(f"OPSD: {' and '.join(unused)} say what becomes of a shortened vocabulary; give vocab_top_k as well")
        _check_divergence(self.divergence, changed(self.options))

    def terms(self, student: Side, teacher: Side, tokens: Tokens, slope: bool) -> LossTerms:
        """Return the divergences of a few tokens [n] and their derivatives."""
        return divergence_terms(self.divergence, student, teacher, **self.options, slope=slope)

    @property
    def options(self) -> dict[str, object]:
        """The options of the divergence, by name."""
        return {name: getattr(self, name) for name in OPTIONS}


@dataclass(frozen=True)
class SampledTokenOPSD(Objective):
    """The policy-gradient form (arXiv 2601.18734): loss = -stopgrad(A) * log p_student(y), A = log p_teacher(y) - log p_student(y).

    The divergence recorded is the one-sample estimate of the reverse KL, -A, whose value the loss does not show.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        real("SampledTokenOPSD: temperature", self.temperature, above=0)

    def terms(self, student: Side, teacher: Side, tokens: Tokens, slope: bool) -> LossTerms:
        """Return the losses of a few tokens [n] and their derivatives; none reaches the advantage."""
        return sampled_token_terms(student, teacher, tokens.ids, temperature=self.temperature, slope=slope)


def _check_divergence(divergence: object, options: Mapping[str, object]) -> None:
    remedies = {sampled_token: "use the objective SampledTokenOPSD()", jsd: "call it, as in OPSD(jsd(0.5))"}
    for wrong, remedy in remedies.items():
        if divergence is wrong:
            raise TypeError(f"OPSD: {wrong.__name__} is no full-vocabulary divergence; {remedy}")
    if not callable(divergence) or isinstance(divergence, type):
        raise TypeError(
            f"OPSD: {divergence!r} is no divergence; give a function of both sides' logits, such as forward_kl or jsd(0.5)"
        )
    try:
        inspect.signature(divergence).bind(None, None, **options)
    except ValueError:  # a function written in C tells no signature
        return
    except TypeError as error:
        given = f"the logits of student and teacher{' and ' * bool(options)}{', '.join(options)}"
        raise TypeError(
            f"OPSD: the divergence {name_of(divergence)} cannot be called with {given} ({error}). Where it makes a "
            "divergence, call it first; an option that it does not take must be left out"
        ) from None


@torch.no_grad()
def token_statistics(student: Side, teacher: Side, token_ids: Tensor) -> Columns:
    """Return log-probability, entropy (nats) and rank of each side, and the gap, for tokens [N]."""
    columns: Columns = {}
    for name, side in (("student", student), ("teacher", teacher)):
        columns[f"{name}_logprob"] = side.logprobs.gather(-1, token_ids[:, None])[:, 0]
        columns[f"{name}_rank"] = (side.logits > side.logits.gather(-1, token_ids[:, None])).sum(-1, dtype=torch.int32).long()
        finite = side.logprobs.clamp(min=torch.finfo(side.logits.dtype).min / 2)  # 0 * -inf would be no number in the entropy
        columns[f"{name}_entropy"] = -torch.linalg.vecdot(side.probabilities, finite)
    columns["gap"] = columns["teacher_logprob"] - columns["student_logprob"]
    return columns


@torch.no_grad()
def top_columns(student: Side, teacher: Side, k: int) -> Columns:
    """Return the arrays of `TopTokens`, each [N, k]."""
    columns: Columns = {}
    for (name, side), other in (("student", student), teacher), (("teacher", teacher), student):
        top = side.logprobs.topk(min(k, side.logits.shape[-1]), dim=-1)
        columns[f"{name}_top_ids"] = top.indices.int()
        columns[f"{name}_top_logprobs"] = top.values
        columns[f"{name}_top_elsewhere"] = other.logprobs.gather(-1, top.indices)
    return columns


def build_table(examples: Sequence[Example], columns: dict[str, Tensor], tokenizer: object) -> TokenTable:
    """Put the numbers of scored examples, in the order of their tokens, beside what the tokens are.

    `columns` hold one value per scored token [N], `weight` among them. No examples make the empty table.
    """
    if not examples:
        return TokenTable.empty()
    rows = []
    for number, example in enumerate(examples):
        ids = example.rollout.completion_ids[: example.scored]
        texts = example.rollout.tokens[: example.scored] or token_texts(tokenizer, ids)
        rows += [
            {"rollout": number, "problem_id": example.rollout.problem_id, "position": i, "token_id": token, "token": text}
            for i, (token, text) in enumerate(zip(ids, texts, strict=True))
        ]
    numbers = {name: value.cpu().numpy() for name, value in columns.items()}
    return TokenTable(pd.DataFrame(rows).assign(**numbers, step=-1, label=""))
