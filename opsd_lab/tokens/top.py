"""The most probable tokens of both sides at each position, beside what the other side gives the very same tokens."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

SIDES = ("student", "teacher")


def _list_columns() -> dict[str, np.dtype]:
    kinds = {"ids": np.int32, "logprobs": np.float32, "elsewhere": np.float32}
    return {f"{side}_top_{kind}": np.dtype(dtype) for side in SIDES for kind, dtype in kinds.items()}


ARRAYS = _list_columns()
TEXTS = tuple(f"{side}_top_tokens" for side in SIDES)


@dataclass(frozen=True)
class TopTokens:
    """Both sides' k most probable tokens, most probable first, for N tokens of a TokenTable.

    `student_top_ids` [N, k], `student_top_logprobs` [N, k] (nats), and `student_top_elsewhere` [N, k]: the teacher's
    log-probabilities of those same tokens. The teacher's three arrays likewise, `teacher_top_elsewhere` being the
    student's log-probabilities. `texts` says what the ids stand for.

    Raises:
        ValueError: when the shapes differ, a number is missing, or an id has no text, or one that is no whole text.
    """

    student_top_ids: np.ndarray
    student_top_logprobs: np.ndarray
    student_top_elsewhere: np.ndarray
    teacher_top_ids: np.ndarray
    teacher_top_logprobs: np.ndarray
    teacher_top_elsewhere: np.ndarray
    texts: Mapping[int, str] = field(repr=False)

    def __post_init__(self) -> None:
        for name, dtype in ARRAYS.items():
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=dtype))
        shapes = {getattr(self, name).shape for name in ARRAYS}
        if len(shapes) > 1 or len(self.student_top_ids.shape) != 2:
            raise ValueError(f"TopTokens: the arrays are not all of one shape [N, k]: {sorted(shapes)}")
        for name, dtype in ARRAYS.items():
            if dtype.kind == "f" and np.isnan(getattr(self, name)).any():
                raise ValueError(f"TopTokens: {name} has no value in row {int(np.isnan(getattr(self, name)).any(axis=1).argmax())}")
        for side in SIDES:
            if unnamed := set(np.unique(getattr(self, f"{side}_top_ids")).tolist()) - self.texts.keys():
                raise ValueError(f"TopTokens: the token id {min(unnamed)} has no text")
        for token, text in self.texts.items():
            if any("\ud800" <= character <= "\udfff" for character in text):
                raise ValueError(f"TopTokens: the text of token id {token}, {text!r}, holds half of a surrogate pair")

    def __len__(self) -> int:
        return len(self.student_top_ids)

    @property
    def k(self) -> int:
        """How many tokens each side lists."""
        return self.student_top_ids.shape[1]

    def rows(self, chosen: np.ndarray) -> "TopTokens":
        """Return the lists of some rows, by number or by a mask [N]."""
        return TopTokens(**{name: getattr(self, name)[chosen] for name in ARRAYS}, texts=self.texts)

    def columns(self) -> dict[str, list]:
        """Return columns of lists, one list per row: the arrays, and the texts of each side's tokens."""
        lists = {name: getattr(self, name).tolist() for name in ARRAYS}
        names = {f"{side}_top_tokens": [[self.texts[i] for i in ids] for ids in lists[f"{side}_top_ids"]] for side in SIDES}
        return lists | names

    @staticmethod
    def from_columns(frame: pd.DataFrame) -> "TopTokens":
        """Return what `columns` was called on.

        Raises:
            ValueError: when a column is missing, or the lists have different lengths.
        """
        if missing := [name for name in (*ARRAYS, *TEXTS) if name not in frame]:
            raise ValueError(f"TopTokens: the columns {missing} are missing; the lists of both sides come together or not at all")
        texts: dict[int, str] = {}
        for side in SIDES:
            for ids, tokens in zip(frame[f"{side}_top_ids"], frame[f"{side}_top_tokens"], strict=True):
                texts.update(zip(ids, tokens, strict=True))
        try:
            arrays = {name: np.array(frame[name].tolist(), dtype=dtype).reshape(len(frame), -1) for name, dtype in ARRAYS.items()}
        except ValueError as error:
            raise ValueError(f"TopTokens: lists of different lengths in one column ({error})") from None
        return TopTokens(**arrays, texts={int(i): text for i, text in texts.items()})

    @staticmethod
    def concatenate(parts: list["TopTokens"]) -> "TopTokens":
        """Join the rows of several.

        Raises:
            ValueError: when they list different numbers of tokens.
        """
        if len({part.k for part in parts}) > 1:
            raise ValueError(f"TopTokens: tables with different k cannot be joined: {sorted({part.k for part in parts})}")
        texts = {i: text for part in parts for i, text in part.texts.items()}
        return TopTokens(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS}, texts=texts)
