"""Numbers that follow from what happened so far in training: means of a metric, a switch with hysteresis, a bandit."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import digamma

from opsd_lab.basics.schedules import Controller


@dataclass(frozen=True)
class RunningMean(Controller):
    """The mean of a step's metric over all steps so far; `first` before there is one. Steps without the metric are left out."""

    metric: str
    first: float = 0.0

    def start(self) -> dict[str, float]:
        """Return the state before the first step."""
        return {"count": 0, "sum": 0.0}

    def see(self, state: dict[str, float], record: Any) -> dict[str, float]:
        """Return the state after a step."""
        value = record.metrics[self.metric]
        if math.isnan(value):
            return state
        return {"count": state["count"] + 1, "sum": state["sum"] + value}

    def value(self, state: dict[str, float]) -> float:
        """Return the mean."""
        return state["sum"] / state["count"] if state["count"] else self.first


@dataclass(frozen=True)
class Hysteresis(Controller):
    """`on` or `off`, by a metric: off when it falls below a share of its first values' mean, on again when it is back at that mean.

    The mean is of the first `warm_steps` steps that have the metric, during which the number is `off`.
    """

    metric: str
    on: float
    share: float
    warm_steps: int
    off: float = 0.0

    def start(self) -> dict[str, Any]:
        """Return the state before the first step."""
        return {"warm": [], "is_on": False}

    def see(self, state: dict[str, Any], record: Any) -> dict[str, Any]:
        """Return the state after a step."""
        value = record.metrics[self.metric]
        if math.isnan(value):
            return state
        warm = state["warm"]
        if len(warm) < self.warm_steps:
            warm = [*warm, value]
            return {"warm": warm, "is_on": len(warm) == self.warm_steps}
        mean = sum(warm) / len(warm)
        is_on = value >= (self.share * mean if state["is_on"] else mean)
        return {"warm": warm, "is_on": is_on}

    def value(self, state: dict[str, Any]) -> float:
        """Return the number."""
        return self.on if state["is_on"] else self.off


@dataclass(frozen=True)
class BetaBandit(Controller):
    """A share in [least, 1], drawn from a Beta distribution that learns which shares are followed by falling loss.

    A share is held for `hold` steps. Its reward is the sum of discount**i times by how much the loss fell from one of its steps to
    the next, where it fell; the logarithms of both parameters of the distribution then follow the reward's gradient (REINFORCE),
    `rate` of it, against the mean reward so far. The loss is that of the records. `seed` fixes the draws.
    """

    hold: int = 5
    rate: float = 0.1
    discount: float = 0.9
    least: float = 0.05
    seed: int = 0

    def start(self) -> dict[str, Any]:
        """Return the state before the first step."""
        state = {"log_a": 0.0, "log_b": 0.0, "draws": 0, "age": 0, "reward": 0.0, "loss": None, "mean": 0.0}
        return state | {"share": self._draw(state)}

    def see(self, state: dict[str, Any], record: Any) -> dict[str, Any]:
        """Return the state after a step."""
        if math.isnan(record.loss):
            return state
        fell = 0.0 if state["loss"] is None else max(0.0, state["loss"] - record.loss)
        state = state | {"loss": record.loss, "reward": state["reward"] + self.discount ** state["age"] * fell}
        state["age"] += 1
        if state["age"] < self.hold:
            return state
        a, b, x = math.exp(state["log_a"]), math.exp(state["log_b"]), state["share"]
        better = state["reward"] - state["mean"]
        slopes = a * (digamma(a + b) - digamma(a) + math.log(x)), b * (digamma(a + b) - digamma(b) + math.log1p(-x))
        for name, slope in zip(("log_a", "log_b"), slopes, strict=True):
            state[name] = float(np.clip(state[name] + self.rate * better * slope, -3.0, 3.0))
        draws = state["draws"] + 1
        # The next loss is the first under another share, so it is compared with nothing.
        state |= {"draws": draws, "mean": state["mean"] + better / draws, "age": 0, "reward": 0.0, "loss": None}
        return state | {"share": self._draw(state)}

    def value(self, state: dict[str, Any]) -> float:
        """Return the share."""
        return max(self.least, state["share"])

    def _draw(self, state: dict[str, Any]) -> float:
        drawn = np.random.default_rng([self.seed, state["draws"]]).beta(math.exp(state["log_a"]), math.exp(state["log_b"]))
        return float(np.clip(drawn, 1e-3, 1 - 1e-3))
