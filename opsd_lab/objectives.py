"""The pieces put together: what each completion token contributes to the loss, and the record of why."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from opsd_lab.batching import Example
from opsd_lab.divergences import (
    Divergence,
    LossTerms,
    Side,
    Tokens,
    divergence_terms,
    forward_kl,
    fused_losses,
    read_columns,
    sampled_token_terms,
)
from opsd_lab.divergences.reference import Support, Tail
from opsd_lab.scoring import CompletionStates
from opsd_lab.token_table import TokenTable
from opsd_lab.token_text import token_texts

Columns = dict[str, Tensor]


class TokenLosses(NamedTuple):
    """Per-token results of one batch: `loss` [N] carries the gradient; `columns` are TokenTable's numbers, each [N], detached."""

    loss: Tensor
    columns: Columns


class Objective(ABC):
    """From both sides' states to per-token losses; the trainer alone weighs and sums them.

    Where `needs_teacher` is false, the student stands for the teacher: gap and divergence are 0. Where `needs_rewards` is true,
    rollouts are graded, and `advantages` says what becomes of the rewards.
    """

    needs_teacher: bool = True
    needs_rewards: bool = False

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

    The options are those of `opsd_lab.divergences`. Log-probabilities, entropies and ranks are recorded at temperature 1.
    """

    divergence: Divergence = forward_kl
    temperature: float = 1.0
    pointwise_clip: float | None = None
    vocab_top_k: int | None = None
    tail: Tail = "bucket"
    support: Support = "teacher"

    def terms(self, student: Side, teacher: Side, tokens: Tokens, slope: bool) -> LossTerms:
        """Return the divergences of a few tokens [n] and their derivatives."""
        options = {name: value for name, value in vars(self).items() if name != "divergence"}
        return divergence_terms(self.divergence, student, teacher, **options, slope=slope)


@dataclass(frozen=True)
class SampledTokenOPSD(Objective):
    """The policy-gradient form (arXiv 2601.18734): loss = -stopgrad(A) * log p_student(y), A = log p_teacher(y) - log p_student(y).

    The divergence recorded is the one-sample estimate of the reverse KL, -A, whose value the loss does not show.
    """

    temperature: float = 1.0

    def terms(self, student: Side, teacher: Side, tokens: Tokens, slope: bool) -> LossTerms:
        """Return the losses of a few tokens [n] and their derivatives; none reaches the advantage."""
        return sampled_token_terms(student, teacher, tokens.ids, temperature=self.temperature, slope=slope)


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
