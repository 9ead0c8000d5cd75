"""Problems from Hugging Face data sets, from the hub or loaded already."""

import hashlib
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from opsd_lab.basics.arrow_rows import plain_rows
from opsd_lab.problems.column_maps import COLUMN_MAPS, ColumnMap
from opsd_lab.problems.problem import FIELDS, NEEDED, Problem, collect_problems
from opsd_lab.problems.rows import Fields, Reader, Row

if TYPE_CHECKING:
    from datasets import Dataset

ROWS = 1000  # read at once
TOLD_APART = 100  # questions that go into the name of a set without one


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
    split = split or column_map.split
    dataset = _datasets().load_dataset(column_map.hub_id, name=column_map.config, split=split)
    if limit is not None:
        dataset = dataset.select(range(min(limit, len(dataset))))
    return from_dataset(dataset, column_map, name=f"{column_map.hub_id.rsplit('/', 1)[-1]}-{split}")


def from_dataset(
    dataset: "Dataset", column_map: ColumnMap, *, name: str | None = None, required: Sequence[str] = NEEDED
) -> list[Problem]:
    """Turn each row of a data set into a Problem; numbers, lists and empty solutions are treated as in `load_jsonl`.

    Without an `id` column a problem is called "<name>-<row>". `name` defaults to the set's own name and split, or, where it came from
    a file or from memory and so has no name, to the split and a digest of its first questions, which tells it from other sets.
    `column_map` says which column holds which field. `required` names fields that every row must have.

    Raises:
        TypeError: when given something other than one split of a data set.
        ValueError: when a mapped column does not exist; the message names those that do.
        BadRowsError: when any row is faulty. `dataset.filter` can remove such rows beforehand.
    """
    if not isinstance(dataset, _datasets().Dataset):
        kind = type(dataset).__name__
        raise TypeError(f"from_dataset: needs one split, not streamed (a datasets.Dataset), not a {kind}")
    if unknown := set(required) - set(FIELDS):
        raise ValueError(f"from_dataset: required names unknown fields {sorted(unknown)}; known: {', '.join(FIELDS)}")
    wanted = column_map.roots(dataset.column_names, "from_dataset")
    needed = tuple(dict.fromkeys((*NEEDED, *required)))
    rows = list(_rows(dataset.select_columns(wanted), lambda row: column_map.fields(row, needed)))
    name = name or _name(dataset) or f"{dataset.split or 'rows'}-{_digest(rows)}"
    return collect_problems(rows, source=name, id_prefix=name, unit="row")


def hub_rows(name: str, config: str | None, split: str, reader_of: Reader) -> Iterator[Row]:
    """Yield the rows of a split of a hub set, from 0: `name` is its id, `config` its part, and `reader_of` chooses the columns.

    Raises:
        ValueError: when a wanted column does not exist.
        OSError: when the hub cannot be reached.
    """
    dataset = _datasets().load_dataset(name, name=config, split=split)
    wanted, fields = reader_of(dataset.column_names)
    yield from _rows(dataset.select_columns(wanted), fields)


def _datasets() -> ModuleType:
    """Return the library, which takes a second to import, and only who has such a set needs it."""
    import datasets

    return datasets


def _rows(dataset: "Dataset", fields: Fields) -> Iterator[Row]:
    number = 0
    for table in dataset.with_format("arrow").iter(batch_size=ROWS):
        for row in plain_rows(table):
            yield number, *fields(row)
            number += 1


def _name(dataset: "Dataset") -> str | None:
    """Return the set's own name and split; None where `datasets` calls it by the kind of file that it was read from."""
    info = dataset.info
    if info.dataset_name is None or info.dataset_name == info.builder_name:
        return None
    return f"{info.dataset_name}-{dataset.split}" if dataset.split else info.dataset_name


def _digest(rows: Sequence[Row]) -> str:
    questions = [fields.get("question") for _, fields, _ in rows[:TOLD_APART]]
    return hashlib.sha256(repr((len(rows), questions)).encode("utf-8", "backslashreplace")).hexdigest()[:6]
