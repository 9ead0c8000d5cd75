"""Problems from Hugging Face data sets: which column holds what, and the loader."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import datasets

from opsd_lab.problems import Fault, Problem, collect_problems, row_faults


@dataclass(frozen=True)
class ColumnMap:
    """Where a data set keeps the parts of a Problem.

    `question`, `answer`, `solution` and `id` name columns; without an `id` column a problem is called
    "<set>-<split>-<row>". The columns in `meta` are kept in the problem's meta under their own names, all others are
    left aside. `extract_answer` takes the text of the answer column apart into (solution, answer) and raises ValueError
    with the reason where it cannot. `hub_id`, `config` and `split` say what `load_hub` asks for.

    Raises:
        ValueError: when both `solution` and `extract_answer` would give the solution.
    """

    question: str
    answer: str
    solution: str | None = None
    id: str | None = None
    meta: tuple[str, ...] = ()
    hub_id: str | None = None
    config: str | None = None
    split: str = "train"
    extract_answer: Callable[[str], tuple[str, str]] | None = None

    def __post_init__(self) -> None:
        if self.solution and self.extract_answer:
            raise ValueError(f"ColumnMap: the solution comes from column {self.solution!r} or extract_answer, not both")

    @property
    def columns(self) -> dict[str, str]:
        """The mapped fields and their columns, `meta` left out."""
        named = {"id": self.id, "question": self.question, "answer": self.answer, "solution": self.solution}
        return {field: column for field, column in named.items() if column is not None}


def split_gsm8k_answer(text: str) -> tuple[str, str]:
    """Take a GSM8K answer apart into its worked solution, calculator marks removed, and its final answer.

    Raises:
        ValueError: when the text has no "####" line (the format of Cobbe et al. 2021, arXiv:2110.14168).
    """
    solution, mark, answer = text.rpartition("####")
    if not mark:
        raise ValueError('has no "####" before a final answer')
    return re.sub(r"<<[^<>]*>>", "", solution).strip(), answer.strip()


COLUMN_MAPS: dict[str, ColumnMap] = {
    "openthoughts_opsd": ColumnMap("problem", "Answer", solution="solution", hub_id="siyanzhao/Openthoughts_math_30k_opsd"),
    "math500": ColumnMap(
        "problem",
        "answer",
        solution="solution",
        id="unique_id",
        meta=("subject", "level"),
        hub_id="HuggingFaceH4/MATH-500",
        split="test",
    ),
    "aime24": ColumnMap("problem", "answer", solution="solution", id="id", hub_id="HuggingFaceH4/aime_2024"),
    "aime25": ColumnMap("problem", "answer", id="id", hub_id="math-ai/aime25", split="test"),
    "hmmt25": ColumnMap("problem", "answer", id="problem_idx", hub_id="MathArena/hmmt_feb_2025"),
    "gsm8k": ColumnMap("question", "answer", hub_id="openai/gsm8k", config="main", extract_answer=split_gsm8k_answer),
}
"""The sets of the OPSD paper (OpenThoughts to train on; MATH-500, AIME, HMMT to test) and GSM8K.

Ids stay as the set gives them, so AIME and HMMT problems are told apart only within their own set.
"""


def load_hub(name_or_map: str | ColumnMap, *, split: str | None = None, limit: int | None = None) -> list[Problem]:
    """Load a named set of `COLUMN_MAPS`, or the one that a ColumnMap describes; at most the first `limit` rows.

    No code of the data set's repository is run.

    Raises:
        ValueError: for an unknown name, a map without `hub_id`, or a limit below 1.
        BadRowsError: when any loaded row is faulty.
    """
    if isinstance(name_or_map, str) and name_or_map not in COLUMN_MAPS:
        raise ValueError(f"no data set is called {name_or_map!r}; known: {', '.join(COLUMN_MAPS)}. Describe another with a ColumnMap")
    column_map = COLUMN_MAPS[name_or_map] if isinstance(name_or_map, str) else name_or_map
    if column_map.hub_id is None:
        raise ValueError("load_hub: this ColumnMap has no hub_id; set it, or pass loaded rows to from_dataset")
    if limit is not None and limit < 1:
        raise ValueError(f"load_hub: limit is {limit}; it must be at least 1, or None for all rows")
    dataset = datasets.load_dataset(column_map.hub_id, name=column_map.config, split=split or column_map.split)
    if limit is not None:
        dataset = dataset.select(range(min(limit, len(dataset))))
    return from_dataset(dataset, column_map)


def from_dataset(dataset: datasets.Dataset, column_map: ColumnMap) -> list[Problem]:
    """Turn each row of a data set into a Problem; whole numbers in the answer and id columns become text.

    Raises:
        TypeError: when given something other than one split of a data set.
        ValueError: when a mapped column does not exist; the message names those that do.
        BadRowsError: when any row is faulty. `dataset.filter` can remove such rows beforehand.
    """
    if not isinstance(dataset, datasets.Dataset):
        kind = type(dataset).__name__
        raise TypeError(f"from_dataset: needs one split, not streamed (a datasets.Dataset), not a {kind}")
    wanted = (*column_map.columns.values(), *column_map.meta)
    if missing := [column for column in wanted if column not in dataset.column_names]:
        raise ValueError(f"from_dataset: no column {missing}; the data set has {dataset.column_names}")
    source = column_map.hub_id or dataset.info.dataset_name or "dataset"
    prefix = f"{source.rsplit('/', 1)[-1]}-{dataset.split or column_map.split}"
    return collect_problems(_rows(dataset, column_map), source=source, id_prefix=prefix, unit="row")


def _rows(dataset: datasets.Dataset, column_map: ColumnMap) -> Iterator[tuple[int, Mapping[str, Any], list[Fault]]]:
    columns = column_map.columns
    for number, row in enumerate(dataset):
        fields = {field: row[column] for field, column in columns.items()}
        for field in ("id", "answer"):
            if type(fields.get(field)) is int:  # a bool is an int too, but no answer
                fields[field] = str(fields[field])
        faults = []
        if column_map.extract_answer and isinstance(fields["answer"], str) and fields["answer"].strip():
            try:
                fields["solution"], fields["answer"] = column_map.extract_answer(fields["answer"])
            except ValueError as error:
                faults.append(("answer", str(error)))
        faults += row_faults(fields, required=fields)
        fields["meta"] = {column: row[column] for column in column_map.meta}
        yield number, fields, [(_place(field, columns), reason) for field, reason in faults]


def _place(field: str, columns: Mapping[str, str]) -> str:
    column = columns.get(field, columns["answer"])
    return field if column == field else f"{field} (column {column!r})"
