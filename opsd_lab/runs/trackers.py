"""Trackers through accelerate: TensorBoard, trackio, wandb and others; none unless it is asked for by name."""

from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker


def check_trackers(names: Iterable[str]) -> None:
    """Make sure, before a run begins, that trackers are known and installed.

    Raises:
        ValueError: for a name that accelerate does not know.
        ImportError: for a tracker that is not installed; it names the package.
    """
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise ValueError(f"there is no tracker {name!r}; there are {', '.join(map(str, LOGGER_TYPE_TO_CLASS))}")
        if find_spec(name) is None:
            raise ImportError(f"the tracker {name!r} is not installed: pip install {name}")


def started(names: Iterable[str], folder: Path) -> list[GeneralTracker]:
    """Return trackers by their names; one that writes files writes them into the run's folder, under `trackers`.

    Raises:
        ValueError, ImportError: as `check_trackers` does.
    """
    check_trackers(names)
    found = []
    for kind in (LOGGER_TYPE_TO_CLASS[name] for name in names):
        found.append(kind(folder.name, str(folder / "trackers")) if kind.requires_logging_directory else kind(folder.name))
        found[-1].start()
    return found


def numbers_of(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a step that a tracker can draw."""
    return {name: value for name, value in row.items() if isinstance(value, int | float) and value == value and name != "step"}
