"""How well do a teacher's numbers find the step that a person marked as the first wrong one?

Each solution is cut into segments without looking at the annotation. Those that the marked span overlaps are the wrong step,
those before it are right, those after it are unverifiable, as nobody judged them; all segments of a solution without a mistake are
right.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from opsd_lab.evaluation.estimate import ESTIMATE
from opsd_lab.evaluation.jackknife import Jackknife, few_problems
from opsd_lab.steps import Segment, Step, segments, token_steps
from opsd_lab.tokens.table import TokenTable

Span = tuple[int, int]

# Which way a suspicious step's mean lies: -1 where a wrong step is expected to have the lower one.
SIGNALS: dict[str, int] = {"gap": -1, "divergence": 1, "student_entropy": 1, "teacher_logprob": -1, "student_logprob": -1}
BASELINE = "student_logprob"


@dataclass(frozen=True)
class _Solution:
    """Rows of the step table: all of one solution's, those of its first wrong step, and those before it."""

    problem_id: str
    steps: np.ndarray
    wrong: np.ndarray
    earlier: np.ndarray


def score_steps(
    table: TokenTable,
    wrong_steps: Sequence[Span | None],
    cut: Callable[[str], Sequence[Segment]] = lambda text: segments(text, "sentences"),
) -> pd.DataFrame:
    """Return one row per segment of each rollout: rollout, problem_id, step, tokens, label, and the token means of `SIGNALS`.

    `wrong_steps[i]` is the character span of the first wrong step in the text of the table's i-th rollout, None where there is
    none. `label` is "correct", "incorrect" or "unverifiable" (nobody judged it). Segments without a token of their own are left out.

    Raises:
        ValueError: when there is not one annotation per rollout, or a wrong step lies in no segment.
    """
    rollouts = list(table.frame.sort_values(["rollout", "position"]).groupby("rollout", sort=True))
    if len(rollouts) != len(wrong_steps):
        raise ValueError(f"score_steps: {len(wrong_steps)} annotations for {len(rollouts)} rollouts")
    parts = []
    for (number, rows), wrong in zip(rollouts, wrong_steps, strict=True):
        tokens = rows["token"].tolist()
        text = "".join(tokens)
        found = cut(text)
        labels = _labels(found, wrong)
        if wrong is not None and "incorrect" not in labels:
            raise ValueError(f"score_steps: the wrong step {wrong} of rollout {number} lies in none of its segments")
        steps = [Step(s.start, s.end, text[s.start : s.end], "unverifiable") for s in found]
        of_tokens, _ = token_steps(tokens, steps)
        means = rows.assign(step=of_tokens)[lambda frame: frame["step"] >= 0].groupby("step")
        part = means[list(SIGNALS)].mean().assign(tokens=means.size())
        part["label"] = [labels[step] for step in part.index]
        parts.append(part.reset_index().assign(rollout=number, problem_id=rows["problem_id"].iloc[0]))
    return pd.concat(parts, ignore_index=True)[["rollout", "problem_id", "step", "tokens", "label", *SIGNALS]]


def _labels(found: Sequence[Segment], wrong: Span | None) -> list[str]:
    if wrong is None:
        return ["correct"] * len(found)
    return ["correct" if s.end <= wrong[0] else "unverifiable" if s.start >= wrong[1] else "incorrect" for s in found]


def first_wrong_step(steps: pd.DataFrame, signals: Mapping[str, int] = SIGNALS, baseline: str = BASELINE) -> pd.DataFrame:
    """Return how well each signal finds the first wrong step: one row per measure and signal.

    "auroc": the chance that a wrong step looks more suspicious than a right one of any solution. "auroc within": than an
    earlier step of its own solution, averaged over the solutions with a mistake after their first step. "top-1": how often the
    most suspicious step of a solution with a mistake is the wrong one; ties share the hit. `chance` is what a blind guess
    attains. `mean`, `low`, `high` are the estimate and its 95 % interval over the `n` problems (`opsd_lab.evaluation.jackknife`),
    `difference`, `difference_low`, `difference_high` the same for the signal minus the `baseline`. `signals` are columns of `steps`,
    the rows of `score_steps`, with the side on which a wrong step is expected: 1 for higher, -1 for lower.

    Raises:
        ValueError: when there is no wrong step, or no right one; for a baseline that is neither of `signals` nor of `SIGNALS`.
    """
    if baseline not in {**SIGNALS, **signals}:
        raise ValueError(f"first_wrong_step: the baseline {baseline!r} is none of {', '.join({**SIGNALS, **signals})}")
    if missing := {"correct", "incorrect"} - set(steps["label"]):
        raise ValueError(f"first_wrong_step: there are no steps labelled {' or '.join(sorted(missing))}")
    problems, names = pd.factorize(steps["problem_id"])
    number = {name: i for i, name in enumerate(names)}
    weights = np.vstack([np.ones(len(names)), 1 - np.eye(len(names))])  # all problems, then all but one
    labels = steps["label"].to_numpy()
    mistaken = _solutions(steps)
    later = [solution for solution in mistaken if len(solution.earlier)]
    judged = steps[steps["label"] != "unverifiable"].drop_duplicates("rollout")
    about = {
        "auroc": (judged["problem_id"].tolist(), 0.5),
        "auroc within": ([solution.problem_id for solution in later], 0.5),
        "top-1": ([s.problem_id for s in mistaken], float(np.mean([len(s.wrong) / len(s.steps) for s in mistaken]))),
    }
    compared = list(dict.fromkeys([baseline, *signals]))
    rows = []
    for measure, (problem_ids, chance) in about.items():
        values = []
        for name in compared:
            suspicion = steps[name].to_numpy(float) * {**SIGNALS, **signals}[name]
            if measure == "auroc":
                values.append(_pooled(suspicion, labels, problems, weights))
            else:
                chosen, value = (later, _above_earlier) if measure == "auroc within" else (mistaken, _localised)
                owners = [number[solution.problem_id] for solution in chosen]
                values.append(_weighted_mean([value(solution, suspicion) for solution in chosen], owners, weights))
        if measure == "auroc":
            sizes = [np.bincount(problems[labels == label], minlength=len(names)) for label in ("incorrect", "correct")]
        else:
            sizes = [np.bincount(owners, minlength=len(names))]
        found, note = _compared(np.stack(values, axis=1), sizes)
        for name in signals:
            numbers = [float(column[compared.index(name)]) for column in found]
            rows.append(
                {"measure": measure, "signal": name}
                | dict(zip(ESTIMATE, (*numbers[:3], len(set(problem_ids)), "problems"), strict=True))
                | {"n_solutions": len(problem_ids), "chance": chance, "baseline": baseline}
                | dict(zip(("difference", "difference_low", "difference_high"), numbers[3:], strict=True))
                | {"note": note}
            )
    return pd.DataFrame(rows)


def _compared(values: np.ndarray, sizes: Sequence[np.ndarray]) -> tuple[list[np.ndarray], str]:
    """Return the numbers of G signals, the baseline first, from their values [1 + P, G] with all problems and without each.

    They are the means, their bounds, the differences from the baseline, and their bounds, each [G]; then what is to be said of them.
    `sizes` hold what each problem brings, [P] for each kind of step; the kind that rests on the fewest problems counts.
    """
    problems = min(int((size > 0).sum()) for size in sizes)
    effective = min(float(size.sum() ** 2 / max((size**2).sum(), 1)) for size in sizes)
    each = np.ones(values.shape[1])
    found = Jackknife(values[0], np.nan_to_num(values[1:] - values[0]), *(count * each for count in (problems, problems, effective)))
    bounds = np.stack(found.share_bounds(np.inf * each))
    other, base = np.arange(len(each)), np.zeros(len(each), dtype=np.int64)
    low, high = found.difference_bounds(base, other)
    return [found.mean, *bounds, found.mean - found.mean[0], low, high], few_problems(problems, effective)


def _pooled(suspicion: np.ndarray, labels: np.ndarray, problems: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the area under the ROC curve for each row of problem weights [R, P]."""
    wrong, right = labels == "incorrect", labels == "correct"
    order = np.argsort(suspicion[right], kind="stable")
    values, owners = suspicion[right][order], problems[right][order]
    below = np.zeros((len(values) + 1, weights.shape[1]))
    np.add.at(below, (np.arange(1, len(values) + 1), owners), 1)
    below = below.cumsum(0)  # [k, P]: how many of the k least suspicious right steps each problem owns
    low, high = (np.searchsorted(values, suspicion[wrong], side=side) for side in ("left", "right"))
    beaten = np.zeros((weights.shape[1], weights.shape[1]))
    np.add.at(beaten, problems[wrong], (below[low] + below[high]) / 2)
    counts = [np.bincount(problems[mask], minlength=weights.shape[1]) for mask in (wrong, right)]
    with np.errstate(invalid="ignore"):
        return ((weights @ beaten) * weights).sum(1) / ((weights @ counts[0]) * (weights @ counts[1]))


def _solutions(steps: pd.DataFrame) -> list[_Solution]:
    """Return where the steps of each solution with a mistake stand."""
    labels, problems, found = steps["label"].to_numpy(), steps["problem_id"].to_numpy(), []
    for rows in steps.groupby("rollout").indices.values():
        if (labels[rows] == "incorrect").any():
            wrong, earlier = (rows[labels[rows] == label] for label in ("incorrect", "correct"))
            found.append(_Solution(problems[rows[0]], rows, wrong, earlier))
    return found


def _localised(solution: _Solution, suspicion: np.ndarray) -> float:
    best = suspicion[solution.steps] == suspicion[solution.steps].max()
    return float(best[np.isin(solution.steps, solution.wrong)].sum() / best.sum())


def _above_earlier(solution: _Solution, suspicion: np.ndarray) -> float:
    wrong, earlier = suspicion[solution.wrong][:, None], suspicion[solution.earlier]
    return float(((wrong > earlier) + 0.5 * (wrong == earlier)).mean())


def _weighted_mean(values: list[float], problems: list[int], weights: np.ndarray) -> np.ndarray:
    totals = np.bincount(problems, values, minlength=weights.shape[1])
    counts = np.bincount(problems, minlength=weights.shape[1])
    with np.errstate(invalid="ignore"):
        return (weights @ totals) / (weights @ counts)
