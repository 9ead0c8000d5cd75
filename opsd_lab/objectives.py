"""The pieces put together: what each completion token contributes to the loss, and the record of why."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import pandas as pd
import torch
from torch import Tensor

from opsd_lab.batching import Example
from opsd_lab.divergences import Divergence, forward_kl, sampled_token
from opsd_lab.divergences.reference import Side, Tail
from opsd_lab.scoring import CompletionStates
from opsd_lab.token_table import TokenTable
from opsd_lab.token_text import token_texts

CHUNK = 64  # tokens; at a vocabulary of 50,000 one side's float32 logits take 13 MB


class TokenLosses(NamedTuple):
    """Per-token results of one batch: `loss` [N] carries the gradient; `columns` are TokenTable's numbers, each [N], detached."""

    loss: Tensor
    columns: dict[str, Tensor]


class Objective(Protocol):
    """From both sides' states to per-token losses; the trainer alone weighs and sums them."""

    def __call__(self, student: CompletionStates, teacher: CompletionStates, token_ids: Tensor) -> TokenLosses:
        """Return the losses of the completion tokens `token_ids` [N]."""
        ...


@dataclass(frozen=True)
class OPSD:
    """Full-vocabulary on-policy self-distillation (arXiv 2601.18734, Algorithm 1): the loss of a token is its divergence.

    The options are those of `opsd_lab.divergences`. Log-probabilities, entropies and ranks are recorded at temperature 1.
    """

    divergence: Divergence = forward_kl
    temperature: float = 1.0
    pointwise_clip: float | None = None
    vocab_top_k: int | None = None
    tail: Tail = "bucket"
    support: Side = "teacher"

    def __call__(self, student: CompletionStates, teacher: CompletionStates, token_ids: Tensor) -> TokenLosses:
        """Return the losses of the completion tokens `token_ids` [N]; no gradient reaches the teacher."""
        return _in_chunks(self._losses, student, teacher, token_ids)

    def _losses(self, student_logits: Tensor, teacher_logits: Tensor, token_ids: Tensor) -> TokenLosses:
        options = {
            "temperature": self.temperature,
            "vocab_top_k": self.vocab_top_k,
            "tail": self.tail,
            "support": self.support,
        }
        loss = self.divergence(student_logits, teacher_logits, pointwise_clip=self.pointwise_clip, **options)
        clipped = torch.zeros_like(loss)
        if self.pointwise_clip is not None:
            with torch.no_grad():
                clipped = self.divergence(student_logits, teacher_logits, **options) - loss
        return TokenLosses(loss, {"loss": loss, "divergence": loss, "clipped": clipped})


@dataclass(frozen=True)
class SampledTokenOPSD:
    """The policy-gradient form (arXiv 2601.18734): loss = -stopgrad(A) * log p_student(y), A = log p_teacher(y) - log p_student(y).

    The divergence recorded is the one-sample estimate of the reverse KL, -A, whose value the loss does not show.
    """

    temperature: float = 1.0

    def __call__(self, student: CompletionStates, teacher: CompletionStates, token_ids: Tensor) -> TokenLosses:
        """Return the losses of the completion tokens `token_ids` [N]; no gradient reaches the teacher or the advantage."""
        return _in_chunks(self._losses, student, teacher, token_ids)

    def _losses(self, student_logits: Tensor, teacher_logits: Tensor, token_ids: Tensor) -> TokenLosses:
        estimate = sampled_token(student_logits, teacher_logits, token_ids, temperature=self.temperature).detach()
        logprobs = (student_logits / self.temperature).log_softmax(-1).gather(-1, token_ids[:, None])[:, 0]
        loss = estimate * logprobs
        return TokenLosses(loss, {"loss": loss, "divergence": estimate, "clipped": torch.zeros_like(loss)})


def _in_chunks(
    losses: Callable[[Tensor, Tensor, Tensor], TokenLosses], student: CompletionStates, teacher: CompletionStates, token_ids: Tensor
) -> TokenLosses:
    """Apply `losses` to the logits of a few tokens at a time: small enough for the processor's cache, and for its memory."""
    parts = []
    for start in range(0, len(token_ids), CHUNK):
        rows = slice(start, start + CHUNK)  # a view: indices would copy what may be logits already
        student_logits = student.head(student.hidden[rows])
        teacher_logits = teacher.head(teacher.hidden[rows]).detach()
        loss, columns = losses(student_logits, teacher_logits, token_ids[rows])
        statistics = token_statistics(student_logits, teacher_logits, token_ids[rows])
        parts.append((loss, {name: value.detach() for name, value in columns.items()} | statistics))
    columns = {name: torch.cat([part[name] for _, part in parts]) for name in parts[0][1]}
    return TokenLosses(torch.cat([loss for loss, _ in parts]), columns)


@torch.no_grad()
def token_statistics(student_logits: Tensor, teacher_logits: Tensor, token_ids: Tensor) -> dict[str, Tensor]:
    """Return log-probability, entropy (nats) and rank of each side, and the gap, for logits [N, V] and tokens [N]."""
    columns: dict[str, Tensor] = {}
    for side, logits in (("student", student_logits), ("teacher", teacher_logits)):
        logprobs = logits.log_softmax(-1)
        chosen = logprobs.gather(-1, token_ids[:, None])
        columns[f"{side}_logprob"] = chosen[:, 0]
        columns[f"{side}_rank"] = (logits > logits.gather(-1, token_ids[:, None])).sum(-1, dtype=torch.int32).long()
        finite = logprobs.clamp_(min=torch.finfo(logits.dtype).min / 2)  # 0 * -inf would be no number in the entropy
        columns[f"{side}_entropy"] = -torch.linalg.vecdot(logits.softmax(-1), finite)
    columns["gap"] = columns["teacher_logprob"] - columns["student_logprob"]
    return columns


def build_table(examples: Sequence[Example], columns: dict[str, Tensor], tokenizer: object) -> TokenTable:
    """Put the numbers of scored examples, in the order of their tokens, beside what the tokens are.

    `columns` hold one value per scored token [N], `weight` among them.
    """
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
