"""What goes wrong in a run, seen in its numbers, in plain words with a remedy."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from opsd_lab.contexts import no_privilege
from opsd_lab.policies.teachers import OtherTeacher
from opsd_lab.training.clipping import COSINE
from opsd_lab.training.trainer import Trainer

Row = dict[str, Any]
Rule = Callable[[Mapping[str, float], Row], str | None]
"""Gets the means of the first steps and a later step's row; returns what is wrong, \"\" for nothing, None where it cannot tell."""
FIRST = 5  # steps whose mean later ones are compared with
ROUNDING = 1e-6
FALLEN, GROWN = 0.2, 2.0


def all_truncated(first: Mapping[str, float], row: Row) -> str:
    """Every rollout was cut at the length limit."""
    if row.get("truncated") == 1.0:
        return "every rollout was cut at the length limit: raise sampling.max_new_tokens, or ask for shorter answers"
    return ""


def entropy_collapse(first: Mapping[str, float], row: Row) -> str:
    """The student's entropy fell to a small part of what it was at first."""
    before, now = first.get("student_entropy", math.nan), row.get("student_entropy", math.nan)
    if now < FALLEN * before:
        return (
            f"the student's entropy fell from {before:.2g} to {now:.2g} nats, so that its rollouts are nearly the same: lower the "
            "learning rate, stop earlier, or sample at a higher temperature"
        )
    return ""


def length_inflation(first: Mapping[str, float], row: Row) -> str:
    """Rollouts became much longer than they were at first."""
    before, now = first.get("completion_length", math.nan), row.get("completion_length", math.nan)
    if now > GROWN * before:
        return (
            f"rollouts have {now:.0f} tokens where they had {before:.0f}: lower the learning rate, let the initial policy teach, or "
            "drop truncated rollouts"
        )
    return ""


def rounding_gradient(first: Mapping[str, float], row: Row) -> str:
    """The gradient is no larger than rounding."""
    if 0 < row.get("grad_norm", math.nan) < ROUNDING:
        return (
            f"the gradient's norm is {row['grad_norm']:.0e}, which is rounding, and Adam makes whole steps of it: does the teacher "
            "see anything that the student does not?"
        )
    return ""


def teacher_no_better(first: Mapping[str, float], row: Row) -> str | None:
    """The teacher under its view is not more often right than the student."""
    if "teacher_accuracy_high" not in row:  # not measured at this step
        return None
    if row["teacher_accuracy_high"] < row.get("accuracy", -math.inf):
        return (
            f"the teacher is right in {row['teacher_accuracy']:.0%}, the student in {row['accuracy']:.0%}: the view does not help "
            "this model; look at what it shows, or take a more capable model"
        )
    return ""


def clip_against_teacher(first: Mapping[str, float], row: Row) -> str:
    """The point-wise clip turns the gradient away from the teacher."""
    if row.get(COSINE, 0.0) < 0:
        return (
            f"the clipped gradient points away from the teacher (cosine {row[COSINE]:.2f}): raise pointwise_clip, or clip whole "
            "tokens with token_clip"
        )
    return ""


RULES: tuple[Rule, ...] = (
    all_truncated,
    entropy_collapse,
    length_inflation,
    rounding_gradient,
    teacher_no_better,
    clip_against_teacher,
)


def nothing_to_teach(trainer: Trainer) -> str:
    """Return what is wrong where the teacher is the student's own model and no view shows it anything; "" where nothing is."""
    blind = all(view is no_privilege for view in trainer.contexts.views.values())
    if blind and trainer.objective.needs_teacher and not isinstance(trainer.teacher, OtherTeacher):
        return (
            "the teacher sees nothing that the student does not: unless that is meant as a control, name a view in the recipe, "
            "such as recipe.view.piece=reference_solution"
        )
    return ""


class Alarms:
    """Looks at each step of a run; a rule that warned is silent until what it warned of is over.

    `rules` are what is looked for.
    """

    def __init__(self, rules: Sequence[Rule] = RULES) -> None:
        self._rules = rules
        self._on: set[str] = set()
        self._early: dict[str, list[float]] = {}

    def look(self, row: Row) -> list[str]:
        """Return what is newly wrong at a step, whose numbers `row` has."""
        first = {name: sum(values) / FIRST for name, values in self._early.items() if len(values) == FIRST}
        found = []
        for rule in self._rules:
            told, name = rule(first, row), rule.__name__
            if told and name not in self._on:
                found.append(told)
            if told is not None:
                (self._on.add if told else self._on.discard)(name)
        for name in ("student_entropy", "completion_length"):
            known = self._early.setdefault(name, [])
            if len(known) < FIRST and math.isfinite(value := row.get(name, math.nan)):
                known.append(value)
        return found
