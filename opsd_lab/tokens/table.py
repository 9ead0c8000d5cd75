"""TokenTable: the one record of a scored rollout, which the loss, the diagnostics and the views share."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from opsd_lab.tokens.top import ARRAYS, TEXTS, TopTokens

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
    "label_source": "string",
    "error_phase": "string",
    "outcome": "string",
}
LABELS = ("correct", "incorrect", "unverifiable", "")
PHASES = ("before", "first_error", "after", "")
KNOWN = {"label": LABELS, "error_phase": PHASES, "outcome": LABELS}
LATER = ("label_source", "error_phase", "outcome")  # "" where nobody has looked yet


@dataclass(frozen=True)
class TokenTable:
    """One row per completion token of one or several rollouts.

    `frame` holds the columns of `COLUMNS`, in that order:
    `rollout` numbers the rollouts from 0 and `position` the tokens inside each, from 0; `token` is the token's text; `gap` is
    teacher minus student log-probability of the token that the student wrote (nats); `divergence` is the per-token divergence after
    the point-wise clip and `clipped` what that clip took off; `loss` is the token's term of the objective and `weight` its weight
    there; entropies are in nats; a rank of 0 is the most probable token; `step` numbers the reasoning steps of the rollout (-1: in
    none), `label` is the step's verdict, one of `LABELS`, and `label_source` who gave it ("arithmetic", "human", ...);
    `error_phase` places the token relative to the rollout's first incorrect step ("before" everywhere if there is none) and
    `outcome` is the verdict on the rollout's final answer. The last three may be left out; they are then "". Any further columns of
    numbers or texts, such as what an objective records, follow after them (`extra`). `top` holds both sides' most probable tokens,
    where asked for.

    Raises:
        ValueError: for missing columns, missing values, further columns that are neither numbers nor texts, values of another type,
        text with half of a surrogate pair, a gap
            that is not the difference it claims to be, a token that stands there twice, a rollout with two problems or outcomes, or
            lists that do not fit the rows.
    """

    frame: pd.DataFrame
    top: TopTokens | None = None

    def __post_init__(self) -> None:
        given = self.frame.assign(**{name: "" for name in LATER if name not in self.frame})
        if missing := [c for c in COLUMNS if c not in given]:
            raise ValueError(f"TokenTable: missing columns {missing}")
        extra = [c for c in given if c not in COLUMNS]
        given = given[[*COLUMNS, *extra]].reset_index(drop=True)
        for name in COLUMNS:
            if bad := given.index[given[name].isna()].tolist():
                raise ValueError(f"TokenTable: column {name!r} has no value in row {bad[0]} ({len(bad)} such rows)")
        kinds = COLUMNS | {name: _extra_kind(given[name]) for name in extra}
        frame = pd.DataFrame({name: _typed(given[name], kind) for name, kind in kinds.items()})
        _check_numbers(frame)
        _check_rollouts(frame)
        if self.top is not None and len(self.top) != len(frame):
            raise ValueError(f"TokenTable: {len(frame)} tokens but the most probable tokens of {len(self.top)}")
        object.__setattr__(self, "frame", frame)

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def extra(self) -> list[str]:
        """The names of the columns beyond those that every table has."""
        return [name for name in self.frame if name not in COLUMNS]

    def rollout(self, index: int) -> "TokenTable":
        """Return the rows of one rollout.

        Raises:
            KeyError: when the table has no rollout of that number.
        """
        chosen = (self.frame["rollout"] == index).to_numpy()
        if not chosen.any():
            raise KeyError(f"TokenTable has no rollout {index}; it has {sorted(self.frame['rollout'].unique())}")
        return self.select(chosen)

    def select(self, chosen: np.ndarray) -> "TokenTable":
        """Return the rows where the mask [N] is true."""
        chosen = np.asarray(chosen, dtype=bool)
        return TokenTable(self.frame[chosen], None if self.top is None else self.top.rows(chosen))

    def with_columns(self, **columns: object) -> "TokenTable":
        """Return a copy in which the named columns hold new values, one per row.

        Raises:
            ValueError: as the class does.
        """
        # pandas would encode texts at once, and name no row of one that it cannot.
        given = {name: pd.Series(values, self.frame.index, object) for name, values in columns.items()}
        return TokenTable(self.frame.assign(**given), self.top)

    @staticmethod
    def empty() -> "TokenTable":
        """Return the table of no rollouts."""
        return TokenTable(pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in COLUMNS.items()}))

    @staticmethod
    def concatenate(tables: list["TokenTable"]) -> "TokenTable":
        """Join tables, renumbering their rollouts so that each stays apart.

        Raises:
            ValueError: when some of them hold the most probable tokens and some do not.
        """
        frames, start = [], 0
        for table in tables:
            frames.append(table.frame.assign(rollout=table.frame["rollout"] + start))
            start = int(frames[-1]["rollout"].max()) + 1 if len(table) else start
        tops = [table.top for table in tables if len(table)]
        if any(top is None for top in tops) and any(top is not None for top in tops):
            raise ValueError("TokenTable: only some of the tables hold the most probable tokens; score them all with the same top_k")
        top = TopTokens.concatenate(tops) if tops and tops[0] is not None else None
        joined = pd.concat(frames, ignore_index=True)
        texts = [name for name in joined if pd.api.types.is_string_dtype(joined[name])]  # "" where a table has no such column
        return TokenTable(joined.fillna(dict.fromkeys(texts, "")), top)

    def to_pandas(self) -> pd.DataFrame:
        """Return a copy of the rows; the most probable tokens, if there are any, stand in columns of lists after them."""
        return self.frame.assign(**self.top.columns()) if self.top is not None else self.frame.copy()

    @staticmethod
    def from_pandas(frame: pd.DataFrame) -> "TokenTable":
        """Return the table that `to_pandas` was called on.

        Raises:
            ValueError: as the class does.
        """
        lists = [name for name in (*ARRAYS, *TEXTS) if name in frame]
        return TokenTable(frame.drop(columns=lists), TopTokens.from_columns(frame) if lists else None)


def _extra_kind(column: pd.Series) -> str:
    """Return the type of a further column: float64 for numbers, else text.

    Raises:
        ValueError: for anything else; it names the column.
    """
    if not isinstance(column.name, str):
        raise ValueError(f"TokenTable: column {column.name!r} has a name that is no text")
    if pd.api.types.is_numeric_dtype(column):
        return "float64"
    if all(isinstance(value, (float, int)) and not isinstance(value, bool) for value in column):
        return "float64"
    if all(isinstance(value, str) for value in column):
        return "string"
    raise ValueError(f"TokenTable: column {column.name!r} holds neither numbers nor texts")


def _typed(column: pd.Series, kind: str) -> pd.Series:
    try:
        return column.astype(kind)
    except UnicodeEncodeError:
        row = next(row for row, text in enumerate(column) if isinstance(text, str) and not _encodable(text))
        raise ValueError(
            f"TokenTable: column {column.name!r} holds half of a surrogate pair in row {row}, {column.iloc[row]!r}; a token "
            "without a whole character has the text '\\ufffd' or none"
        ) from None
    except (ValueError, TypeError) as error:
        raise ValueError(f"TokenTable: column {column.name!r} is not of type {kind} ({error})") from None


def _encodable(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _check_numbers(frame: pd.DataFrame) -> None:
    if not np.allclose(frame["gap"], frame["teacher_logprob"] - frame["student_logprob"], atol=1e-4):
        raise ValueError("TokenTable: gap is not teacher_logprob - student_logprob")
    for name, known in KNOWN.items():
        if unknown := set(frame[name]) - set(known):
            raise ValueError(f"TokenTable: unknown values {sorted(unknown)} in column {name!r}; known: {known}")


def _check_rollouts(frame: pd.DataFrame) -> None:
    twice = frame.duplicated(["rollout", "position"])
    if twice.any():
        row = frame.loc[twice.idxmax()]
        raise ValueError(f"TokenTable: rollout {row['rollout']} has two tokens at position {row['position']}")
    for name in ("problem_id", "outcome"):
        counts = frame.groupby("rollout")[name].nunique()
        if (counts > 1).any():
            raise ValueError(f"TokenTable: rollout {counts.idxmax()} has more than one {name}")
