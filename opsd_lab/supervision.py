"""What the teacher says about rollouts that already exist: the training loss's own numbers, without training."""

from collections.abc import Sequence

import torch

from opsd_lab.batching import Example, build_batch, join_columns, micro_batches
from opsd_lab.objectives import Objective, build_table
from opsd_lab.policies import Policy, Teacher
from opsd_lab.scoring import LogitHead, score_completions
from opsd_lab.steps import arithmetic_steps, token_steps
from opsd_lab.token_table import TokenTable


@torch.no_grad()
def score_rollouts(
    policy: Policy, teacher: Teacher, objective: Objective, examples: Sequence[Example], *, token_budget: int = 8192
) -> TokenTable:
    """Return the table of some rollouts under one objective; rollout i of the table is example i. All weights are 1.

    Raises:
        ValueError: when there are no examples.
    """
    if not examples:
        raise ValueError("score_rollouts: there are no examples")
    head = LogitHead.of(policy)
    groups, columns = micro_batches(examples, token_budget), []
    for group in groups:
        batch = build_batch([examples[i] for i in group], policy.pad_id).to(policy.device)
        with teacher.weights():
            taught = score_completions(policy, batch.teacher_ids, batch.teacher_starts, batch.completion_mask, head)
        written = score_completions(policy, batch.student_ids, batch.student_starts, batch.completion_mask, head)
        columns.append(objective(written, taught, batch.tokens).columns)
    joined = join_columns(groups, columns, examples)
    return build_table(examples, joined | {"weight": torch.ones_like(joined["loss"])}, policy.tokenizer)


def label_steps(table: TokenTable) -> TokenTable:
    """Return the table with its arithmetic steps numbered and labelled, rollout by rollout (see `opsd_lab.steps`)."""
    numbers: list[int] = []
    labels: list[str] = []
    for _, rows in table.frame.groupby("rollout", sort=False):
        tokens = rows["token"].tolist()
        of_tokens, labels_of_tokens = token_steps(tokens, arithmetic_steps("".join(tokens)))
        numbers += of_tokens
        labels += labels_of_tokens
    return table.with_columns(step=numbers, label=labels)
