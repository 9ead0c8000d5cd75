"""The one form of a number with its uncertainty."""

from dataclasses import asdict, dataclass

ESTIMATE = ("mean", "low", "high", "n", "unit")
"""The columns that every table of estimates has, in this order."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % bounds over `n` independent units, such as "problems" or "seeds".

    A bound is NaN where nothing can be said, and `note` says why, or where the bounds are rough.
    """

    mean: float
    low: float
    high: float
    n: int
    unit: str = "problems"
    note: str = ""

    def __str__(self) -> str:
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]"

    def as_dict(self) -> dict[str, float | str]:
        """Return the fields as a plain dictionary."""
        return asdict(self)


@dataclass(frozen=True)
class Difference(Estimate):
    """The second of two things minus the first, with a two-sided p-value."""

    p: float = float("nan")

    def __str__(self) -> str:
        return f"{self.mean:+.2f} [{self.low:+.2f}, {self.high:+.2f}], p = {self.p:.3g}"
