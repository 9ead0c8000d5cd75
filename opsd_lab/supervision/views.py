"""What the teacher says about rollouts that already exist: the training loss's own numbers, without training."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from opsd_lab.basics.interrupts import deferred_interrupts, interruption_point
from opsd_lab.contexts import ContextBuilder, given_tokens
from opsd_lab.identity.digest import digest
from opsd_lab.objectives import Objective, TokenWeights
from opsd_lab.policies.head import LogitHead
from opsd_lab.policies.policy import Policy
from opsd_lab.policies.teacher_checks import check_lengths, check_teacher
from opsd_lab.policies.teachers import Teacher, live_teacher
from opsd_lab.problems.problem import Problem, check_unique
from opsd_lab.rollouts.base import Rollout
from opsd_lab.rollouts.group import groups_of
from opsd_lab.scoring.batching import Example, build_batch, join_columns, micro_batches
from opsd_lab.scoring.columns import build_table
from opsd_lab.scoring.pipeline import Pipeline
from opsd_lab.supervision.score_parts import ScoreParts, fingerprint
from opsd_lab.tokens.table import TokenTable
from opsd_lab.tokens.text import first_difference

Columns = dict[str, Tensor]


def build_examples(
    contexts: ContextBuilder, problems: Sequence[Problem], rollouts: Sequence[Rollout], rewards: Sequence[float] | None = None
) -> list[Example]:
    """Return each rollout with its problem's prompts, every token scored.

    `contexts` writes the prompts. `problems` are those that the `rollouts` belong to. `rewards`, one per rollout, are what views of a
    rollout's peers go by; they become the examples' outcomes.

    Raises:
        ValueError: when a rollout's problem is not among the problems, it continues another prompt than the student's, or two
            problems have the same id.
    """
    check_unique(problems)
    by_id = {problem.id: problem for problem in problems}
    built, examples = {}, []
    for i, (rollout, group) in enumerate(zip(rollouts, groups_of(problems, rollouts, rewards), strict=True)):
        if rollout.problem_id not in built:
            built[rollout.problem_id] = contexts.build(by_id[rollout.problem_id])
        prompts = built[rollout.problem_id]
        if prompts.student_ids != rollout.prompt_ids:
            raise ValueError(
                f"build_examples: the rollout of problem {rollout.problem_id!r} continues another prompt than these contexts write: "
                f"{first_difference(contexts.tokenizer, rollout.prompt_ids, prompts.student_ids)}; build the contexts as when it was "
                "written (question, chat template, the student's ChatFormat with its date and variables)"
            )
        prompts = contexts.with_rollout(prompts, group.problem, rollout, group)
        known = {} if rewards is None else {"outcome": float(rewards[i]), "pass_rate": group.pass_rate}
        examples.append(Example(prompts, rollout, len(rollout.completion_ids), **known))
    return examples


def text_rollout(contexts: ContextBuilder, problem: Problem, text: str, *, control: Sequence[str] = ()) -> Rollout:
    """Return a text that some person or other model wrote as the rollout that it would be, had the student written it.

    `contexts` writes the student's prompt of the `problem`. The text is tokenised once, here, behind that prompt; nobody sampled it,
    so its `logprobs` are NaN, and it does not end with an end of sequence. Special tokens that it mentions stay text; `control` names
    the control tokens that it does write.

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

    `policy`, `teacher` and `objective` are those of `score_views`, and so are the `options`. `name` is what messages call the
    examples; with `parts`, results kept under another name do not count.

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
    weights: TokenWeights | None = None,
    importance_cap: float | None = None,
    token_budget: int = 8192,
    parts: str | Path | None = None,
    progress: bool = True,
) -> dict[str, TokenTable]:
    """Score the same completions under several privileged views; the student runs once, the teacher once per view.

    Args:
        policy: the student.
        teacher: whose weights the teacher has.
        objective: what is asked about every token, once for each entry of `views`.
        views: an entry's name to its examples, the same rollouts in the same order everywhere. Examples may have several views of
            their own, which the objective then sees together.
        student: whose weights the student has: left out, the policy's present ones; a `fixed_teacher` made before training stands for
            those of then.
        top_k: how many of each side's most probable tokens to keep; 0 keeps none.
        weights: what each token weighs, as in training; left out, 1.
        importance_cap: multiplies the weights by min(p / q, cap), as in training.
        token_budget: bounds the tokens of a micro-batch, padding included.
        parts: a folder in which each finished micro-batch is kept, so that a call that was interrupted, repeated with the same
            arguments, goes on where it stopped.
        progress: whether a bar is shown.

    Raises:
        ValueError: when there are no views or examples, when views differ in their completions, when a prompt with its completion
            exceeds the context of the policy that reads it, when the teacher does not fit the policy, or when `parts` holds the
            results of another scoring.
        TypeError: when `parts` is given and something that the numbers depend on cannot be identified.
    """
    first, student = _check_views(views), student or live_teacher()
    _check_sides(policy, teacher, student, views)
    examples, readings = _joined(views)
    groups = micro_batches(examples, token_budget)
    of = (top_k, token_budget, importance_cap, digest(groups))
    kept = ScoreParts(parts, fingerprint(policy, teacher, student, objective, weights, views, of)) if parts else None
    pipeline = Pipeline(policy, teacher, objective, student, readings, top_k, weights, importance_cap)
    columns: list[dict[str, Columns]] = []
    head = LogitHead.of(policy)  # one for all micro-batches: it keeps the float32 copy of a frozen weight
    total = sum(example.scored for example in examples)
    with tqdm(total=total, desc="scoring", unit="token", unit_scale=True, leave=False, disable=not progress) as bar:
        for number, group in enumerate(groups):
            interruption_point()
            found = kept.load(number) if kept else None
            if found is None:
                batch = build_batch([examples[i] for i in group], policy.pad_id, policy.device)
                scored = pipeline.score(batch, head).readings
                found = {name: {key: values.cpu() for key, values in of_view.items()} for name, of_view in scored.items()}
                if kept:
                    kept.save(number, found)
            columns.append(found)
            bar.update(sum(examples[i].scored for i in group))
    return {name: _table(policy, groups, [part[name] for part in columns], first) for name in views}


def _joined(views: Mapping[str, Sequence[Example]]) -> tuple[list[Example], dict[str, tuple[str, ...]]]:
    """Return the examples with the views of all entries, and which views each entry reads."""
    readings = {
        entry: tuple(f"{entry}/{view}" for view in (examples[0].prompts.teachers if examples else ()))
        for entry, examples in views.items()
    }
    joined = []
    for row in zip(*views.values(), strict=True):
        shown = {
            name: ids
            for entry, example in zip(views, row, strict=True)
            for name, ids in zip(readings[entry], example.prompts.teachers.values(), strict=True)
        }
        joined.append(replace(row[0], prompts=replace(row[0].prompts, teachers=shown)))
    return joined, readings


def _check_views(views: Mapping[str, Sequence[Example]]) -> Sequence[Example]:
    """Return the examples of the first entry, once the others are known to hold the same completions."""
    if not views or not any(views.values()):
        raise ValueError("score_views: there are no examples to score")
    (first, examples), *others = views.items()
    for name, of_view in others:
        if len(of_view) != len(examples):
            raise ValueError(f"score_views: view {name!r} has {len(of_view)} examples, view {first!r} has {len(examples)}")
        for i, (example, known) in enumerate(zip(of_view, examples, strict=True)):
            if example.completion != known.completion or example.prompts.student_ids != known.prompts.student_ids:
                raise ValueError(
                    f"score_views: example {i} of view {name!r} (problem {example.rollout.problem_id!r}) is another completion than "
                    f"that of view {first!r}; build every view's examples from the same rollouts, in the same order"
                )
            ours, theirs = example.facts, known.facts
            if other := [fact for fact in ours if repr(ours[fact]) != repr(theirs[fact])]:  # NaN is NaN
                raise ValueError(
                    f"score_views: example {i} of view {name!r} (problem {example.rollout.problem_id!r}) has another {other[0]} than "
                    f"that of view {first!r}; what is known of a rollout is the same under every view"
                )
    return examples


def _check_sides(policy: Policy, teacher: Teacher, student: Teacher, views: Mapping[str, Sequence[Example]]) -> None:
    """Make sure that both sides can score the views before any of them does."""
    for side, whose in (("student", student), ("teacher", teacher)):
        with whose.beside(policy) as theirs:
            check_teacher(policy, theirs)
            for name, examples in views.items():
                lengths = []
                for i, example in enumerate(examples):
                    prompts = [example.prompts.student_ids] if side == "student" else example.prompts.teachers.values()
                    where = f"view {name!r}, example {i} (problem {example.rollout.problem_id!r})"
                    lengths += [(where, len(ids), example.scored) for ids in prompts if ids is not None]
                check_lengths(theirs, side, lengths)


def _table(policy: Policy, groups: list[list[int]], columns: list[Columns], examples: Sequence[Example]) -> TokenTable:
    joined = join_columns(groups, columns, examples)
    return build_table(examples, {name: values for name, values in joined.items() if name != "counted"}, policy.tokenizer)
