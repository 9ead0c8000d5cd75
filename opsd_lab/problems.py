"""Problems with verified solutions, and where they come from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Problem:
    """A question, its verified answer, and the privileged information that a teacher may see.

    `solution` is a worked reference solution ("" if there is none), `hints` are ordered from weak to strong,
    `meta` carries whatever a data set adds. All texts are shown to models as they are.

    Raises:
        ValueError: when the id, the question or the answer is blank, or a field has the wrong type.
    """

    id: str
    question: str
    answer: str
    solution: str = ""
    hints: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("id", "question", "answer", "solution"):
            value = getattr(self, name)
            if not isinstance(value, str):
                raise ValueError(f"Problem {self.id!r}: {name} is {type(value).__name__}, not text")
            if name != "solution" and not value.strip():
                raise ValueError(f"Problem {self.id!r}: {name} is blank")
        object.__setattr__(self, "hints", tuple(self.hints))
