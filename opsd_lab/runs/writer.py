"""What writes a run's folder while a trainer trains, in an order that a kill at any moment leaves whole."""

import platform
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, nullcontext, suppress
from os import cpu_count
from typing import Any

import torch
from accelerate.tracking import GeneralTracker

from opsd_lab.basics.files import locked_folder
from opsd_lab.basics.interrupts import deferred_interrupts
from opsd_lab.contexts.views import needs_rollout
from opsd_lab.identity.parts import Parts, differences, parts_of
from opsd_lab.policies.products import choices
from opsd_lab.rollouts import save_rollouts
from opsd_lab.runs.alarms import Alarms, nothing_to_teach
from opsd_lab.runs.keep import Best, Keep, Stop
from opsd_lab.runs.lines import append_line, keep_lines, read_lines
from opsd_lab.runs.probe import Probe
from opsd_lab.runs.run import PROBES, STEPS, Run
from opsd_lab.runs.trackers import numbers_of, started
from opsd_lab.tokens.files import save_table
from opsd_lab.tokens.table import TokenTable
from opsd_lab.training.checkpoints import experiment_parts, load_checkpoint, save_checkpoint
from opsd_lab.training.processes import from_all
from opsd_lab.training.records import Judged, StepRecord
from opsd_lab.training.trainer import Trainer


class Writer:
    """Trains into a folder, see `runs.keeping.train`.

    A step's rollouts and tokens are written first, then its line, then what was measured at it, then its checkpoint. So a checkpoint
    has all that belongs to it, and what has no checkpoint yet is taken again. `run` is the folder; `trainer`, `keep`, `probe`,
    `stop`, `alarms`, `about` and `trackers` are those of `train`.
    """

    def __init__(
        self,
        run: Run,
        trainer: Trainer,
        keep: Keep,
        probe: Probe | None,
        stop: Stop | None,
        alarms: Alarms,
        about: Mapping[str, Any],
        trackers: Sequence[str] = (),
    ) -> None:
        self._run, self._trainer, self._keep, self._probe, self._stop = run, trainer, keep, probe, stop
        self._alarms, self._about, self._named = alarms, about, trackers
        self._trackers: list[GeneralTracker] = []
        self._best = Best(keep.best, keep.smaller_is_better)
        self._until = Best(stop.metric, stop.smaller_is_better) if stop else None
        self._writes = trainer.processes.is_main_process
        self._experiment: Parts = {}
        self._saved = 0  # the step of the last checkpoint
        self._warned_of_metrics = False
        self._row: dict[str, Any] | None = None  # that of a step whose measuring and checkpoint may be left

    def train(self, steps: int, progress: bool) -> Iterator[StepRecord]:
        """Take what is left of the steps, yielding their records."""
        self._run.folder.mkdir(parents=True, exist_ok=True)
        with locked_folder(self._run.folder) if self._writes else nullcontext():
            self._begin()
            ended = "interrupted"
            try:
                self._trackers = started(self._named, self._run.folder) if self._writes else []
                over = self._finish_step()
                with closing(self._trainer.train(max(0, steps - self._trainer.step), progress=progress)) as taken:
                    while not over:
                        with deferred_interrupts():
                            if (record := next(taken, None)) is None:
                                break
                            with deferred_interrupts(points=False):  # what is taken is on the disk before Ctrl-C comes through
                                self._write(record)
                            over = self._finish_step()
                        yield record
                ended = "stopped early" if over and self._trainer.step < steps else "finished"
            except Exception as error:
                ended = f"failed: {type(error).__name__}: {error}"
                raise
            finally:
                self._end(ended)

    def _begin(self) -> None:
        """Find the folder empty, or the same run in it, and put the trainer where that run can be gone on with."""
        run, trainer = self._run, self._trainer
        self._experiment = experiment_parts(trainer)
        whole = self._experiment | parts_of("probe", self._probe)
        if not (run.folder / "run.json").exists():
            if left := sorted(path.name for path in run.folder.iterdir() if not path.name.startswith(".")):
                raise ValueError(f"{run.folder} is not empty and holds no run ({', '.join(left[:3])}); name another folder")
        elif other := differences(run.about["experiment"], whole):
            raise ValueError(f"{run.folder} holds another run: {other}; name another folder, or delete this one")
        if self._probe is not None:
            self._probe.check(trainer)
        from_all(None)  # every process has looked before the first one writes
        if self._writes and not (run.folder / "run.json").exists():
            run.write_about({**self._about, **described(trainer), "keep": vars(self._keep), "experiment": whole})
            run.tell("started", "", 0)
            if told := nothing_to_teach(trainer):
                self._warn(told)
        elif self._writes:
            self._forget()
            run.write_about({**run.about, **self._about, "keep": vars(self._keep)})
        from_all(None)
        if not self._writes and (saved := list(run.kept("checkpoints"))):
            self._loads(saved[-1])
        if trainer.step != (self._saved if self._writes else trainer.step):
            raise ValueError(
                f"the trainer has taken {trainer.step} steps, and {run.folder} has no checkpoint to go back to; build it anew"
            )

    def _forget(self) -> None:
        """Go back to the last step that has a whole checkpoint, line and measurement, and forget what came after it."""
        run = self._run
        (rows, wrong), (measured, also_wrong) = (read_lines(run.folder / name) for name in (STEPS, PROBES))
        for told in filter(None, (wrong, also_wrong)):
            self._warn(f"{told}; what follows it is taken again")
        later = {row["step"]: row for row in measured}
        lacking = [row["step"] for row in rows if self._is_due(row["step"]) and row["step"] not in later]
        whole_until = min([len(rows), *lacking[:1]])
        saved = [step for step in run.kept("checkpoints") if step <= whole_until]
        step = next((step for step in reversed(saved) if self._loads(step)), 0)
        if not step and any(number > whole_until for number in run.kept("checkpoints")):
            raise ValueError(
                f"{run.folder} has checkpoints, but {STEPS} and {PROBES} are whole up to step {whole_until} only; put them back, or "
                "delete the folder to begin anew"
            )
        keep_lines(run.folder / STEPS, step)
        keep_lines(run.folder / PROBES, sum(row["step"] <= step for row in measured))
        for what in ("rollouts", "tokens", "checkpoints"):
            for number, path in run.kept(what).items():
                if number > step:
                    path.unlink()
        for row in rows[:step]:
            if row["step"] in lacking:  # the last one, at whose measuring the run ended
                self._row = row
            else:
                self._judge(row | later.get(row["step"], {}))
        self._saved = step
        self._thin_out()  # the run may have ended between writing a checkpoint and removing one
        again = f"; {len(rows) - step} steps are taken again" if len(rows) > step else ""
        run.tell("resumed", f"from step {step}{again}", step)

    def _loads(self, step: int) -> bool:
        try:
            load_checkpoint(self._trainer, self._run.path("checkpoints", step), self._experiment)
        except ValueError as error:
            self._warn(f"{error}; the one before it is used")
            return False
        return True

    def _write(self, record: StepRecord) -> None:
        """Put a step on the disk: its files first, then its line."""
        step, keep = record.step, self._keep
        rollouts, tokens = (every and step % every == 0 for every in (keep.rollouts_every, keep.tokens_every))
        found = from_all((record.drawn, among_all(record) if tokens else None))
        self._row = record.as_row()
        if not self._writes:
            return
        drawn = [part for part, _ in found]
        if rollouts:
            save_rollouts([rollout for part in drawn for rollout in part.rollouts], self._run.path("rollouts", step))
        if tokens:
            save_table(one_table(drawn, [table for _, table in found]), self._run.path("tokens", step))
        if drawn[0].rewards is not None:
            self._row |= {"rewards": [reward for part in drawn for reward in part.rewards]}
            self._row |= {"weights": [weight for part in drawn for weight in part.weights]}
        append_line(self._run.folder / STEPS, self._row)

    def _finish_step(self) -> bool:
        """Measure a step that is on the disk, judge it, and write the checkpoint that is due; return whether the run is over."""
        if self._row is not None and self._writes:
            row, step = self._row, self._row["step"]
            if self._is_due(step):
                self._trainer.bring_sampler_up()
            measured = self._probe.measure(self._trainer) if self._is_due(step) else {}
            with deferred_interrupts(points=False):
                if measured:
                    append_line(self._run.folder / PROBES, {"step": step, **measured})
                told, best = self._judge(row | measured)
                for text in told:
                    self._warn(text)
                self._check_metrics(row | measured)
                for tracker in self._trackers:
                    tracker.log(numbers_of(row | measured), step=step)
                if best or step % self._keep.checkpoint_every == 0:
                    self._save()
                self._row = None
        over = self._until is not None and self._until.age >= self._stop.patience
        return from_all(over)[0]

    def _check_metrics(self, row: Mapping[str, Any]) -> None:
        """Warn once of a metric to keep or to stop by that a step with all its numbers does not have."""
        if self._probe is not None and not self._is_due(row["step"]):
            return
        asked = {"keep.best": self._keep.best, "stop.metric": self._stop and self._stop.metric}
        for where, name in asked.items():
            if name is not None and name not in row and not self._warned_of_metrics:
                known = ", ".join(key for key, value in row.items() if isinstance(value, int | float))
                self._warn(f"{where} is {name!r}, which no step has; there are {known}")
        self._warned_of_metrics = True

    def _is_due(self, step: int) -> bool:
        return self._probe is not None and self._probe.is_due(step)

    def _judge(self, row: Mapping[str, Any]) -> tuple[list[str], bool]:
        """Return what is newly wrong at a step, and whether it is the best so far."""
        if self._until is not None:
            self._until.see(row)
        return self._alarms.look(row), self._best.see(row)

    def _save(self) -> None:
        step = self._trainer.step
        save_checkpoint(self._trainer, self._run.path("checkpoints", step), self._experiment)
        self._saved = step
        self._thin_out()

    def _thin_out(self) -> None:
        """Remove the checkpoints that need not stay."""
        kept = self._run.kept("checkpoints")
        for number in list(kept)[: -self._keep.checkpoints]:
            if number != self._best.step:
                kept[number].unlink()

    def _end(self, ended: str) -> None:
        """Write a checkpoint of the last step, unless there is one, and tell what ended the run."""
        step = self._trainer.step
        # What ended the run is raised, not what follows from it; a run that came to its end has nothing else to raise.
        with deferred_interrupts(points=False), nullcontext() if ended == "finished" else suppress(OSError):
            if self._writes and step > self._saved and len(read_lines(self._run.folder / STEPS)[0]) == step:
                self._save()
            if self._writes:
                self._run.write_about({**self._run.about, "products": choices()})
                kind, _, text = ended.partition(": ")
                self._run.tell(kind, text, step)
            for tracker in self._trackers:
                tracker.finish()

    def _warn(self, text: str) -> None:
        warnings.warn(text, stacklevel=2)
        if self._writes:
            self._run.tell("warning", text, self._trainer.step)


def described(trainer: Trainer) -> dict[str, Any]:
    """Return what `run.json` says of a trainer beside what it depends on: the machine, and both prompts of the first problem."""
    contexts, problem = trainer.at(1).contexts, trainer.problems[0]
    known = {name: view for name, view in contexts.views.items() if not needs_rollout(view)}
    shown = {n: contexts.text(problem, "teacher", n) for n in known if trainer.prompts[0].teachers[n] is not None}
    prompts = {"problem": problem.id, "student": contexts.text(problem, "student"), "teachers": shown}
    cuda = torch.cuda.get_device_name() if trainer.policy.device.type == "cuda" else None
    machine = {"system": platform.platform(), "processor": platform.machine(), "cores": cpu_count(), "accelerator": cuda}
    return {"machine": machine, "problems": len(trainer.problems), "prompts": prompts}


def among_all(record: StepRecord) -> TokenTable:
    """Return a step's token table with its rollouts numbered as `record.drawn` numbers them."""
    places, last = [], -1
    for rollout in record.rollouts:  # those that were learnt from, in the order of all
        last = next(i for i in range(last + 1, len(record.drawn.rollouts)) if record.drawn.rollouts[i] is rollout)
        places.append(last)
    frame = record.table.frame
    return TokenTable(frame.assign(rollout=frame["rollout"].map(dict(enumerate(places)))), record.table.top)


def one_table(drawn: list[Judged], tables: list[TokenTable]) -> TokenTable:
    """Return the tables of all processes as one, each numbered on behind the rollouts of those before it."""
    if len(tables) == 1:
        return tables[0]
    starts = [sum(len(part.rollouts) for part in drawn[:i]) for i in range(len(drawn))]
    moved = [TokenTable(t.frame.assign(rollout=t.frame["rollout"] + start), t.top) for t, start in zip(tables, starts, strict=True)]
    joined = TokenTable.concatenate(moved)
    numbers = [number for table in moved for number in table.frame["rollout"]]
    return TokenTable(joined.frame.assign(rollout=numbers), joined.top)
