"""What each method of the family would teach on the same rollouts of the sandbox: one step of each, of which none is taken."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from tqdm.auto import tqdm

from opsd_lab.contexts import ContextBuilder
from opsd_lab.diagnostics import with_outcomes
from opsd_lab.diagnostics.estimates import Estimates, prepare
from opsd_lab.evaluation.outcomes import grade_rollouts
from opsd_lab.evaluation.rewards import AnswerReward
from opsd_lab.experiments.family import family_recipes
from opsd_lab.experiments.family_findings import name_of_method
from opsd_lab.grading import Grader
from opsd_lab.methods.lesson import lesson
from opsd_lab.rollouts import HFSampler, Rollout, SamplingParams, sample_rollouts
from opsd_lab.sandbox import CHAT, load_sandbox, worksheets
from opsd_lab.steps.labels import label_steps
from opsd_lab.tokens.table import TokenTable

PLACES = ("correct, no error before", "first wrong step", "correct, after an error", "wrong, after an error", "outside steps")
"""Where a token stands: in a step that is correct or not, before, at or after the rollout's first wrong step, or in no step."""


@dataclass(frozen=True)
class Lessons:
    """The `rollouts`, each method's token table of them with its column `push`, and why other methods have none; by their keys."""

    rollouts: tuple[Rollout, ...]
    tables: Mapping[str, TokenTable]
    left_out: Mapping[str, str]


def family_lessons(task: str, *, problems: int = 8, n: int = 8, seed: int = 0, keys: Sequence[str] | None = None) -> Lessons:
    """Return what each method would do on `n` rollouts of each of some test problems of a task, their steps labelled.

    `problems` says how many problems, `seed` draws the rollouts, and `keys` choose methods. Methods that do not learn from the
    student's rollouts, and those for which none of these counts, are left out and say why.
    """
    policy, asked = load_sandbox(), worksheets(task, "test", problems)
    contexts = ContextBuilder(policy.tokenizer, student=CHAT, teacher=CHAT)
    drawing = SamplingParams(64, temperature=1.0, n=n, seed=seed)
    rollouts = sample_rollouts(HFSampler(policy, progress=False), contexts, asked, drawing)
    tables, left_out = {}, {}
    with Grader() as grader:
        outcomes = [grade.final for grade in grade_rollouts(grader, rollouts, asked)]
        for key, recipe in tqdm(family_recipes(keys).items(), desc="lessons", unit="method"):
            try:
                found = lesson(recipe, policy, asked, rollouts, CHAT, AnswerReward(grader))
            except ValueError as error:
                left_out[key] = str(error).removeprefix("lesson: ")
                continue
            known = {number: outcomes[number] for number in found.frame["rollout"].unique()}
            tables[key] = with_outcomes(label_steps(found), known)
    return Lessons(tuple(rollouts), tables, left_out)


def places(table: TokenTable) -> pd.Series:
    """Return for each token which of `PLACES` it stands in; "" for those of steps that cannot be checked."""
    frame = table.frame
    correct, wrong, after = frame["label"] == "correct", frame["label"] == "incorrect", frame["error_phase"] == "after"
    found = pd.Series("", index=frame.index)
    for place, chosen in zip(
        PLACES, (correct & ~after, wrong & ~after, correct & after, wrong & after, frame["step"] < 0), strict=True
    ):
        found[chosen] = place
    return found


def pushes_by_place(tables: Mapping[str, TokenTable]) -> pd.DataFrame:
    """Return each method's mean push in each of `PLACES`, with its interval over problems; the methods by their names."""
    parts = []
    for key, table in tables.items():
        rows, estimates = prepare(table, "pushes_by_place"), Estimates(["method", "place"])
        stands = places(rows.table)
        for place in PLACES:
            estimates.add(
                (name_of_method(key), place), rows.units, rows.values("push", "pushes_by_place"), (stands == place).to_numpy()
            )
        parts.append(estimates.frame())
    return pd.concat(parts, ignore_index=True)


def likeness(tables: Mapping[str, TokenTable]) -> pd.DataFrame:
    """Return Spearman's correlation of every two methods' pushes, over the tokens that count for both; by the methods' names."""
    tokens = {name_of_method(key): table.frame.set_index(["rollout", "position"])["push"] for key, table in tables.items()}
    return pd.DataFrame(tokens).corr(method="spearman")
