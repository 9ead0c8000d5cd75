"""How the results page writes numbers, tables and commands, and how it makes sure that its sentences are true."""

import json

import pandas as pd

from opsd_lab.experiments import RESULTS
from opsd_lab.experiments.study_tables import markdown
from opsd_lab.figures.words import interval, number
from opsd_lab.studies.results import final_rows

LEVEL = 95
"""The level of every interval on the page, in percent."""
CONTROL = "control: another problem's solution"
"""The control's name in the studies."""
Fields = dict[str, object]
"""What fills in the page's places, by their names."""


def read_json(name: str) -> dict | list:
    """Return a committed result in JSON."""
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def read_table(name: str) -> pd.DataFrame:
    """Return a committed table."""
    return pd.read_parquet(RESULTS / f"{name}.parquet")


def accuracy(row: pd.Series) -> str:
    """Return the accuracy in a row of `arm_table`."""
    return interval(row["mean"], row["low"], row["high"])


def operations(value: float) -> str:
    """Return a count of floating-point operations, "3.6e12"; nothing for none."""
    return f"{value:.1e}".replace("e+", "e") if value else ""


def study_command(name: str, table: str, rows: pd.DataFrame) -> str:
    """Return the command that made a study's table, with the seeds that stand in it."""
    seeds = " ".join(map(str, sorted(rows["seed"].unique())))
    return f"python -m opsd_lab study --name {name} --seeds {seeds} --workers 2 --out opsd_lab/experiments/results/{table}.parquet"


def seeds_of(rows: pd.DataFrame) -> str:
    """Return "1 seed" or "5 seeds"."""
    count = rows["seed"].nunique()
    return f"{count} seed{'s' * (count > 1)}"


def search_table(search: pd.DataFrame) -> str:
    """Return a search over learning rates as a table: accuracy by arm and rate, the best of each arm in bold."""
    rows = final_rows(search, "validation")
    found = rows.groupby(["method", "learning_rate"])["accuracy"].mean().unstack("learning_rate")
    found, best = found.loc[rows["method"].unique()], found.idxmax(axis=1)
    lines = []
    for method, row in found.iterrows():
        shown = {rate: number(value, 2) for rate, value in row.items()}
        lines.append([method, *(f"**{text}**" if rate == best[method] else text for rate, text in shown.items())])
    return markdown(["arm", *(f"{rate:g}" for rate in found.columns)], lines)


def check(sentence: str, holds: bool) -> None:
    """Make sure that the numbers say what the page says in words.

    Raises:
        ValueError: when they do not; it gives the sentence, which then has to be written anew.
    """
    if not holds:
        raise ValueError(f"the results no longer say: {sentence!r}; write what the page says of it (results_page/page.md) anew")
