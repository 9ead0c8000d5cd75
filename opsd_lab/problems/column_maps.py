"""Which column of a data set holds which part of a Problem."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opsd_lab.problems.problem import NEEDED, Fault, checked_fields
from opsd_lab.problems.reference_answers import kind_of, split_boxed_answer, split_gsm8k_answer


@dataclass(frozen=True)
class ColumnMap:
    """Where a data set keeps the parts of a Problem.

    `question`, `answer`, `solution` and `id` name columns, or places inside them by a path with dots: "messages.0.content" is the
    content of the first of a list of messages, "final_answer.-1" the last of a list. Without an `id` column, rows are numbered.
    The columns in `meta` are kept in the problem's meta under these names, all others are left aside. `extract_answer` takes the text
    of the answer column apart into (solution, answer) and raises ValueError with the reason where it cannot. `hub_id`, `config` and
    `split` say what `load_hub` asks for.

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
        if isinstance(self.meta, str):
            raise ValueError(f"ColumnMap: meta is one text, {self.meta!r}; give a tuple of columns")

    @property
    def columns(self) -> dict[str, str]:
        """The mapped fields and their columns, `meta` left out."""
        named = {"id": self.id, "question": self.question, "answer": self.answer, "solution": self.solution}
        return {field: column for field, column in named.items() if column is not None}

    def roots(self, names: Collection[str], who: str) -> list[str]:
        """Return which of a table's columns are wanted.

        Raises:
            ValueError: when one does not exist; the message names those that do.
        """
        wanted = {path: path if path in names else path.split(".")[0] for path in (*self.columns.values(), *self.meta)}
        if missing := [path for path, root in wanted.items() if root not in names]:
            raise ValueError(f"{who}: no column {missing}; there are {list(names)}")
        return list(dict.fromkeys(wanted.values()))

    def fields(self, row: Mapping[str, Any], required: Sequence[str] = NEEDED) -> tuple[dict[str, Any], list[Fault]]:
        """Return the fields of a Problem that a row holds, and its faults, each with the column that it stands in."""
        fields, faults = {}, []
        for name, path in self.columns.items():
            try:
                fields[name] = _at(row, path)
            except LookupError as error:
                if name != "solution":
                    faults.append((name, error.args[0]))
        text = fields.get("answer")
        if self.extract_answer and isinstance(text, str) and text.strip():
            try:
                fields["solution"], fields["answer"] = self.extract_answer(text)
            except ValueError as error:
                faults.append(("answer", str(error)))
        at_fault = {name for name, _ in faults}
        fields, more = checked_fields(fields, required)
        faults += [(name, reason) for name, reason in more if name not in at_fault]
        meta = {}
        for path in self.meta:
            try:
                meta[path] = _at(row, path)
            except LookupError as error:
                faults.append(("meta", error.args[0]))
        return fields | {"meta": meta}, [(self._place(name), reason) for name, reason in faults]

    def _place(self, field: str) -> str:
        column = self.columns.get(field, field if field == "meta" else self.answer)
        return field if column == field else f"{field} (column {column!r})"


def _at(row: Mapping[str, Any], path: str) -> object:
    """Return what stands at a path; a column whose own name has dots comes first.

    Raises:
        LookupError: when nothing does.
    """
    if path in row:
        return row[path]
    value: object = row
    for part in path.split("."):
        try:
            value = value[int(part)] if isinstance(value, list) and re.fullmatch(r"-?\d+", part) else value[part]
        except (LookupError, TypeError):
            inside = f"no {part!r} in {kind_of(value)}" + (f" of {len(value)}" if isinstance(value, list) else "")
            raise LookupError("is missing" if value is row else f"is missing: {inside} on the way to {path!r}") from None
    return value


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
    "math": ColumnMap("problem", "solution", hub_id="DigitalLearningGmbH/MATH-lighteval", extract_answer=split_boxed_answer),
    "numina_cot": ColumnMap("problem", "solution", hub_id="AI-MO/NuminaMath-CoT", extract_answer=split_boxed_answer),
    "olympiadbench": ColumnMap(
        "question",
        "final_answer",
        solution="solution.0",
        id="id",
        hub_id="Hothan/OlympiadBench",
        config="OE_TO_maths_en_COMP",
    ),
}
"""The sets of the OPSD paper (OpenThoughts to train on; MATH-500, AIME, HMMT to test), and others whose columns differ.

Ids stay as the set gives them, so AIME and HMMT problems are told apart only within their own set. Rows of `numina_cot` without one
boxed answer, and of `olympiadbench` with several, are faults: leave them out with `dataset.filter` first.
"""
