"""Training into a folder: each step is on the disk before the next begins, and the same call goes on where a run was cut off."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from opsd_lab.basics.options import whole
from opsd_lab.runs.alarms import Alarms
from opsd_lab.runs.keep import Keep, Stop
from opsd_lab.runs.probe import Probe
from opsd_lab.runs.run import Run
from opsd_lab.runs.writer import Writer
from opsd_lab.training.records import StepRecord
from opsd_lab.training.trainer import Trainer


def train(
    folder: str | Path,
    trainer: Trainer,
    steps: int,
    *,
    keep: Keep | None = None,
    probe: Probe | None = None,
    stop: Stop | None = None,
    alarms: Alarms | None = None,
    about: Mapping[str, Any] | None = None,
    trackers: Sequence[str] = (),
    progress: bool = True,
) -> Iterator[StepRecord]:
    """Train into a folder until the run has taken `steps` steps in all, yielding a record after each step that is taken now.

    When a record is yielded, its step is on the disk. A folder that holds a part of the same run is gone on with: from the last
    checkpoint that is whole, with a freshly built trainer as with the same one. What was taken after it is taken again and comes out
    the same. Ctrl-C, and leaving the loop, write a checkpoint. Of several processes the first writes.

    Args:
        folder: where the run is kept; made where it is not there.
        trainer: what trains.
        steps: the last step.
        keep: what stays on the disk; None keeps what `Keep` keeps by default.
        probe: what is measured now and then; None measures nothing.
        stop: when the run ends before its last step; None takes all steps.
        alarms: what is looked for after each step, with a warning and an event for each thing found; None takes all.
        about: more that `run.json` shall say, such as the recipe as text.
        trackers: what else is told each step's numbers, by accelerate's names, such as tensorboard; nobody by default.
        progress: whether to show a bar of the steps.

    Raises:
        ValueError: when the folder holds another run, of another recipe, view, objective, data, sampling or model; it names what
            differs. When `run.json` is damaged, or the trainer has taken steps that the folder knows nothing of.
        BlockingIOError: when another process is writing there.
        OSError: when the disk is full, or the folder may not be written; what is there can be gone on with.
        NonFiniteError, RuntimeError, TypeError: as `Trainer.train` does.
    """
    last = whole("train: steps", steps, least=0)
    return Writer(Run(folder), trainer, keep or Keep(), probe, stop, alarms or Alarms(), about or {}, trackers).train(last, progress)
