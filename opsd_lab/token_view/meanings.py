"""By which columns tokens can be coloured, and what they say."""

from collections.abc import Iterable
from types import MappingProxyType

import numpy as np

from opsd_lab.token_view.visible import visible_text
from opsd_lab.tokens.table import TokenTable

Meaning = tuple[str, str, str, str]
"""A column's name, its unit, and what the two ends of the scale mean."""

MEANINGS = MappingProxyType(
    {
        "gap": (
            "teacher − student log-probability",
            " nats",
            "orange: the teacher finds the student’s token less likely",
            "blue: the teacher finds it more likely",
        ),
        "divergence": ("divergence of teacher and student", " nats", "below zero", "blue: the two disagree more"),
        "clipped": ("divergence that the clip took off", " nats", "below zero", "blue: more was taken off"),
        "loss": ("the token’s term of the loss", "", "orange: negative", "blue: larger"),
        "weight": ("the token’s weight in the loss", "", "orange: negative", "blue: counts more"),
        "student_logprob": ("student log-probability", " nats", "orange: less likely", "blue: above zero"),
        "teacher_logprob": ("teacher log-probability", " nats", "orange: less likely", "blue: above zero"),
        "student_entropy": ("student entropy", " nats", "below zero", "blue: the student is less certain"),
        "teacher_entropy": ("teacher entropy", " nats", "below zero", "blue: the teacher is less certain"),
    }
)
EXTRA: MappingProxyType[str, Meaning] = MappingProxyType(
    {
        "push": (
            "what a step would do to the token’s own logit",
            "",
            "orange: it makes the token less likely",
            "blue: it makes it more likely",
        ),
    }
)
"""The same for columns that only some tables have."""


def meanings(tables: Iterable[TokenTable]) -> dict[str, Meaning]:
    """Return what each column says by which the tables' tokens can be coloured: those of every table, and any of numbers in all."""
    frames = [table.frame for table in tables]
    shared = set.intersection(*({name for name in frame if frame[name].dtype == np.float64} for frame in frames))
    others = sorted(name for name in shared if name not in MEANINGS)
    return {**MEANINGS, **{name: EXTRA.get(name, _plain(name)) for name in others}}


def _plain(name: str) -> Meaning:
    return visible_text(name.replace("_", " ")), "", "orange: negative", "blue: larger"
