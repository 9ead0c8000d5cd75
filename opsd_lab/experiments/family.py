"""The whole family on the sandbox's two tasks: every recipe in the sandbox's words, at equal operations.

The sandbox's model reads the few words of its vocabulary. So views are worded anew here: what stands for an analysis, a reflection or
a worked example is shown as a solution is, an instruction is the one that the model knows, and wrong attempts are not called so.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from types import FunctionType

import pandas as pd

from opsd_lab.contexts import OWN_WORDS, SHOWN_SOLUTION, bare_solution, reference_solution
from opsd_lab.contexts.peers import MixedPeers
from opsd_lab.contexts.views import OtherProblem
from opsd_lab.divergences import reverse_kl
from opsd_lab.experiments import RESULTS
from opsd_lab.experiments.arms import every_rate, sandbox_policy, smollm2_study
from opsd_lab.methods import METHODS
from opsd_lab.methods import contexts as context_methods
from opsd_lab.methods import gates as gate_methods
from opsd_lab.objectives import GRPO, OPSD
from opsd_lab.policies.teachers import ema_teacher, fixed_teacher, live_teacher, refreshed_teacher
from opsd_lab.problems.problem import Problem
from opsd_lab.problems.word_problems import builtin
from opsd_lab.rollouts import SamplingParams
from opsd_lab.sandbox import CHAT, worksheets
from opsd_lab.studies.results import choose
from opsd_lab.studies.study import Study
from opsd_lab.training.recipes import Recipe
from opsd_lab.training.records import TrainingParams

TASKS = ("sheet", "chain")
TASK_NAMES = {"sheet": "worksheets", "chain": "chains"}
RATE, RATES = 2e-4, (1.25e-5, 5e-5, 2e-4)
SEARCHED = "sheet"  # the task on which the rates are searched, for both
ROLLOUTS = 16  # a step
STEPS, OPERATIONS = 200, 1.75e12  # arms are compared after as many operations, those of so many steps of OPSD
WATCHED = "watched"  # the split that is evaluated at every quarter of the operations


def horizons(steps: int) -> dict[str, dict[str, int]]:
    """Return what is known beforehand of how long training goes on, in steps of OPSD, for the methods that change by it."""
    return {"atesd_scheduled": {"steps": steps}, "ogls_sd": {"steps": steps}, "paced": {"half": steps // 2}}


TRACE = ("loss", "student_entropy", "teacher_entropy", "gap", "completion_length", "truncated", "grad_norm")


def instruction(problem: Problem) -> str:
    """Show the one instruction that the sandbox's model knows, without a solution."""
    return OWN_WORDS


def as_a_solution(problem: Problem, text: str) -> str | None:
    """Show what the teacher wrote as a solution; None where it wrote nothing."""
    return f"{SHOWN_SOLUTION}\n{text}" if text.strip() else None


WORDED: dict[Callable, Callable] = {
    reference_solution: bare_solution,
    context_methods.concise: instruction,
    context_methods.own_attempt: bare_solution,
    context_methods.to_be_analysed: bare_solution,
    context_methods.with_analysis: as_a_solution,
    context_methods.with_reflection: as_a_solution,
    gate_methods.to_be_rewritten: bare_solution,
    gate_methods.concise: instruction,
}
"""What stands for a function of the recipes in the sandbox."""


def in_sandbox_words(piece: object) -> object:
    """Return a piece with everything in it worded for the sandbox."""
    if isinstance(piece, context_methods.WorkedExample):
        return OtherProblem(closing="")
    if isinstance(piece, MixedPeers):
        return replace(piece, wrong=0)
    return _worded(piece, WORDED, in_sandbox_words)


def _worded(piece: object, words: Mapping[Callable, Callable], inside: Callable[[object], object] | None = None) -> object:
    """Return a piece with other functions in it, and no sentence that closes a solution."""
    inside = inside or partial(_worded, words=words)
    if isinstance(piece, FunctionType):
        return words.get(piece, piece)
    if type(piece) is tuple:
        return tuple(inside(part) for part in piece)
    if type(piece) is dict:
        return {name: inside(part) for name, part in piece.items()}
    if not is_dataclass(piece) or isinstance(piece, type):
        return piece
    changed = {f.name: inside(getattr(piece, f.name)) for f in fields(piece) if f.init}
    if changed.get("closing") == OWN_WORDS:
        changed["closing"] = ""
    return replace(piece, **changed)


BASELINES = {"grpo": Recipe(GRPO(), n=8)}
"""What the family is compared with beside itself: the outcome alone."""


def family_recipes(keys: Sequence[str] | None = None) -> dict[str, Recipe]:
    """Return the recipes in the sandbox's words, by their keys, the baselines among them; all of them where no `keys` are given."""
    known = horizons(STEPS)
    made = {**BASELINES, **{key: entry.make(**known.get(key, {})) for key, entry in METHODS.items()}}
    return {key: in_sandbox_words(made[key]) for key in keys or made}


def family_study(task: str, rates: dict[str, float] | None = None, keys: Sequence[str] | None = None) -> Study:
    """Return the study of the family on a task of the sandbox, "sheet" or "chain": all methods with the same operations.

    Forgetting is measured on the other task. A few validation problems, the split `WATCHED`, are evaluated at every quarter.

    Args:
        task: the task.
        rates: the methods' learning rates, by their keys; those that it leaves out have `RATE`.
        keys: the methods; left out, all.

    Raises:
        ValueError: for another task.
    """
    if task not in TASKS:
        raise ValueError(f"the family is compared on {' and '.join(TASKS)}, not on {task!r}")
    found = {}
    for key, recipe in family_recipes(keys).items():
        found[key] = replace(recipe, training={"learning_rate": (rates or {}).get(key, RATE), **recipe.training})
    others = {name: worksheets(name, "test", 128) for name in TASKS if name != task}
    return Study(
        name=f"family {task}",
        policy=sandbox_policy,
        train=worksheets(task, "train", 2048),
        splits={"test": worksheets(task, "test", 256), **others, WATCHED: worksheets(task, "validation", 64)},
        arms={"base": None, **found},
        during=(WATCHED,),
        chat=CHAT,
        sampling=SamplingParams(64, temperature=1.0),
        evaluation=SamplingParams(64, temperature=1.0, n=4),
        params=TrainingParams(token_budget=8192),
        rollouts=ROLLOUTS,
        checkpoints=(8 * STEPS,),
        operations=tuple(OPERATIONS * part / 4 for part in (1, 2, 3, 4)),
        trace=TRACE,
    )


def family_search(keys: Sequence[str] | None = None) -> Study:
    """Return the search over learning rates, on worksheets: the same candidates, operations and seeds for every method.

    It is judged on validation problems, after as many operations as `family_study`'s arms have. Both tasks take the rates that it
    finds. `keys` choose methods.
    """
    study = family_study(SEARCHED, keys=keys)
    splits = {"validation": worksheets(SEARCHED, "validation", 256)}
    search = replace(study, name="family search", splits=splits, during=("validation",), operations=(OPERATIONS,))
    found = every_rate(search.arms, RATES)
    return replace(search, arms={"base": None, **found["arms"]}, methods=found["methods"])


def searched_rates(search: str, keys: Collection[str], candidates: Sequence[float], folder: Path = RESULTS) -> dict[str, float]:
    """Return each method's learning rate as a search chose it among the candidates.

    Args:
        search: the table's name, such as "family_search".
        keys: the methods.
        candidates: the rates that each of them tried.
        folder: where the table is.

    Raises:
        FileNotFoundError: when the search has not been made; the message says how it is.
        ValueError: when it has not come to its end; the message says with which method it goes on.
    """
    path = folder / f"{search}.parquet"
    made = f"`python -m opsd_lab study --name {search.replace('_', '-')} --seeds 100 --out {path}`"
    if not path.exists():
        raise FileNotFoundError(f"the learning rates come from a search that is not there yet; make it with {made}")
    table = pd.read_parquet(path)
    tried = table.groupby("method")["learning_rate"].apply(set).to_dict()
    if lacking := [key for key in keys if not tried.get(key, set()).issuperset(candidates)]:
        raise ValueError(f"{path} is a search that has not ended: {lacking[0]} has not tried all rates; go on with {made}")
    found = choose(table)
    return dict(zip(found["method"], found["learning_rate"], strict=True))


def tuned_family(task: str) -> Study:
    """Return `family_study` at the learning rates that `family_search` found.

    Raises:
        FileNotFoundError, ValueError: as `searched_rates` does.
    """
    return family_study(task, searched_rates("family_search", family_recipes(), RATES))


TEACHERS: dict[str, Callable] = {
    "initial": fixed_teacher,
    "average .99": partial(ema_teacher, decay=0.99),
    "average .95": partial(ema_teacher, decay=0.95),
    "copy every 50": partial(refreshed_teacher, every=50),
    "copy every 10": partial(refreshed_teacher, every=10),
    "live": live_teacher,
}


def teachers_study(task: str) -> Study:
    """Return the study of whose weights teach, everything else as in OPSD with reverse KL, on a task of the sandbox."""
    study = family_study(task, keys=["opsd"])
    plain = replace(study.arms["opsd"], objective=OPSD(reverse_kl))
    arms = {"base": None} | {name: replace(plain, teacher=teacher) for name, teacher in TEACHERS.items()}
    return replace(study, name=f"teachers {task}", arms=arms)


SMOLLM2 = ("opsd", "opsd_clipped", "sdpo", "purified_opsd", "tip", "rlsd", "srpo")
"""The methods that are compared on SmolLM2, chosen before any was run there: one of each group at least, and OPSD's both versions."""
SMOLLM2_RATES = (3e-4, 1e-3)


def in_smollm2_words(piece: object) -> object:
    """Return a piece whose views show the reference under the walkthrough's words, which leave out what this model would copy."""
    return _worded(piece, {reference_solution: bare_solution})


def family_smollm2(rates: dict[str, float] | None = None) -> Study:
    """Return the study of `SMOLLM2` on SmolLM2 with the walkthrough's problems and steps; `rates` are their learning rates."""
    study, found = smollm2_study(), {}
    for key in SMOLLM2:
        recipe, rate = in_smollm2_words(METHODS[key].make()), (rates or {}).get(key, SMOLLM2_RATES[0])
        sampling = {"temperature": 1.0, **recipe.sampling} if recipe.objective.needs_sampled_logprobs else recipe.sampling
        found[key] = replace(recipe, training={"learning_rate": rate, **recipe.training}, sampling=sampling)
    return replace(study, name="family smollm2", arms={"base": None, **found}, trace=TRACE)


def tuned_smollm2() -> Study:
    """Return `family_smollm2` at the learning rates that `family_smollm2_search` found.

    Raises:
        FileNotFoundError, ValueError: as `searched_rates` does.
    """
    return family_smollm2(searched_rates("family_smollm2_search", SMOLLM2, SMOLLM2_RATES))


def family_smollm2_search() -> Study:
    """Return the search over `SMOLLM2_RATES` for the methods of `family_smollm2`, on validation problems."""
    study = family_smollm2()
    splits = {"validation": builtin("one_step", "validation")}
    return replace(
        study, name="family smollm2 search", splits=splits, during=("validation",), **every_rate(study.arms, SMOLLM2_RATES)
    )
