"""Problems and their faults, the files and sets that they come from, and the word problems that ship."""

from opsd_lab.problems.column_maps import COLUMN_MAPS, ColumnMap
from opsd_lab.problems.files import load_csv, load_jsonl, load_parquet, save_jsonl
from opsd_lab.problems.hub import from_dataset, load_hub
from opsd_lab.problems.problem import BadRowsError, Problem
from opsd_lab.problems.reference_answers import split_boxed_answer, split_gsm8k_answer
from opsd_lab.problems.word_problems import builtin

__all__ = [
    "COLUMN_MAPS",
    "BadRowsError",
    "ColumnMap",
    "Problem",
    "builtin",
    "from_dataset",
    "load_csv",
    "load_hub",
    "load_jsonl",
    "load_parquet",
    "save_jsonl",
    "split_boxed_answer",
    "split_gsm8k_answer",
]
