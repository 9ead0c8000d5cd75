"""What the teacher says about rollouts that already exist: the training loss's own numbers, without training."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from opsd_lab.basics.interrupts import deferred_interrupts, interruption_point
from opsd_lab.contexts import ContextBuilder, given_tokens
from opsd_lab.objectives.opsd import Objective, build_table
from opsd_lab.policies.head import LogitHead
from opsd_lab.policies.policy import Policy
from opsd_lab.policies.teacher_checks import check_lengths, check_teacher
from opsd_lab.policies.teachers import Teacher, live_teacher
from opsd_lab.problems.problem import Problem, check_unique
from opsd_lab.rollouts.base import Rollout
from opsd_lab.scoring.batching import DistillBatch, Example, build_batch, join_columns, micro_batches
from opsd_lab.scoring.forward import score_completions
from opsd_lab.supervision.score_parts import ScoreParts, fingerprint
from opsd_lab.tokens.table import TokenTable
from opsd_lab.tokens.text import first_difference, token_texts
from opsd_lab.tokens.top import ARRAYS, SIDES, TopTokens

Columns = dict[str, Tensor]


def build_examples(contexts: ContextBuilder, problems: Sequence[Problem], rollouts: Sequence[Rollout]) -> list[Example]:
    """Return each rollout with its problem's two prompts, every token scored.

    Raises:
        ValueError: when a rollout's problem is not among the problems, it continues another prompt than the student's, or two
            problems have the same id.
    """
    check_unique(problems)
    by_id = {problem.id: problem for problem in problems}
    pairs = {}
    for rollout in rollouts:
        if rollout.problem_id not in by_id:
            raise ValueError(f"build_examples: a rollout of problem {rollout.problem_id!r}, which is not among the problems given")
        if rollout.problem_id not in pairs:
            pairs[rollout.problem_id] = contexts.build(by_id[rollout.problem_id])
        if (student := pairs[rollout.problem_id].student_ids) != rollout.prompt_ids:
            raise ValueError(
                f"build_examples: the rollout of problem {rollout.problem_id!r} continues another prompt than these contexts write: "
                f"{first_difference(contexts.tokenizer, rollout.prompt_ids, student)}; build the contexts as when it was written "
                "(question, chat template, the student's ChatFormat with its date and variables)"
            )
    return [Example(pairs[rollout.problem_id], rollout, len(rollout.completion_ids)) for rollout in rollouts]


def text_rollout(contexts: ContextBuilder, problem: Problem, text: str, *, control: Sequence[str] = ()) -> Rollout:
    """Return a text that some person or other model wrote as the rollout that it would be, had the student written it.

    The text is tokenised once, here, behind the student's prompt; nobody sampled it, so its `logprobs` are NaN, and it does not end
    with an end of sequence. Special tokens that it mentions stay text; `control` names the control tokens that it does write.

    Raises:
        ValueError: when the text cannot be tokenised behind the prompt, see `opsd_lab.contexts.given_tokens`.
    """
    prompt = contexts.prompt(problem, "student")
    ids, tokens = given_tokens(prompt, text, f"problem {problem.id!r}", control=control)
    return Rollout(problem.id, prompt.ids, ids, (math.nan,) * len(ids), "length", text, tokens)


def score_rollouts(
    policy: Policy, teacher: Teacher, objective: Objective, examples: Sequence[Example], *, name: str = "teacher", **options: object
) -> TokenTable:
    """Return the table of some rollouts under one objective; rollout i of the table is example i. All weights are 1.

    `options` are those of `score_views`.

    Raises:
        ValueError: when there are no examples.
    """
    return score_views(policy, teacher, objective, {name: examples}, **options)[name]


@deferred_interrupts()
@torch.inference_mode()
def score_views(
    policy: Policy,
    teacher: Teacher,
    objective: Objective,
    views: Mapping[str, Sequence[Example]],
    *,
    student: Teacher | None = None,
    top_k: int = 0,
    token_budget: int = 8192,
    parts: str | Path | None = None,
    progress: bool = True,
) -> dict[str, TokenTable]:
    """Score the same completions under several privileged views; the student runs once, the teacher once per view.

    `views` maps a view's name to its examples, the same rollouts in the same order everywhere. `student` says whose weights
    the student has: left out, the policy's present ones; a `fixed_teacher` made before training stands for those of then.
    `top_k` > 0 keeps that many of each side's most probable tokens. `parts` names a folder in which each finished micro-batch
    is kept, so that a call that was interrupted, repeated with the same arguments, goes on where it stopped. `token_budget`
    bounds the tokens of a micro-batch, padding included.

    Raises:
        ValueError: when there are no views or examples, when views differ in their completions, when a prompt with its completion
            exceeds the context of the policy that reads it, when the teacher does not fit the policy, or when `parts` holds the
            results of another scoring.
        TypeError: when `parts` is given and something that the numbers depend on cannot be identified.
    """
    examples, student = _check_views(views), student or live_teacher()
    _check_sides(policy, teacher, student, views)
    widest = [max(column, key=lambda example: example.width) for column in zip(*views.values(), strict=True)]
    groups = micro_batches(widest, token_budget)
    kept = ScoreParts(parts, fingerprint(policy, teacher, student, objective, views, (top_k, token_budget))) if parts else None
    columns: list[dict[str, Columns]] = []
    head = LogitHead.of(policy)  # one for all micro-batches: it keeps the float32 copy of a frozen weight
    total = sum(example.scored for example in examples)
    with tqdm(total=total, desc="scoring", unit="token", unit_scale=True, leave=False, disable=not progress) as bar:
        for number, group in enumerate(groups):
            interruption_point()
            of_views = kept.load(number) if kept else None
            if of_views is None:
                batches = {name: build_batch([of_view[i] for i in group], policy.pad_id) for name, of_view in views.items()}
                of_views = _score_batch(policy, teacher, student, objective, batches, top_k, head)
                if kept:
                    kept.save(number, of_views)
            columns.append(of_views)
            bar.update(sum(examples[i].scored for i in group))
    return {name: _table(policy, groups, [part[name] for part in columns], examples) for name in views}


def _check_views(views: Mapping[str, Sequence[Example]]) -> Sequence[Example]:
    """Return the examples of the first view, once the others are known to hold the same completions."""
    if not views or not any(views.values()):
        raise ValueError("score_views: there are no examples to score")
    (first, examples), *others = views.items()
    for name, of_view in others:
        if len(of_view) != len(examples):
            raise ValueError(f"score_views: view {name!r} has {len(of_view)} examples, view {first!r} has {len(examples)}")
        for i, (example, known) in enumerate(zip(of_view, examples, strict=True)):
            if _completion(example) != _completion(known) or example.pair.student_ids != known.pair.student_ids:
                raise ValueError(
                    f"score_views: example {i} of view {name!r} (problem {example.rollout.problem_id!r}) is another completion than "
                    f"that of view {first!r}; build every view's examples from the same rollouts, in the same order"
                )
    return examples


def _completion(example: Example) -> tuple[int, ...]:
    return example.rollout.completion_ids[: example.scored]


def _check_sides(policy: Policy, teacher: Teacher, student: Teacher, views: Mapping[str, Sequence[Example]]) -> None:
    """Make sure that both sides can score the views before any of them does."""
    for side, whose in (("student", student), ("teacher", teacher)):
        with whose.beside(policy) as theirs:
            check_teacher(policy, theirs)
            for name, examples in views.items():
                prompts = [getattr(example.pair, f"{side}_ids") for example in examples]
                check_lengths(
                    theirs,
                    side,
                    [
                        (f"view {name!r}, example {i} (problem {example.rollout.problem_id!r})", len(prompt), example.scored)
                        for i, (example, prompt) in enumerate(zip(examples, prompts, strict=True))
                    ],
                )


def _score_batch(
    policy: Policy,
    teacher: Teacher,
    student: Teacher,
    objective: Objective,
    batches: Mapping[str, DistillBatch],
    top_k: int,
    head: LogitHead,
) -> dict[str, Columns]:
    batches = {name: batch.to(policy.device) for name, batch in batches.items()}
    taught = {}
    with teacher.beside(policy) as theirs:
        for name, batch in batches.items():
            kept = head if theirs is policy else None
            taught[name] = score_completions(theirs, batch.teacher_ids, batch.teacher_starts, batch.completion_mask, kept)
    batch = next(iter(batches.values()))
    with student.beside(policy) as ours:
        kept = head if ours is policy else None
        written = score_completions(ours, batch.student_ids, batch.student_starts, batch.completion_mask, kept)
    found = objective.columns(written, taught, batch.tokens, top_k)
    return {name: {key: values.cpu() for key, values in columns.items()} for name, columns in found.items()}


def _table(policy: Policy, groups: list[list[int]], columns: list[Columns], examples: Sequence[Example]) -> TokenTable:
    joined = join_columns(groups, columns, examples)
    arrays = {name: joined.pop(name).numpy() for name in ARRAYS if name in joined}
    table = build_table(examples, joined | {"weight": torch.ones_like(joined["loss"])}, policy.tokenizer)
    if not arrays:
        return table
    ids = {int(i) for side in SIDES for i in torch.from_numpy(arrays[f"{side}_top_ids"]).unique()}
    return TokenTable(table.frame, TopTokens(**arrays, texts={i: token_texts(policy.tokenizer, [i])[0] for i in sorted(ids)}))
