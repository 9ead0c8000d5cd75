"""The step that all of this package speaks about."""

from dataclasses import dataclass
from typing import Literal

StepLabel = Literal["correct", "incorrect", "unverifiable"]
StepKind = Literal["equation", "line", "sentence", "think", "answer"]


@dataclass(frozen=True)
class Step:
    """One reasoning step: `text` is the completion's characters from `start` up to, without, `end`.

    `source` says who gave the label ("arithmetic", "human", or "": nobody), `kind` what was cut out of the text.

    Raises:
        ValueError: when the span is empty or does not have the text's length.
    """

    start: int
    end: int
    text: str
    label: StepLabel
    source: str = ""
    kind: StepKind = "equation"

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end or self.end - self.start != len(self.text):
            raise ValueError(f"Step: [{self.start}, {self.end}) is not the span of a text of {len(self.text)} characters")
