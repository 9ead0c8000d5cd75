"""The premise of self-distillation, measured: how well one model answers the same problems under each privileged view.

The student's own view shows nothing. A view that shows the way without the answer, another problem's solution and a wrong solution
say whether it is the solution that helps, or what can be copied from it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from opsd_lab.basics.growing_table import SETTINGS, GrowingTable
from opsd_lab.contexts import (
    ChatFormat,
    ContextBuilder,
    View,
    bare_solution,
    change_numbers,
    hidden_answer,
    no_privilege,
    other_problem,
    reference_solution,
    wrong_solution,
)
from opsd_lab.evaluation.evaluate import Evaluation, graded, paired_difference
from opsd_lab.experiments.champ_study import applies
from opsd_lab.grading import Grader
from opsd_lab.identity.digest import digest
from opsd_lab.identity.parts import Parts, parts_of, policy_parts, versions
from opsd_lab.policies.policy import Policy
from opsd_lab.problems.champ import champ_problems
from opsd_lab.problems.problem import Problem
from opsd_lab.problems.reasoning_gym import TASKS, reasoning_gym_problems
from opsd_lab.problems.word_problems import builtin, one_per_key
from opsd_lab.rollouts import HFSampler, Sampler, SamplingParams
from opsd_lab.rollouts.sampling import check_room, continue_prompts

NONE = "none"
Asked = tuple[str, str, View, list[Problem]]  # a set, a view's name, the view, some problems
SETS: dict[str, Callable[[], list[Problem]]] = {
    "one_step": lambda: one_per_key(builtin("one_step", "test")),
    "two_step": lambda: one_per_key(builtin("two_step", "test")),
    **{task: lambda task=task: reasoning_gym_problems(task, 256, seed=1) for task in TASKS},
    "CHAMP": champ_problems,
}
"""The sets of problems by name."""
KEPT = ("problem_id", "sample", "final", "boxed", "last_number", "answer", "truncated", "tokens")
LEAST_RUN = 20  # characters that two texts share by more than chance


def premise_views(problems: Sequence[Problem]) -> dict[str, View]:
    """Return the views that are compared; `problems` are also the donors of the other problem's solution."""
    return {
        NONE: no_privilege,
        "reference": reference_solution,
        "bare reference": bare_solution,
        "answer hidden": hidden_answer,
        "other problem": other_problem(problems),
        "wrong numbers": wrong_solution(change_numbers),
    }


@dataclass(frozen=True)
class Premise:
    """What is measured: `count` problems of each of `sets`, drawn with `seed` from those to which every view applies.

    Their answers can be graded. `sampling` says how each of a problem's answers is drawn, and `chat` is the format under every view.
    The file grows by `chunk` problems at a time.

    Raises:
        ValueError: for a set that is none of `SETS`.
    """

    sets: tuple[str, ...] = tuple(SETS)
    count: int = 32
    sampling: SamplingParams = field(default_factory=lambda: SamplingParams(768, temperature=0.7, n=4))
    chat: ChatFormat = field(default_factory=ChatFormat)
    chunk: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if unknown := [name for name in self.sets if name not in SETS]:
            raise ValueError(f"there is no set {unknown[0]!r}; there are {', '.join(SETS)}")

    def problems(self, name: str, grader: Grader) -> tuple[list[Problem], dict[str, View]]:
        """Return the problems of a set with the views of them.

        Raises:
            ModuleNotFoundError: when the set's package is not installed.
            ValueError: when no problem is left.
        """
        every = SETS[name]()
        unreadable = set(grader.unreadable([problem.answer for problem in every]))
        views = premise_views(every)
        fitting = [p for p in every if p.answer not in unreadable and all(applies(view, p) for view in views.values())]
        if not fitting:
            raise ValueError(f"the set {name!r} has no problem to which every view applies")
        drawn = np.random.default_rng(self.seed).permutation(len(fitting))[: self.count]
        return [fitting[i] for i in sorted(drawn)], views


def measure_premise(
    policy: Policy,
    premise: Premise,
    grader: Grader,
    path: Path,
    *,
    model: str,
    sampler: Sampler | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Return a row for each answer of a model: set, view, problem, sample, verdicts, tokens, and how much of it is copied.

    `copied` is the share of an answer's characters in runs of at least `LEAST_RUN` that stand in what was shown, and `shared` in the
    reference solution, which only some views show. Texts are not kept. All views of a few problems are answered side by side, then
    the file grows by their rows, each with `settings`, a digest of what it depends on; a call that was interrupted goes on with those
    that are not there.

    Args:
        policy: the model.
        premise: what is measured.
        grader: what judges the answers.
        path: the Parquet file.
        model: what the rows call it.
        sampler: what writes with the policy's weights; left out, `HFSampler`.
        progress: whether a bar shows the answers, and the time that is left.

    Raises:
        ModuleNotFoundError, ValueError: as `Premise.problems` does, and when the file holds another measurement.
    """
    sampler = sampler or HFSampler(policy, progress=False)
    own = policy_parts(policy) | versions() | parts_of("grader", grader)
    chosen = {name: premise.problems(name, grader) for name in premise.sets}
    wanted: dict[str, Asked] = {}
    for name, (problems, views) in chosen.items():
        for view, show in views.items():
            for few in _chunks(problems, premise.chunk):
                wanted[digest(own | _settings(premise, show, few))] = name, view, show, few
    table = GrowingTable(path, list(wanted))
    total = premise.sampling.n * sum(len(few) for *_, few in wanted.values())
    left = premise.sampling.n * sum(len(wanted[key][-1]) for key in table.missing)
    with tqdm(total=total, initial=total - left, desc="answers", unit="answer", disable=not progress) as bar:
        for keys in _together(table.missing, wanted):
            rows = _answers(policy, premise, {key: wanted[key] for key in keys}, sampler, grader)
            table.add(rows.assign(model=model))
            bar.update(len(rows))
    return pd.read_parquet(path)


def _chunks(problems: Sequence[Problem], size: int) -> Iterator[list[Problem]]:
    for start in range(0, len(problems), size):
        yield list(problems[start : start + size])


def _settings(premise: Premise, view: View, problems: Sequence[Problem]) -> Parts:
    found = parts_of("view", view) | parts_of("problems", list(problems)) | parts_of("sampling", premise.sampling)
    return found | parts_of("chat", premise.chat)


def _together(missing: Sequence[str], wanted: Mapping[str, Asked]) -> list[list[str]]:
    """Return the missing parts, those of the same problems together: their views are answered side by side."""
    found: dict[tuple[str, ...], list[str]] = {}
    for key in missing:
        name, *_, few = wanted[key]
        found.setdefault((name, *(problem.id for problem in few)), []).append(key)
    return list(found.values())


def _answers(policy: Policy, premise: Premise, parts: Mapping[str, Asked], sampler: Sampler, grader: Grader) -> pd.DataFrame:
    """Return the rows of several views of the same problems; `parts` has them by what they depend on."""
    asked, prompts = [], []
    for _, _, show, few in parts.values():
        contexts = ContextBuilder(policy.tokenizer, show, student=premise.chat, teacher=premise.chat)
        asked += few
        prompts += [list(contexts.teacher_prompt(problem, show)) for problem in few]
    check_room(policy, "teacher", asked, prompts, premise.sampling)
    written = iter(continue_prompts(sampler, asked, prompts, premise.sampling))
    rows = []
    for key, (name, view, show, few) in parts.items():
        found = graded(list(islice(written, len(few) * premise.sampling.n)), few, grader).rows
        by_id = {problem.id: problem for problem in few}
        pairs = [(text, by_id[of]) for text, of in zip(found["text"], found["problem_id"], strict=True)]
        copied = [copied_share(text, show(problem)) for text, problem in pairs]
        shared = [copied_share(text, problem.solution) for text, problem in pairs]
        rows.append(found[list(KEPT)].assign(copied=copied, shared=shared, set=name, view=view, **{SETTINGS: key}))
    return pd.concat(rows, ignore_index=True)


def copied_share(text: str, shown: str) -> float:
    """Return the share of a text's characters that lie in runs of at least `LEAST_RUN` which stand in another text.

    White space counts as one space. An empty text has copied nothing.
    """
    text, shown = " ".join(text.split()), " ".join(shown.split())
    there, copied = set(_runs(shown)), np.zeros(len(text), dtype=bool)
    for start, run in enumerate(_runs(text)):
        if run in there:
            copied[start : start + LEAST_RUN] = True
    return float(copied.mean()) if text else 0.0


def _runs(text: str) -> list[str]:
    return [text[start : start + LEAST_RUN] for start in range(len(text) - LEAST_RUN + 1)]


def premise_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return each set's accuracy under each view, by the final answer, with 95 % intervals over problems.

    `rows` are those of `measure_premise`. Columns beside those of an estimate: set, view, `majority` (the accuracy of the majority of
    a problem's answers, with `majority_low` and `majority_high`), `copied`, `shared`, `truncated`, `tokens`, and how far the view
    stands above "none" on the same problems (`difference` with `difference_low` and `difference_high`).
    """
    found = []
    for name, of_set in rows.groupby("set", sort=False):
        parts = dict(iter(of_set.groupby("view", sort=False)))
        held = {view: Evaluation(view, part.assign(text="")) for view, part in parts.items()}
        for view, one in held.items():
            majority, over = one.maj_at_k(), paired_difference(held[NONE], one)
            means = parts[view][["copied", "shared", "truncated", "tokens"]].astype(float).mean()
            row = {"set": name, "view": view, **one.accuracy().as_dict(), "majority": majority.mean}
            row |= {"majority_low": majority.low, "majority_high": majority.high, **means.to_dict()}
            row |= {"difference": over.mean, "difference_low": over.low, "difference_high": over.high}
            found.append(row)
    return pd.DataFrame(found)
