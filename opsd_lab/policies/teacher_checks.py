"""Whether two policies can be teacher and student, and whether sequences fit them: the same questions wherever a teacher is asked."""

from collections.abc import Iterable

from opsd_lab.policies.head import LogitHead
from opsd_lab.policies.policy import Policy


def check_teacher(student: Policy, teacher: Policy) -> None:
    """Make sure that a policy can teach another: same tokens, same vocabulary size, same device, weights of its own.

    Raises:
        ValueError: when it cannot; it names both and the remedy.
    """
    if teacher.model is student.model:
        return
    if teacher.tokenizer.get_vocab() != student.tokenizer.get_vocab():
        raise ValueError(f"{teacher.name} has another vocabulary than {student.name}; a teacher needs the student's")
    theirs, ours = LogitHead.of(teacher).size, LogitHead.of(student).size
    if theirs != ours:
        smaller = min(theirs, ours)
        raise ValueError(
            f"the teacher {teacher.name} gives {theirs:,} logits, the student {student.name} {ours:,}, for the same "
            f"{len(student.tokenizer):,} tokens: one is padded otherwise. Cut the larger, before a LoRA or a teacher is made of it: "
            f"policy.model.resize_token_embeddings({max(smaller, len(student.tokenizer))})"
        )
    if not _storages(teacher).isdisjoint(_storages(student)):
        raise shares_weights(student, teacher)
    if teacher.device != student.device:
        raise ValueError(
            f"the teacher {teacher.name} is on {teacher.device}, the student {student.name} on {student.device}; move one"
        )


def check_lengths(policy: Policy, side: str, lengths: Iterable[tuple[str, int, int]]) -> None:
    """Make sure that prompts with their completions fit the context of the policy that reads them.

    `side` is "student" or "teacher". `lengths` names each sequence and gives the tokens of its prompt and of its completion.

    Raises:
        ValueError: for the first that does not fit.
    """
    for name, prompt, completion in lengths:
        if prompt + completion > policy.context_length:
            raise ValueError(
                f"{name}: the {side}'s prompt has {prompt} tokens and its completion up to {completion}, which exceeds the context "
                f"of {policy.name}, {policy.context_length} tokens; leave the problem out, shorten its texts, or lower the limit on "
                "completions"
            )


def _storages(policy: Policy) -> set[int]:
    """Return where the parameters lie; those without memory of their own (on the meta device, empty) are left out."""
    return {p.data_ptr() for p in policy.model.parameters()} - {0}


def shares_weights(student: Policy, teacher: Policy) -> ValueError:
    """Return the error for a teacher that is made of the student's own weights."""
    return ValueError(
        f"the teacher {teacher.name} shares weights with the student {student.name}, so it would change as the student trains; use "
        "fixed_teacher(student) for the initial policy, live_teacher() for the present one, or load the teacher anew"
    )
