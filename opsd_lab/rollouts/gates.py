"""Which rollouts count: functions of their rewards, and of whose they are."""

import inspect
from collections.abc import Callable, Sequence

import numpy as np

from opsd_lab.problems.problem import Problem
from opsd_lab.rollouts.base import Rollout

Rewards = Callable[[Sequence[Rollout], Sequence[Problem]], list[float]]
"""From rollouts and their problems to a reward each."""
Gate = Callable[..., np.ndarray]
"""From rewards [R] and the names of their problems [R] to what each rollout weighs [R]: Booleans, or floats of at least 0. A gate
that takes three arguments is given the rollouts as well."""


def takes_rollouts(gate: Gate) -> bool:
    """Return whether a gate takes the rollouts beside rewards and problems."""
    asked = inspect.signature(gate).parameters.values()
    return sum(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in asked) == 3


def correct_only(rewards: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Train on rollouts with a positive reward (arXiv 2605.06188)."""
    return rewards > 0


def incorrect_only(rewards: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Train on rollouts without a positive reward (arXiv 2605.06188)."""
    return rewards <= 0


def mixed_groups(rewards: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Train on the rollouts of problems whose rollouts' rewards differ (arXiv 2503.14476, dynamic sampling without refilling)."""
    lowest = {group: rewards[groups == group].min() for group in np.unique(groups)}
    highest = {group: rewards[groups == group].max() for group in np.unique(groups)}
    return np.array([lowest[group] < highest[group] for group in groups], dtype=bool)


mixed_groups.needs_groups = True  # one rollout alone never differs
