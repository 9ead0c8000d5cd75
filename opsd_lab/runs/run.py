"""A run on disk: what it is, what each step did, its rollouts, tokens and checkpoints, and what happened to it."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from opsd_lab.basics.files import is_locked, write_whole
from opsd_lab.identity.digest import digest
from opsd_lab.rollouts import Rollout, load_rollouts
from opsd_lab.runs.lines import append_line, read_lines
from opsd_lab.tokens.files import load_table
from opsd_lab.tokens.table import TokenTable

FORMAT = 1
STEPS, PROBES, EVENTS = "steps.jsonl", "probes.jsonl", "events.jsonl"
STEP = re.compile(r"step-(\d{6,})\.")


class Run:
    """The folder of a run, read while it is being written or afterwards.

    `run.json` says what it is: recipe, versions, machine, digests of the data, both prompts of one problem. `steps.jsonl` has a line
    for each step, `probes.jsonl` one for each step at which accuracy was measured, `events.jsonl` one for whatever happened.
    `rollouts/`, `tokens/` and `checkpoints/` have a file for each step that was kept. `runs.train` writes them.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @classmethod
    def open(cls, folder: str | Path) -> "Run":
        """Return a run that is there.

        Raises:
            FileNotFoundError: when the folder holds no run.
            ValueError: when its `run.json` is damaged, or of another version.
        """
        run = cls(folder)
        _ = run.about
        return run

    @property
    def about(self) -> dict[str, Any]:
        """What `run.json` says.

        Raises:
            FileNotFoundError, ValueError: as `open` does.
        """
        path = self.folder / "run.json"
        if not path.is_file():
            raise FileNotFoundError(f"{self.folder} holds no run: there is no {path.name}")
        try:
            found = json.loads(path.read_bytes())
            said = found.pop("content")
        except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
            raise ValueError(f"{path} is damaged, or no run's; name another folder") from None
        if found.get("format") != FORMAT:
            raise ValueError(
                f"{path} has format {found.get('format')}, this is format {FORMAT}; read it with the opsd_lab that wrote it"
            )
        if digest(found) != said:
            raise ValueError(f"{path} is damaged: its content is not what was written; name another folder")
        return found

    def write_about(self, about: Mapping[str, Any]) -> None:
        """Write `run.json`.

        Raises:
            OSError: when it cannot be written.
        """
        found = json.loads(json.dumps({"format": FORMAT, **about}))
        text = json.dumps(found | {"content": digest(found)}, indent=1, ensure_ascii=False)
        write_whole(self.folder / "run.json", text + "\n")

    @property
    def steps(self) -> pd.DataFrame:
        """Loss, metrics and ledger of each step, and what was measured at it: one row a step, NaN where there is no number.

        Raises:
            ValueError: when a line is damaged; it names the line.
        """
        (rows, wrong), (measured, also_wrong) = (read_lines(self.folder / name) for name in (STEPS, PROBES))
        if wrong or also_wrong:
            raise ValueError(f"{wrong or also_wrong}; train into the folder again, and what follows is taken again")
        later = {row["step"]: row for row in measured}
        frame = pd.DataFrame([row | later.get(row["step"], {}) for row in rows])
        return frame if len(frame) else pd.DataFrame({"step": pd.Series(dtype="int64"), "loss": pd.Series(dtype="float64")})

    @property
    def measured(self) -> dict[int, dict[str, float]]:
        """What was measured on the way, by step."""
        return {row.pop("step"): row for row in read_lines(self.folder / PROBES)[0]}

    @property
    def events(self) -> pd.DataFrame:
        """What happened, in order: time (UTC), step, kind, text."""
        rows, _ = read_lines(self.folder / EVENTS)
        return pd.DataFrame(rows, columns=["time", "step", "kind", "text"])

    def tell(self, kind: str, text: str, step: int) -> None:
        """Add an event.

        Raises:
            OSError: when it cannot be written.
        """
        now = pd.Timestamp.now("UTC").isoformat(timespec="seconds")
        append_line(self.folder / EVENTS, {"time": now, "step": step, "kind": kind, "text": text})

    @property
    def is_running(self) -> bool:
        """Whether a process is training into the folder now."""
        return is_locked(self.folder)

    def kept(self, what: str) -> dict[int, Path]:
        """Return the files of "rollouts", "tokens" or "checkpoints" by step, in order."""
        found = {int(match[1]): path for path in (self.folder / what).glob("step-*.*") if (match := STEP.match(path.name))}
        return dict(sorted(found.items()))

    def path(self, what: str, step: int) -> Path:
        """Return where a step's file of "rollouts", "tokens" or "checkpoints" is, or would be."""
        return self.folder / what / f"step-{step:06d}.{'safetensors' if what == 'checkpoints' else 'parquet'}"

    def rollouts(self, step: int) -> list[Rollout]:
        """Return the rollouts that a step drew, those that did not count among them.

        Raises:
            KeyError: when those of this step were not kept; it names the steps that were.
            ValueError: when the file is damaged.
        """
        return load_rollouts(self._file("rollouts", step))

    def tokens(self, step: int) -> TokenTable:
        """Return the token table of a step; its column `rollout` numbers what `rollouts` returns.

        Raises:
            KeyError, ValueError: as `rollouts` does.
        """
        return load_table(self._file("tokens", step))

    def _file(self, what: str, step: int) -> Path:
        kept = self.kept(what)
        if step not in kept:
            raise KeyError(f"{self.folder} has no {what} of step {step}; it has those of {', '.join(map(str, kept)) or 'none'}")
        return kept[step]

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"
