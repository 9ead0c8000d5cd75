"""What is kept of every scored token, and the table that it is put into."""

from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor

from opsd_lab.divergences import Side
from opsd_lab.objectives import Teachers, Tokens
from opsd_lab.scoring.batching import Example
from opsd_lab.tokens.table import TokenTable
from opsd_lab.tokens.text import token_texts
from opsd_lab.tokens.top import ARRAYS, SIDES, TopTokens

Columns = dict[str, Tensor]

OF_A_TOKEN = ("loss", "divergence", "clipped", "weight", "counted", "gap", "problem_id", "token_id", "token", "step", "label")
RESERVED = frozenset([*OF_A_TOKEN, *(f"{side}_{what}" for side in SIDES for what in ("logprob", "rank", "entropy")), *ARRAYS])
"""The columns that every step has, whose names marks and signals cannot take."""


def token_columns(student: Side, teachers: Teachers, tokens: Tokens, loss: Tensor) -> Columns:
    """Return the columns [n] of a few tokens: loss, log-probabilities, entropies (nats), ranks, gap, and what was recorded.

    `student` and `teachers` are the sides' logits of these `tokens`, a teacher's under the name of its view; `loss` [n] is kept as it
    is. The teacher's are those of the first view, or the student's own without one; of further views `teacher_logprob` and `gap` are
    kept, followed by the view's name. `divergence` and `clipped` are 0 where none were recorded.
    """
    columns: Columns = {"loss": loss, **dict.fromkeys(("divergence", "clipped"), torch.zeros_like(loss)), **tokens.recorded}
    first, *others = teachers or {"": student}
    for name, side in (("student", student), ("teacher", teachers[first] if teachers else student)):
        columns[f"{name}_logprob"] = side.of(tokens.ids)
        columns[f"{name}_rank"] = side.rank(tokens.ids)
        columns[f"{name}_entropy"] = side.entropy
    columns["gap"] = columns["teacher_logprob"] - columns["student_logprob"]
    for view in others:
        columns[f"teacher_logprob {view}"] = teachers[view].of(tokens.ids)
        columns[f"gap {view}"] = columns[f"teacher_logprob {view}"] - columns["student_logprob"]
    return columns


def top_columns(student: Side, teacher: Side, k: int) -> Columns:
    """Return the arrays of `TopTokens`, each [n, k]."""
    columns: Columns = {}
    for (name, side), other in (("student", student), teacher), (("teacher", teacher), student):
        logprobs, ids = side.top(k)
        columns[f"{name}_top_ids"] = ids.int()
        columns[f"{name}_top_logprobs"] = logprobs
        columns[f"{name}_top_elsewhere"] = other.logprobs.gather(-1, ids)
    return columns


def build_table(examples: Sequence[Example], columns: Mapping[str, Tensor], tokenizer: object) -> TokenTable:
    """Put the numbers of scored examples, in the order of their tokens, beside what the tokens are.

    `columns` hold one value per scored token [N], `weight` among them, and maybe the arrays of `TopTokens`. No examples make the
    empty table.
    """
    if not examples:
        return TokenTable.empty()
    rows = []
    for number, example in enumerate(examples):
        texts = example.rollout.tokens[: example.scored] or token_texts(tokenizer, example.completion)
        rows += [
            {"rollout": number, "problem_id": example.rollout.problem_id, "position": i, "token_id": token, "token": text}
            for i, (token, text) in enumerate(zip(example.completion, texts, strict=True))
        ]
    numbers = {name: values.cpu().numpy() for name, values in columns.items() if name not in ARRAYS}
    frame = pd.DataFrame(rows).assign(**numbers, step=-1, label="")
    arrays = {name: columns[name].cpu().numpy() for name in ARRAYS if name in columns}
    if not arrays:
        return TokenTable(frame)
    ids = {int(i) for side in SIDES for i in torch.from_numpy(arrays[f"{side}_top_ids"]).unique()}
    return TokenTable(frame, TopTokens(**arrays, texts={i: token_texts(tokenizer, [i])[0] for i in sorted(ids)}))
