"""A study's cells as files, each with what it depends on in its own metadata."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from opsd_lab.basics.files import write_whole
from opsd_lab.identity.digest import digest
from opsd_lab.identity.parts import Parts, differences, parts_of, policy_parts, versions

if TYPE_CHECKING:
    from opsd_lab.studies.study import Study

SETTINGS = b"opsd_lab settings"
DIGEST = "settings"  # the column of a study's table that stands for what a cell depends on

Cell = tuple[str, int]


def cell_settings(study: "Study", arms: Sequence[str], seeds: Sequence[int]) -> dict[Cell, Parts]:
    """Return what each cell depends on; what cells share is looked at once."""
    values = {
        "chat": study.chat,
        "evaluation chat": study.evaluation_chat,
        "sampler": study.sampler,
        "sampling": study.sampling,
        "evaluation": study.evaluation,
        "training": study.params,
    }
    values |= {"rollouts": study.rollouts, "checkpoints": study.checkpoints, "during": study.during, "by": study.by}
    values |= {"also": study.also, "operations": study.operations, "trace": study.trace}
    values |= {"training problems": list(study.train)} | {
        f"split {name!r}": list(problems) for name, problems in study.splits.items()
    }
    shared = {key: text for name, value in values.items() for key, text in parts_of(name, value).items()} | versions()
    of_arms = {arm: parts_of("arm", study.arms[arm]) | parts_of("method", study.methods.get(arm, arm)) for arm in arms}
    of_seeds = {seed: policy_parts(study.policy(seed), "the initial policy") for seed in seeds}
    return {(arm, seed): shared | of_arms[arm] | of_seeds[seed] for seed in seeds for arm in arms}


def write_cell(path: Path, rows: pd.DataFrame, settings: Parts) -> None:
    """Write a cell's rows with what they depend on in the file's own metadata; the file is there whole or not at all."""
    table = pa.Table.from_pandas(rows, preserve_index=False)
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), SETTINGS: json.dumps(settings).encode()})
    write_whole(path, lambda partial: pq.write_table(table, partial, compression="zstd"))


def check_cell(path: Path, settings: Parts) -> None:
    """Make sure that a cell which is there already depends on the same.

    Raises:
        ValueError: when it does not, or cannot be read; it names the file and what differs.
    """
    if not path.exists():
        return
    remedy = "name another folder, or delete the file, and the cell is run again"
    try:
        known = json.loads((pq.read_schema(path).metadata or {})[SETTINGS])
        pq.read_table(path)
    except KeyError:
        raise ValueError(f"{path} does not say with which settings it was made; {remedy}") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}); {remedy}") from None
    if other := differences(known, settings):
        raise ValueError(f"{path} was made with other settings: {other}; {remedy}")


def read_cells(paths: Mapping[Cell, Path], settings: Mapping[Cell, Parts]) -> pd.DataFrame:
    """Return the rows of all cells, each with the digest of its settings; traces in single precision, which halves the table."""
    found = pd.concat(
        [pd.read_parquet(path).assign(**{DIGEST: digest(settings[cell])}) for cell, path in paths.items()], ignore_index=True
    )
    traces = [name for name in found if name.startswith("trace_")]
    return found.assign(**{name: [np.asarray(values, np.float32) for values in found[name]] for name in traces})


def known_cells(
    study: "Study", arms: Sequence[str], seeds: Sequence[int], finished: pd.DataFrame | None
) -> tuple[dict[Cell, Parts], dict[Cell, pd.DataFrame]]:
    """Return what each cell of a study depends on, and the cells of an earlier table that did not fail and depend on the same.

    Known are the cells of the `arms` and `seeds`, and those that `finished` has of the `study`. It is what `run_study` returned
    before; a table without the digests of its settings has no cell that could be taken.
    """
    if finished is None or DIGEST not in finished:
        return cell_settings(study, arms, seeds), {}
    held = [arm for arm in finished["arm"].unique() if arm in study.arms]
    settings = cell_settings(study, list(dict.fromkeys([*arms, *held])), list(dict.fromkeys([*seeds, *finished["seed"].tolist()])))
    found = {}
    for cell, rows in finished.groupby(["arm", "seed"], sort=False):
        if cell in settings and (rows["error"] == "").all() and set(rows[DIGEST]) == {digest(settings[cell])}:
            found[cell] = rows.drop(columns=DIGEST).reset_index(drop=True)
    return settings, found
