"""A study's table in short: each arm's accuracy over its seeds, with an interval over problems, as a frame and as Markdown."""

from collections.abc import Iterable, Sequence

import pandas as pd

from opsd_lab.evaluation.statistics import mean_interval
from opsd_lab.figures.words import NUMBERS, interval, number
from opsd_lab.studies.results import correctness, final_rows


def seed_accuracies(results: pd.DataFrame) -> pd.DataFrame:
    """Return each arm's accuracy at its last step on each split: arm, split, mean, low, high, n, unit, seeds.

    The interval is that of the seeds' mean over `n` problems (`mean_interval`). The spread between seeds stands in `seeds`, each
    seed's accuracy in words.

    Raises:
        ValueError: when no cell was evaluated.
    """
    found = []
    for split in (name for name in results["split"].unique() if name):
        rows = final_rows(results, split)
        for arm, of_arm in rows.groupby("arm", sort=False):
            shares = correctness(rows, arm, sorted(of_arm["seed"]))
            mean = mean_interval(shares.mean(axis=0), int((of_arm["n"] * of_arm["samples"]).sum()))
            each = ", ".join(number(value, 2) for value in shares.mean(axis=1))
            found.append({"arm": arm, "split": split, **mean.as_dict(), "seeds": each})
    if not found:
        raise ValueError("the table has no cell that was evaluated")
    return pd.DataFrame(found)


def seeds_table(results: pd.DataFrame) -> str:
    """Return `seed_accuracies` as Markdown: a row for each arm, a column for each split, then the first split by seed.

    Raises:
        ValueError: when no cell was evaluated.
    """
    found = seed_accuracies(results)
    splits = found["split"].unique().tolist()
    lines = []
    for arm, of_arm in found.groupby("arm", sort=False):
        rows = of_arm.set_index("split").to_dict("index")
        shown = [interval(*(rows[split][name] for name in NUMBERS)) if split in rows else "" for split in splits]
        lines.append([arm, *shown, rows.get(splits[0], {}).get("seeds", "")])
    return markdown(["arm", *splits, f"{splits[0]}, by seed"], lines)


def markdown(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
