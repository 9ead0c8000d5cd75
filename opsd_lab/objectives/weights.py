"""Which tokens count, and how much: functions of a rollout's columns, or of the whole step's."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from opsd_lab.basics.options import name_of

TokenWeights = Callable[[Mapping[str, Tensor]], Tensor]
"""From columns, each [N], to the tokens' weights [N]. Columns are those of the TokenTable that are numbers, `rollout` and `position`
among them, and `ids`, `length`, `advantage`, `outcome`, `pass_rate`, `sampled_logprob`, `source`, `seen` with a view's name behind
(whether the token has it), and the Trainer's marks and signals. A function gets whole rollouts, but not all of a step's at once;
`of_the_step` marks one that needs them."""


def of_the_step(weights: TokenWeights) -> TokenWeights:
    """Mark weights that are made of all tokens of a step, such as a quantile; they take one more pass without gradient."""
    weights.needs_step = True
    return weights


def needs_step(weights: TokenWeights | None) -> bool:
    """Return whether weights need all tokens of a step at once."""
    return bool(getattr(weights, "needs_step", False))


def not_divided_out(weights: TokenWeights) -> TokenWeights:
    """Mark weights that make the step smaller too: the losses' sum is divided by what the tokens weigh without them."""
    weights.divided_out = False
    return weights


def divided_out(weights: TokenWeights | None) -> bool:
    """Return whether the losses' sum is divided by what these weights sum to."""
    return weights is not None and getattr(weights, "divided_out", True)


def weigh(weights: TokenWeights, columns: Mapping[str, Tensor]) -> Tensor:
    """Return the weights [N] of the tokens, float32.

    Raises:
        TypeError: for anything but one number for each token; it names the function.
        ValueError: for a weight that is negative or no number; it names the function and the token.
    """
    name, found, count = f"the token weights {name_of(weights)}", weights(columns), len(columns["loss"])
    if not isinstance(found, Tensor) or found.shape != (count,):
        kind = f"a tensor {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise TypeError(f"{name} returned {kind}, not one number for each of {count} tokens")
    found = found.detach().to(torch.float32)
    if bool((bad := ~(found >= 0) | found.isinf()).any()):
        i = int(bad.nonzero()[0, 0])
        where = f"token {int(columns['position'][i])} of rollout {int(columns['rollout'][i])}"
        raise ValueError(f"{name} returned {float(found[i])} for {where}; a weight is a number of at least 0")
    return found
