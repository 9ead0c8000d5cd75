"""What an objective is given: the tokens that were written, with what is known of each, and the teachers by view."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor

from opsd_lab.divergences import Side

Columns = dict[str, Tensor]


class ViewError(ValueError):
    """An objective asked for another view than it was given."""


class MarkError(ValueError):
    """An objective asked for a mark or a signal that it was not given."""


class Teachers(dict[str, Side]):
    """The teachers' sides of a few tokens, by the name of the view that each was shown.

    `seen` says by the name of a view which tokens [n] have it, as in `Tokens`; a view that it leaves out is one that all have.
    """

    def __init__(
        self, sides: Mapping[str, Side] | Iterable[tuple[str, Side]] = (), /, seen: Mapping[str, Tensor] | None = None, **named: Side
    ) -> None:
        super().__init__(sides, **named)
        self.seen = dict(seen or {})

    def mean(self, read: Callable[[Side], Tensor], names: Iterable[str]) -> Tensor:
        """Return the mean of a number [n, ...] of a side over those of some views that each token has; 0 for a token without any.

        `read` takes a side and returns the number, as in `teachers.mean(lambda side: side.of(tokens.ids), ("peer 1", "peer 2"))`.
        """
        total = count = 0
        for name in names:
            value = read(self[name])
            seen = self.seen.get(name, torch.ones(len(value), dtype=torch.bool, device=value.device))
            seen = seen.view(-1, *[1] * (value.dim() - 1))
            total, count = total + value.masked_fill(~seen, 0.0), count + seen.to(value)
        return total / count.clamp(min=1)

    @property
    def only(self) -> Side:
        """The one there is.

        Raises:
            ViewError: when there is another number of them.
        """
        if len(self) != 1:
            raise ViewError(
                f"there are {len(self)} views ({', '.join(self) or 'none'}); name the one, or give a target that joins them"
            )
        return next(iter(self.values()))

    def __missing__(self, name: str) -> Side:
        raise ViewError(f"there is no view {name!r}; there are {', '.join(self) or 'none'}")

    def rows(self, chosen: Tensor) -> "Teachers":
        """Return the sides at some of the tokens."""
        seen = {name: values[chosen] for name, values in self.seen.items()}
        return Teachers({name: side.rows(chosen) for name, side in self.items()}, seen)

    def detached(self) -> "Teachers":
        """Return the sides without gradients."""
        return Teachers({name: side.detached() for name, side in self.items()}, self.seen)


@dataclass(frozen=True)
class Tokens:
    """The tokens [n] that were written, row by row, and what may be known of each; None where it is not.

    `rollout` numbers the rollouts of a batch, `position` counts a rollout's tokens from 0, `length` is how many of them are scored.
    `advantage`, `outcome` (the reward) and `pass_rate` (the share of its problem's rollouts with a positive reward) are the
    rollout's. `source` numbers who wrote it, from 0, where several wrote. `sampled_logprob` is the sampler's log-probability of the
    token. `seen` says, by the name of a view, which tokens have it. `marked` holds the numbers of the Trainer's marks and signals, by
    name; `tokens["name"]` is one of them. What an objective records becomes columns of the TokenTable.
    """

    ids: Tensor
    rollout: Tensor | None = None
    position: Tensor | None = None
    length: Tensor | None = None
    advantage: Tensor | None = None
    outcome: Tensor | None = None
    pass_rate: Tensor | None = None
    sampled_logprob: Tensor | None = None
    source: Tensor | None = None
    seen: dict[str, Tensor] = field(default_factory=dict)
    marked: Columns = field(default_factory=dict)
    recorded: Columns = field(default_factory=dict, compare=False, repr=False)

    def __getitem__(self, name: str) -> Tensor:
        """Return what a mark or a signal said of the tokens [n].

        Raises:
            MarkError: when there is none of the name; it names those that there are.
        """
        if name not in self.marked:
            raise MarkError(
                f"the tokens have no number {name!r}, but {', '.join(self.marked) or 'none'}; give the Trainer a mark or a signal of "
                "that name"
            )
        return self.marked[name]

    def record(self, **columns: Tensor) -> None:
        """Keep numbers [n] of these tokens as columns; the first of a name stays."""
        for name, values in columns.items():
            self.recorded.setdefault(name, values.detach())

    def rows(self, chosen: slice | Tensor) -> "Tokens":
        """Return some of the tokens, with nothing recorded yet."""
        known = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("seen", "marked", "recorded")}
        part = {name: None if values is None else values[chosen] for name, values in known.items()}
        seen, marked = ({name: values[chosen] for name, values in found.items()} for found in (self.seen, self.marked))
        return replace(self, **part, seen=seen, marked=marked, recorded={})

    def of_views(self, names: Iterable[str]) -> "Tokens":
        """Return the tokens with some of the views, and nothing recorded yet."""
        return replace(self, seen={name: self.seen[name] for name in names if name in self.seen}, recorded={})

    def need(self, whose: str, names: Iterable[str]) -> None:
        """Make sure that something is known of the tokens.

        Raises:
            ValueError: for the first that is not; it says who needs it.
        """
        for name in names:
            if getattr(self, name) is None:
                raise ValueError(f"{whose} needs each token's {name.replace('_', ' ')}")

    def have(self, views: Iterable[str]) -> Tensor:
        """Return which tokens [n] have all of some views."""
        found = torch.ones_like(self.ids, dtype=torch.bool)
        for name in views:
            if name in self.seen:
                found = found & self.seen[name]
        return found
