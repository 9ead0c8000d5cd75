"""TokenTable: the one record of a scored rollout, which the loss, the diagnostics and the views share."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

COLUMNS: dict[str, str] = {
    "rollout": "int64",
    "problem_id": "string",
    "position": "int64",
    "token_id": "int64",
    "token": "string",
    "student_logprob": "float64",
    "teacher_logprob": "float64",
    "gap": "float64",
    "divergence": "float64",
    "clipped": "float64",
    "loss": "float64",
    "weight": "float64",
    "student_entropy": "float64",
    "teacher_entropy": "float64",
    "student_rank": "int64",
    "teacher_rank": "int64",
    "step": "int64",
    "label": "string",
}
LABELS = ("correct", "incorrect", "unverifiable", "")


@dataclass(frozen=True)
class TokenTable:
    """One row per completion token of one or several rollouts.

    `frame` holds the columns of `COLUMNS`, in that order:
    `rollout` numbers the rollouts from 0 and `position` the tokens inside each, from 0; `token` is the token's text;
    `gap` is teacher minus student log-probability of the token that the student wrote (nats); `divergence` is the
    per-token divergence after the point-wise clip and `clipped` what that clip took off; `loss` is the token's
    term of the objective and `weight` its weight there; entropies are in nats; a rank of 0 is the most probable token;
    `step` numbers the reasoning steps of the rollout (-1: in none) and `label` is one of `LABELS`.

    Raises:
        ValueError: for missing or unknown columns, missing values, or a gap that is not the difference it claims to be.
    """

    frame: pd.DataFrame

    def __post_init__(self) -> None:
        missing = [c for c in COLUMNS if c not in self.frame]
        unknown = [c for c in self.frame if c not in COLUMNS]
        if missing or unknown:
            raise ValueError(f"TokenTable: missing columns {missing}, unknown columns {unknown}")
        frame = self.frame[list(COLUMNS)].astype(COLUMNS).reset_index(drop=True)
        for name in COLUMNS:
            if bad := frame.index[frame[name].isna()].tolist():
                raise ValueError(f"TokenTable: column {name!r} has no value in row {bad[0]} ({len(bad)} such rows)")
        if not np.allclose(frame["gap"], frame["teacher_logprob"] - frame["student_logprob"], atol=1e-4):
            raise ValueError("TokenTable: gap is not teacher_logprob - student_logprob")
        if labels := set(frame["label"]) - set(LABELS):
            raise ValueError(f"TokenTable: unknown step labels {sorted(labels)}; known: {LABELS}")
        object.__setattr__(self, "frame", frame)

    def __len__(self) -> int:
        return len(self.frame)

    def rollout(self, index: int) -> "TokenTable":
        """Return the rows of one rollout.

        Raises:
            KeyError: when the table has no rollout of that number.
        """
        rows = self.frame[self.frame["rollout"] == index]
        if rows.empty:
            raise KeyError(f"TokenTable has no rollout {index}; it has {sorted(self.frame['rollout'].unique())}")
        return TokenTable(rows)

    def with_columns(self, **columns: object) -> "TokenTable":
        """Return a copy in which the named columns hold new values, one per row."""
        return TokenTable(self.frame.assign(**columns))

    @staticmethod
    def concatenate(tables: list["TokenTable"]) -> "TokenTable":
        """Join tables, renumbering their rollouts so that each stays apart."""
        frames, start = [], 0
        for table in tables:
            frames.append(table.frame.assign(rollout=table.frame["rollout"] + start))
            start = int(frames[-1]["rollout"].max()) + 1 if len(table) else start
        return TokenTable(pd.concat(frames, ignore_index=True))
