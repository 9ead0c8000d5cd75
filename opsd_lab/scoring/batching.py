"""The only place that pads, masks and aligns.

Masks come from lengths, never from token values, so an end-of-sequence token that doubles as padding is scored like any
other. All sides hold the very same completion ids.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from opsd_lab.contexts import Prompts
from opsd_lab.objectives import Tokens
from opsd_lab.rollouts.base import Rollout
from opsd_lab.scoring.shared_prompts import SharedPrompts


@dataclass(frozen=True)
class Example:
    """One rollout with its prompts, and what is known of it.

    `scored` is how many of its tokens count, from the first on, and `weight` what each of them weighs. `advantage`, `outcome` (its
    reward) and `pass_rate` (its problem's) are the rollout's; NaN where nobody judged it. `source` numbers who wrote it. `marked`
    has, by name, what marks and signals say of its tokens, from the first on.

    Raises:
        ValueError: when the rollout continues another prompt than the student's, or no token or more than all are scored.
    """

    prompts: Prompts
    rollout: Rollout
    scored: int
    weight: float = 1.0
    advantage: float = 0.0
    outcome: float = float("nan")
    pass_rate: float = float("nan")
    source: int = 0
    marked: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.rollout.prompt_ids != self.prompts.student_ids:
            raise ValueError(f"the rollout of problem {self.rollout.problem_id!r} continues another prompt than its student's")
        if not 1 <= self.scored <= len(self.rollout.completion_ids):
            raise ValueError(f"the rollout of problem {self.rollout.problem_id!r}: {self.scored} scored tokens are out of range")

    @property
    def completion(self) -> tuple[int, ...]:
        """The tokens that are scored."""
        return self.rollout.completion_ids[: self.scored]

    @property
    def facts(self) -> dict[str, object]:
        """What is known of the rollout beside its tokens, by name."""
        marked = {name: tuple(values) for name, values in self.marked.items()}
        plain = ("scored", "weight", "advantage", "outcome", "pass_rate", "source")
        return {name: getattr(self, name) for name in plain} | {"marked": marked}

    @property
    def prompt_lengths(self) -> list[int]:
        """The lengths of all prompts, the student's first; views without one are left out."""
        return [len(ids) for ids in (self.prompts.student_ids, *self.prompts.teachers.values()) if ids is not None]

    @property
    def width(self) -> int:
        """Tokens of the longest side, prompt and scored completion."""
        return max(self.prompt_lengths) + self.scored


@dataclass(frozen=True)
class Sequences:
    """One side's prompts with their completions, padded on the right.

    `ids` [R, S], `starts` [R]: the prompts' lengths. `completion_ids`, `completion_mask` [R, T]: the tokens to score. `rows` [R] says
    which rows of the batch these are. `shared` has the prompts once each, where rows share them.

    Raises:
        AssertionError: when a row's completion is not the one to score.
    """

    ids: Tensor
    starts: Tensor
    completion_ids: Tensor
    completion_mask: Tensor
    rows: Tensor
    shared: SharedPrompts | None = None

    def __post_init__(self) -> None:
        for row, start, completion, mask in zip(
            self.ids, self.starts.tolist(), self.completion_ids, self.completion_mask, strict=True
        ):
            length = int(mask.sum())
            if not torch.equal(row[start : start + length], completion[:length]):
                raise AssertionError("Sequences: a side would be scored on other tokens than the rollout's")


@dataclass(frozen=True)
class Batch:
    """Several examples as padded tensors: the student's sequences, the teachers' by view, and what is known of the scored tokens [N].

    A view's sequences are those of the rollouts that have it. `tokens` are row by row, without padding.
    """

    student: Sequences
    teachers: Mapping[str, Sequences]
    tokens: Tokens
    weight: Tensor


def build_batch(examples: Sequence[Example], pad_id: int, device: torch.device | str = "cpu") -> Batch:
    """Pad examples, which have the same views, on the right into one batch on a device."""
    lengths = torch.tensor([e.scored for e in examples])
    completion_ids = _pad([e.completion for e in examples], pad_id)
    mask = torch.arange(int(lengths.max())) < lengths[:, None]

    def sequences(prompts: Sequence[tuple[int, ...] | None]) -> Sequences:
        rows = [i for i, ids in enumerate(prompts) if ids is not None]
        ids = _pad([prompts[i] + examples[i].completion for i in rows], pad_id)
        starts, chosen = torch.tensor([len(prompts[i]) for i in rows]), torch.tensor(rows, dtype=torch.long)
        shared = SharedPrompts.of([prompts[i] for i in rows], completion_ids[chosen], pad_id, ids.shape[1])
        made = Sequences(ids, starts, completion_ids[chosen], mask[chosen], chosen, shared)
        return Sequences(**{name: value if value is None else value.to(device) for name, value in vars(made).items()})

    def per_token(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32).repeat_interleave(lengths).to(device)

    def marked(name: str) -> Tensor:
        return torch.cat([torch.as_tensor(e.marked[name], dtype=torch.float32)[: e.scored] for e in examples]).to(device)

    views = {name: [e.prompts.teachers[name] for e in examples] for name in examples[0].prompts.teachers}
    judged = all(e.outcome == e.outcome for e in examples)
    tokens = Tokens(
        ids=completion_ids[mask].to(device),
        rollout=torch.arange(len(examples)).repeat_interleave(lengths).to(device),
        position=torch.cat([torch.arange(e.scored) for e in examples]).to(device),
        length=lengths.repeat_interleave(lengths).to(device),
        advantage=per_token([e.advantage for e in examples]),
        outcome=per_token([e.outcome for e in examples]) if judged else None,
        pass_rate=per_token([e.pass_rate for e in examples]) if judged else None,
        sampled_logprob=sampled_logprobs(examples).to(device),
        source=per_token([e.source for e in examples]).long(),
        seen={name: per_token([ids is not None for ids in prompts]).bool() for name, prompts in views.items()},
        marked={name: marked(name) for name in examples[0].marked},
    )
    teachers = {name: sequences(prompts) for name, prompts in views.items() if any(ids is not None for ids in prompts)}
    return Batch(sequences([e.prompts.student_ids for e in examples]), teachers, tokens, per_token([e.weight for e in examples]))


def sampled_logprobs(examples: Sequence[Example]) -> Tensor:
    """Return the sampler's log-probability of every scored token [N], float32."""
    return torch.tensor([x for e in examples for x in e.rollout.logprobs[: e.scored]])


def micro_batches(examples: Sequence[Example], token_budget: int) -> list[list[int]]:
    """Group example indices, longest first, so that rows times the longest width stays within the budget.

    There are as few groups as the budget allows, and of those the largest is as small as it can be, since it says how much memory is
    needed. Examples of one prompt follow each other, so that they can share it. An example longer than the budget gets a group of its
    own.
    """
    longest: dict[tuple[int, ...], int] = {}
    for example in examples:
        prompt = example.prompts.student_ids
        longest[prompt] = max(example.width, longest.get(prompt, 0))
    numbers = {prompt: number for number, prompt in enumerate(longest)}

    def place(i: int) -> tuple[int, int, int]:
        prompt = examples[i].prompts.student_ids
        return -longest[prompt], numbers[prompt], -examples[i].width

    order = sorted(range(len(examples)), key=place)
    widths = [examples[i].width for i in order]
    fewest = len(_cut(widths, token_budget))
    least = bisect_left(range(token_budget), True, key=lambda budget: len(_cut(widths, budget)) <= fewest)
    return [[order[at] for at in group] for group in _cut(widths, least)]


def _cut(widths: Sequence[int], budget: int) -> list[range]:
    """Cut a sequence into stretches, each as long as the budget allows for its length times its largest width, or of one entry."""
    groups, start, widest = [], 0, 0
    for at, width in enumerate(widths):
        if at > start and (at - start + 1) * max(widest, width) > budget:
            groups.append(range(start, at))
            start, widest = at, 0
        widest = max(widest, width)
    return [*groups, range(start, len(widths))] if widths else []


def padding_share(examples: Sequence[Example], groups: Sequence[Sequence[int]]) -> tuple[float, int]:
    """Return which share of all sides' positions is padding when the examples are scored in these groups, and how many there are.

    The share is NaN where there are none.
    """
    real = padded = 0
    for group in groups:
        prompts = [examples[i].prompts for i in group]
        for side in (lambda p: p.student_ids, *[lambda p, n=name: p.teachers[n] for name in prompts[0].teachers]):
            lengths = [len(ids) + examples[i].scored for i, p in zip(group, prompts, strict=True) if (ids := side(p)) is not None]
            real, padded = real + sum(lengths), padded + len(lengths) * max(lengths, default=0)
    return (1 - real / padded if padded else math.nan), padded


def join_columns(
    groups: Sequence[Sequence[int]], columns: Sequence[Mapping[str, Tensor]], examples: Sequence[Example]
) -> dict[str, Tensor]:
    """Put the per-token columns of micro-batches [n] together in the order of the examples [N]; none for no examples."""
    parts: list[dict[str, Tensor]] = [{} for _ in examples]
    for group, of_group in zip(groups, columns, strict=True):
        for name, values in of_group.items():
            for i, part in zip(group, values.split([examples[i].scored for i in group]), strict=True):
                parts[i][name] = part
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: torch.cat([_of(part, name, example) for part, example in zip(parts, examples, strict=True)]) for name in names}


def _of(part: Mapping[str, Tensor], name: str, example: Example) -> Tensor:
    """Return a rollout's column; 0 where an objective recorded it of other rollouts only."""
    return part[name] if name in part else next(iter(part.values())).new_zeros(example.scored, dtype=torch.float32)


def _pad(rows: Sequence[Sequence[int]], pad_id: int) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in rows])
