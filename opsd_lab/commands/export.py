"""`export`: a run's model as others load it."""

from pathlib import Path

from tyro.conf import Positional

from opsd_lab.runs import Run
from opsd_lab.runs.export import Form
from opsd_lab.runs.export import export as export_run


def export(run: Positional[Path], *, out: Path, form: Form = "adapter", step: str = "last") -> None:
    """Write a run's model with a card: its adapter in peft's form, or the whole model.

    Args:
        run: the run's folder.
        out: the folder to make.
        form: adapter, or merged for the whole model.
        step: last, best, or the number of a step that has a checkpoint.
    """
    folder = export_run(Run.open(run), out, form, step)
    print(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
