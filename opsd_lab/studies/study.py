"""Arms x seeds: every cell trained and evaluated alike, kept in a Parquet file of its own, and put together into one table.

A cell is one arm with one seed. Its rows appear when it is finished or has failed; whoever interrupts a study loses the cells under
way, and the same call goes on with the rest. The steps at which arms are evaluated, the last of which is the one that counts, are
part of the study and fixed before anything runs.
"""

import multiprocessing
import re
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from opsd_lab.contexts import ChatFormat, ContextBuilder
from opsd_lab.evaluation.evaluate import By, Evaluation, evaluate
from opsd_lab.evaluation.rewards import AnswerReward
from opsd_lab.grading import Grader
from opsd_lab.identity.parts import Parts
from opsd_lab.methods.recipe_files import recipe_text
from opsd_lab.policies.policy import Policy
from opsd_lab.problems.problem import Problem
from opsd_lab.rollouts import HFSampler, Sampler, SamplingParams
from opsd_lab.studies.cells import cell_settings, check_cell, known_cells, read_cells, write_cell
from opsd_lab.studies.due import Due
from opsd_lab.training.ledger import Ledger, peak_memory_gib
from opsd_lab.training.recipes import Recipe
from opsd_lab.training.records import TrainingParams

# `recipe` is TOML, empty for the initial policy.
# `correct` holds a list: how many samples of each problem were right, in the problems' order.
COLUMNS: dict[str, str] = {
    "arm": "string",
    "method": "string",
    "recipe": "string",
    "learning_rate": "float64",
    "seed": "int64",
    "step": "int64",
    "split": "string",
    "accuracy": "float64",
    "n": "int64",
    "samples": "int64",
    "correct": "object",
    "truncated": "float64",
    "length": "float64",
    "tokens_generated": "int64",
    "tokens_scored": "int64",
    "tokens_trained": "int64",
    "flops": "float64",
    "seconds": "float64",
    "peak_memory_gib": "float64",
    "error": "string",
}


def transformers_sampler(policy: Policy) -> Sampler:
    """Return the sampler that runs the policy's own model."""
    return HFSampler(policy, progress=False)


@dataclass(frozen=True)
class Study:
    """What all arms share, and the arms.

    `policy` returns the fresh initial policy of a seed. `splits` are the problems of each evaluation, of which `during` names those
    that are evaluated at every one of `checkpoints` (optimiser steps, the last of which ends the run); the others are evaluated at
    the last. `chat` is the format of student and teacher, `evaluation_chat` that of evaluation, the student's if left out; a recipe
    may have its own. `sampler` makes of a policy what continues its prompts. `rollouts` make one optimiser step. `by` says which
    answer is judged, in training and in evaluation; `also` names other verdicts on the same completions, whose rows have a split of
    their own, such as "test, boxed". An arm that is None is the initial policy, evaluated once. Where several arms are settings of
    one method, `methods` names it for each of them; an arm that it leaves out is its own method.

    `operations` take the place of the steps in `checkpoints`, whose last is then the most steps that a run may take: arms are
    evaluated at the first step at which their ledger has as many floating-point operations. `trace` names metrics of which each
    cell's last row keeps every step's value, in a column of its own, such as "trace_student_entropy".

    Raises:
        ValueError: for no arms, checkpoints or operations that do not rise, or unknown names in `during`, `methods` or `also`.
    """

    name: str
    policy: Callable[[int], Policy]
    train: Sequence[Problem]
    splits: Mapping[str, Sequence[Problem]]
    arms: Mapping[str, Recipe | None]
    chat: ChatFormat
    sampling: SamplingParams
    evaluation: SamplingParams
    params: TrainingParams
    rollouts: int
    checkpoints: tuple[int, ...]
    during: tuple[str, ...] = ("test",)
    by: By = "final"
    also: tuple[By, ...] = ()
    evaluation_chat: ChatFormat | None = None
    sampler: Callable[[Policy], Sampler] = transformers_sampler
    methods: Mapping[str, str] = field(default_factory=dict)
    operations: tuple[float, ...] = ()
    trace: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.arms:
            raise ValueError(f"study {self.name!r} has no arms")
        if not self.checkpoints or list(self.checkpoints) != sorted(set(self.checkpoints)) or self.checkpoints[0] < 1:
            raise ValueError(f"study {self.name!r}: the checkpoints {self.checkpoints} do not rise from 1 or more")
        if list(self.operations) != sorted(set(self.operations)) or any(value <= 0 for value in self.operations):
            raise ValueError(f"study {self.name!r}: the operations {self.operations} do not rise from above 0")
        if len({_slug(arm) for arm in self.arms}) < len(self.arms):
            raise ValueError(f"study {self.name!r}: some arms' names differ in punctuation only, so their files would be the same")
        if unknown := set(self.during) - set(self.splits):
            raise ValueError(f"study {self.name!r}: during names {sorted(unknown)}, which are no splits")
        if unknown := set(self.methods) - set(self.arms):
            raise ValueError(f"study {self.name!r}: methods names {sorted(unknown)}, which are no arms")
        others = set(get_args(By)) - {self.by}
        if len(set(self.also)) < len(self.also) or not others.issuperset(self.also):
            raise ValueError(f"study {self.name!r}: also is {self.also}; it may name {' and '.join(sorted(others))}, each once")

    def settings(self, arm: str, seed: int = 0) -> Parts:
        """Return all that a cell's rows depend on, part by part; the initial policy of the seed counts by content.

        Raises:
            TypeError: when a piece of the arm cannot be identified; it names the piece and the remedy.
        """
        return cell_settings(self, [arm], [seed])[arm, seed]


def run_cell(study: Study, arm: str, seed: int, *, progress: bool = False) -> pd.DataFrame:
    """Train and evaluate one arm with one seed; return its rows, a row per checkpoint and split.

    What goes wrong, a loss that is no number included, ends the cell: the rows up to there are kept, and one more says what it was.
    `arm` is a name of the `study`. `seed` is that of policy, training and evaluation. `progress` shows a bar of the steps.
    """
    rows: list[dict] = []
    ledger, traces = Ledger(), {name: [] for name in study.trace}
    try:
        policy, recipe = study.policy(seed), study.arms[arm]
        sampler = study.sampler(policy)
        with Grader() as grader:
            if recipe is None:
                rows += _evaluated(study, recipe, policy, sampler, grader, study.splits, 0, ledger, seed)
                return _frame(study, rows, arm, seed)
            params = replace(study.params, seed=seed)
            rewards = AnswerReward(grader, study.by)
            trainer = recipe.trainer(policy, study.train, study.chat, sampler, study.sampling, params, rewards, study.rollouts)
            due = Due(study.checkpoints, study.operations)
            for record in trainer.train(study.checkpoints[-1], progress=progress):
                ledger = record.ledger
                for name, values in traces.items():
                    values.append(record.loss if name == "loss" else record.metrics[name])
                if due.now(record.step, ledger):
                    chosen = study.splits if due.over else {name: study.splits[name] for name in study.during}
                    rows += _evaluated(study, recipe, policy, sampler, grader, chosen, record.step, ledger, seed)
                if due.over:
                    break
    except Exception as error:  # a cell that fails must not take the others with it
        place = traceback.extract_tb(error.__traceback__)[-1]
        told = f"{type(error).__name__}: {error} ({Path(place.filename).name}, line {place.lineno})"
        rows.append({"step": rows[-1]["step"] if rows else 0, "split": "", "error": told, **_costs(ledger)})
    return _frame(study, rows, arm, seed, traces)


def run_study(
    study: Callable[[], Study],
    seeds: Sequence[int],
    folder: Path,
    *,
    arms: Sequence[str] | None = None,
    finished: pd.DataFrame | None = None,
    workers: int = 1,
    progress: bool = True,
) -> pd.DataFrame:
    """Run the cells that `folder` does not hold yet, and return the table of all.

    `study` makes the study; with several workers each process makes it for itself, so it must be a function of a module (or a partial
    of one), and the workers share the processor's cores. A cell that failed has its error in the table; delete its file to try again.

    There is a cell for each of `seeds` and `arms`; None takes all arms of the study. `finished` is such a table: its cells that would
    come out the same now are not run again, and those not asked for are kept. `progress` shows a bar of the cells.

    Raises:
        ValueError: for an arm that the study does not have, or a folder that holds a cell made with other settings or damaged.
        TypeError: when an arm cannot be identified, so that nobody could tell its cells from another's.
    """
    made = study()
    chosen = list(made.arms) if arms is None else list(arms)
    if unknown := [arm for arm in chosen if arm not in made.arms]:
        raise ValueError(f"study {made.name!r} has no arms {unknown}; it has {list(made.arms)}")
    folder.mkdir(parents=True, exist_ok=True)
    settings, earlier = known_cells(made, chosen, seeds, finished)
    cells = dict.fromkeys([*((arm, seed) for seed in seeds for arm in chosen), *earlier])
    paths = {cell: _path(folder, *cell) for cell in cells}
    for cell, path in paths.items():
        check_cell(path, settings[cell])
        if cell in earlier and not path.exists():
            write_cell(path, earlier[cell], settings[cell])
    todo = [cell for cell, path in paths.items() if not path.exists()]
    with tqdm(total=len(cells), initial=len(cells) - len(todo), desc=made.name, unit="cell", disable=not progress) as bar:
        for arm, seed, rows in _finished(study, made, todo, workers):
            write_cell(paths[arm, seed], rows, settings[arm, seed])
            bar.update()
            if failed := rows.loc[rows["error"] != "", "error"].tolist():
                tqdm.write(f"{arm}, seed {seed}: {failed[0]}")
    return read_cells(paths, settings).astype(COLUMNS)


def _finished(
    factory: Callable[[], Study], study: Study, todo: list[tuple[str, int]], workers: int
) -> Iterator[tuple[str, int, pd.DataFrame]]:
    if workers == 1 or len(todo) < 2:
        for arm, seed in todo:
            yield arm, seed, run_cell(study, arm, seed)
        return
    threads = max(1, torch.get_num_threads() // workers)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
        futures: dict[Future, tuple[str, int]] = {pool.submit(_cell_of, factory, *cell): cell for cell in todo}
        try:
            for future in as_completed(futures):
                arm, seed = futures[future]
                try:
                    rows = future.result()
                except BrokenProcessPool as error:
                    raise RuntimeError(
                        f"a process of the study {study.name!r} was killed, maybe for its memory; what had finished is kept. Call "
                        "again to go on, with fewer workers if it happens again"
                    ) from error
                yield arm, seed, rows
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _cell_of(factory: Callable[[], Study], arm: str, seed: int) -> pd.DataFrame:
    return run_cell(factory(), arm, seed)


def _evaluated(
    study: Study,
    recipe: Recipe | None,
    policy: Policy,
    sampler: Sampler,
    grader: Grader,
    splits: Mapping[str, Sequence[Problem]],
    step: int,
    ledger: Ledger,
    seed: int,
) -> list[dict]:
    own = recipe and (recipe.evaluation_chat or recipe.student_chat)
    contexts = ContextBuilder(policy.tokenizer, student=own or study.evaluation_chat or study.chat)
    rows = []
    for name, problems in splits.items():
        params = replace(study.evaluation, seed=seed)
        found = evaluate(sampler, problems, contexts.student_prompt, params, grader, name=name)
        for by in (study.by, *study.also):
            split = name if by == study.by else f"{name}, {by}"
            rows.append({"step": step, "split": split, "error": "", **_scores(found, by), **_costs(ledger)})
    return rows


def _scores(found: Evaluation, by: By) -> dict:
    correct = found.correct(by)
    return {
        "accuracy": float(correct.mean()),
        "n": len(correct),
        "samples": found.k,
        "correct": correct.sum(1).tolist(),
        "truncated": found.truncation_rate,
        "length": found.mean_length,
    }


def _costs(ledger: Ledger) -> dict:
    names = ("tokens_generated", "tokens_scored", "tokens_trained", "flops", "seconds")
    return {name: getattr(ledger, name) for name in names} | {"peak_memory_gib": peak_memory_gib()}


def _frame(study: Study, rows: list[dict], arm: str, seed: int, traces: Mapping[str, list[float]] | None = None) -> pd.DataFrame:
    training = study.arms[arm] and replace(study.params, **study.arms[arm].training)
    about = {"arm": arm, "method": study.methods.get(arm, arm), "recipe": recipe_text(study.arms[arm]) if training else ""}
    about["learning_rate"] = training.learning_rate if training else np.nan
    unevaluated = {"accuracy": np.nan, "n": 0, "samples": 0, "correct": [], "truncated": np.nan, "length": np.nan}
    frame = pd.DataFrame([{**about, "seed": seed, **unevaluated, **row} for row in rows])[list(COLUMNS)].astype(COLUMNS)
    for name in study.trace:
        frame[f"trace_{name}"] = pd.Series([[]] * (len(frame) - 1) + [(traces or {}).get(name, [])], dtype=object)
    return frame


def _path(folder: Path, arm: str, seed: int) -> Path:
    return folder / f"{_slug(arm)}.{seed}.parquet"


def _slug(arm: str) -> str:
    return re.sub(r"[^\w.+=-]+", "_", arm)
