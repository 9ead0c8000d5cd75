"""What of a run stays on the disk, and when it ends."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from opsd_lab.basics.options import flag, whole


@dataclass(frozen=True)
class Keep:
    """What of a run stays on the disk.

    A checkpoint is written every `checkpoint_every` steps and after the last; the `checkpoints` last ones stay, and the one of the
    best step by the metric `best`, which gets a checkpoint of its own. Rollouts and token tables are kept every `rollouts_every` and
    `tokens_every` steps, 0 for none of them.

    Raises:
        TypeError, ValueError: for a number that is none, or out of range; it names the field.
    """

    checkpoint_every: int = 10
    checkpoints: int = 2
    best: str | None = None
    smaller_is_better: bool = False
    rollouts_every: int = 1
    tokens_every: int = 1

    def __post_init__(self) -> None:
        for name, least in (("checkpoint_every", 1), ("checkpoints", 1), ("rollouts_every", 0), ("tokens_every", 0)):
            whole(f"Keep.{name}", getattr(self, name), least=least)
        flag("Keep.smaller_is_better", self.smaller_is_better)


@dataclass(frozen=True)
class Stop:
    """Ends a run once a metric has not become better for `patience` of its values.

    Raises:
        TypeError, ValueError: for a patience that is no number of values.
    """

    metric: str = "accuracy"
    patience: int = 3
    smaller_is_better: bool = False

    def __post_init__(self) -> None:
        whole("Stop.patience", self.patience, least=1)
        flag("Stop.smaller_is_better", self.smaller_is_better)


class Best:
    """The best value of a metric so far: its step, and how many values came after it; without a metric there is none."""

    def __init__(self, metric: str | None, smaller_is_better: bool) -> None:
        self._metric, self._sign = metric, -1 if smaller_is_better else 1
        self._value, self.step, self.age = -math.inf, 0, 0

    def see(self, row: Mapping[str, Any]) -> bool:
        """Return whether a step is better than all before it; one without the metric is not."""
        value = self._sign * row.get(self._metric, math.nan)
        if math.isnan(value):
            return False
        if value > self._value:
            self._value, self.step, self.age = value, row["step"], 0
            return True
        self.age += 1
        return False
