"""Which pieces a recipe is made of, and what each piece is worth over the family: a regression over methods."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import partial

import pandas as pd
import statsmodels.formula.api as smf

from opsd_lab.basics.options import name_of
from opsd_lab.contexts.peers import FailedPeer, MixedPeers, ShortestPeer, SuccessfulPeer
from opsd_lab.contexts.views import OtherProblem, WrittenView
from opsd_lab.divergences import ForwardKL, ReverseKL
from opsd_lab.experiments.family import instruction
from opsd_lab.methods.gates import right_or_alone
from opsd_lab.methods.spans import in_a_span
from opsd_lab.methods.token_weights import SignalledGradient
from opsd_lab.objectives import GRPO, OPSD, SFT, PolicyGradient, Route, SampledTokenOPSD, rewarded
from opsd_lab.training.recipes import Recipe

TEACHERS = {"fixed_teacher": "initial", "ema_teacher": "average", "refreshed_teacher": "copy", "live_teacher": "live"}
PEERS = (FailedPeer, MixedPeers, ShortestPeer, SuccessfulPeer)
CHOICES = {"signal": "reverse KL", "teacher": "initial", "view": "solution"}
"""The pieces of which a recipe has one of several, with the choice that the others are compared with."""


def pieces_of(recipe: Recipe) -> dict[str, object]:
    """Return what a recipe is made of, by piece: three choices in words, and five yes or no.

    `signal` is "outcome" where a reward becomes an advantage, "entropy" where something of the student's own does, "gap" for a policy
    gradient of the teacher's log-probability, else the direction of the divergence. `teacher` says whose weights teach, `view` what
    the first view shows that shows something. Then whether a divergence is clipped, whether there are several views, whether tokens
    or rollouts are weighed, and whether outcomes are used.
    """
    found = list(_inside(recipe.objective))
    distilled = [piece for piece in found if isinstance(piece, OPSD)]
    shown = [_shown(view) for view in (recipe.view.values() if isinstance(recipe.view, dict) else [recipe.view])]
    routed = any(isinstance(piece, Route) and piece.choose in (rewarded, in_a_span, right_or_alone) for piece in found)
    peers = any(isinstance(piece, PEERS) for piece in _inside(recipe.view))
    return {
        "signal": _signal(found, distilled),
        "teacher": TEACHERS[name_of(recipe.teacher)],
        "view": next((what for what in shown if what != "nothing"), "nothing"),
        "clip": any(piece.pointwise_clip is not None or piece.token_clip is not None for piece in distilled),
        "several_views": isinstance(recipe.view, dict) and len(recipe.view) > 1,
        "token_weights": recipe.weights is not None or bool(recipe.signals),
        "rollout_weights": recipe.gate is not None,
        "outcomes": recipe.objective.needs_rewards or routed or peers or recipe.gate is not None,
    }


def _signal(found: list[object], distilled: list[OPSD]) -> str:
    if any(isinstance(piece, GRPO) for piece in found):
        return "outcome"
    if any(isinstance(piece, SignalledGradient) for piece in found):
        return "entropy"
    if any(isinstance(piece, PolicyGradient | SampledTokenOPSD) for piece in found):
        return "gap"
    if any(isinstance(piece, SFT) for piece in found) or not distilled:
        return "likelihood"
    kind = type(distilled[0].divergence)
    return {ForwardKL: "forward KL", ReverseKL: "reverse KL"}.get(kind, "mixture")


def _shown(view: object) -> str:
    inside = list(_inside(view))
    if isinstance(view, WrittenView):
        return "written"
    if any(isinstance(piece, OtherProblem) for piece in inside):
        return "other problem"
    if any(isinstance(piece, PEERS) for piece in inside):
        return "peer"
    return {"no_privilege": "nothing", instruction.__name__: "instruction", "concise": "instruction"}.get(name_of(view), "solution")


def _inside(piece: object) -> Iterator[object]:
    yield piece
    if isinstance(piece, partial):
        yield from _inside(piece.func)
    elif isinstance(piece, dict):
        for part in piece.values():
            yield from _inside(part)
    elif isinstance(piece, tuple | list):
        for part in piece:
            yield from _inside(part)
    elif is_dataclass(piece) and not isinstance(piece, type):
        for field in fields(piece):
            yield from _inside(getattr(piece, field.name))


def marginal_effects(accuracy: pd.DataFrame, recipes: dict[str, Recipe]) -> pd.DataFrame:
    """Return what each piece is worth: the coefficients of a least-squares regression of accuracy on the pieces of the methods.

    `accuracy` has a row for each method (`arm`) and seed, with its `accuracy`; `recipes` are the methods' own, by arm. Choices count
    from that in `CHOICES`, which stands in the column `against`. The intervals take the seeds of a method as one cluster. Returned
    are piece, value, against, mean, low, high, n (methods that have it), unit. Pieces that come with each other cannot be told apart.
    """
    rows = accuracy.assign(**pd.DataFrame([pieces_of(recipes[arm]) for arm in accuracy["arm"]], index=accuracy.index))
    flags = [name for name in pieces_of(next(iter(recipes.values()))) if name not in CHOICES]
    rows = rows.assign(**{name: rows[name].astype(int) for name in flags})
    formula = "accuracy ~ " + " + ".join([f"C({name}, Treatment('{plain}'))" for name, plain in CHOICES.items()] + flags)
    groups = rows["arm"].astype("category").cat.codes
    fit = smf.ols(formula, rows).fit(cov_type="cluster", cov_kwds={"groups": groups}, use_t=True)
    bounds, found = fit.conf_int(), []
    methods = rows.drop_duplicates("arm")
    for term in fit.params.index.drop("Intercept"):
        name = next(name for name in (*CHOICES, *flags) if term == name or term.startswith(f"C({name},"))
        value = term.rpartition("[T.")[2].rstrip("]") if name in CHOICES else "yes"
        count = int((methods[name] == (value if name in CHOICES else 1)).sum())
        low, high = bounds.loc[term]
        row = {"piece": name.replace("_", " "), "value": value, "against": CHOICES.get(name, "")}
        found.append(row | {"mean": fit.params[term], "low": low, "high": high, "n": count, "unit": "methods"})
    return pd.DataFrame(found)


def collapses(results: pd.DataFrame, split: str = "test", share: float = 0.5, watched: str | None = None) -> pd.DataFrame:
    """Return the cells that failed or whose last accuracy is below `share` of the initial policy's, with what the metrics say.

    One row per arm and seed: `step`, of the first evaluation below, the last `accuracy`, the `error` of a cell that failed, and for
    each metric of a `trace` column its mean over the first five and the last five steps. `results` is a study's table with the rows
    of the initial policy (step 0).

    Args:
        results: the table.
        split: where the last accuracy counts.
        share: how much of the initial policy's accuracy is too little.
        watched: the split whose evaluations say when it happened; `split` itself if left out.

    Raises:
        ValueError: when the initial policy has no row on a split.
    """
    start, floors = results[results["step"] == 0], {}
    for name in (split, watched or split):
        if not (start["split"] == name).any():
            raise ValueError(f"collapses: the initial policy, at step 0, has no row on the split {name!r}")
        floors[name] = share * float(start.loc[start["split"] == name, "accuracy"].mean())
    traces = [name for name in results if name.startswith("trace_")]
    found = []
    trained = (results["step"] > 0) | (results["error"] != "")  # a cell may fail before its first evaluation
    for (arm, seed), cell in results[trained].groupby(["arm", "seed"], sort=False):
        own = {name: cell[(cell["error"] == "") & (cell["split"] == name)].sort_values("step") for name in floors}
        error, last = "; ".join(cell.loc[cell["error"] != "", "error"]), own[split]["accuracy"].tail(1)
        if not error and len(last) and last.item() >= floors[split]:
            continue
        seen = own[watched or split]
        below = seen.loc[seen["accuracy"] < floors[watched or split], "step"]
        row = {"arm": arm, "seed": seed, "step": int(below.min()) if len(below) else int(cell["step"].max())}
        row |= {"accuracy": last.item() if len(last) else float("nan"), "error": error}
        for name in traces:
            values = next((list(kept) for kept in cell[name] if len(kept)), [])
            short = name.removeprefix("trace_").replace("_", " ")
            row |= {f"{short}, first": _mean(values[:5]), f"{short}, last": _mean(values[-5:])}
        found.append(row)
    return pd.DataFrame(found)


def _mean(values: list[float]) -> float:
    known = [value for value in values if value == value]
    return sum(known) / len(known) if known else float("nan")
