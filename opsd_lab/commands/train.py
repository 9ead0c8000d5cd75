"""`train`: from a recipe file to a run on disk, or to a look at what that would be."""

import sys
import warnings
from pathlib import Path
from typing import Annotated

from tqdm.auto import tqdm
from tyro.conf import Positional, arg

from opsd_lab.basics.files import write_whole
from opsd_lab.commands.dry_run import described_run
from opsd_lab.commands.memory import check_memory
from opsd_lab.grading import Grader
from opsd_lab.methods.recipe_files import recipe_text
from opsd_lab.runs import Run
from opsd_lab.runs import train as train_run
from opsd_lab.runs.building import build
from opsd_lab.runs.plan import Plan, plan_from_toml, plan_to_toml


def train(
    recipe: Positional[Path],
    changes: Annotated[Positional[tuple[str, ...]], arg(metavar="KEY=VALUE")] = (),
    *,
    out: Path,
    dry_run: bool = False,
) -> None:
    """Train as a recipe file says, into a folder; the same command goes on with a run that was cut off.

    Args:
        recipe: a TOML file, or the name of one that ships: smollm2, walkthrough, sandbox, qwen3-1.7b, qwen3-4b, qwen3-8b.
        changes: values in the place of the file's, such as training.learning_rate=1e-4 recipe.method=tip.
        out: the run's folder.
        dry_run: only print the whole recipe, both prompts of a problem, and what the run would need.
    """
    plan = read_plan(recipe, changes)
    if not dry_run:
        check_writable(out)
    check_memory(plan)
    with Grader() as grader:
        built = build(plan, grader)
        for report in built.reports:
            print(report, flush=True)
        if dry_run:
            print(described_run(plan, built))
            return
        about = {"plan": plan_to_toml(plan), "recipe": recipe_text(plan.recipe), "data": [str(report) for report in built.reports]}
        run = Run(out)
        try:
            kept = {"keep": plan.keep, "probe": built.probe, "stop": plan.stop, "trackers": plan.trackers}
            steps = train_run(out, built.trainer, plan.steps, **kept, about=about)
            with warnings.catch_warnings():
                warnings.showwarning = _one_line
                for record in steps:
                    _tell(run, record.step)
        except KeyboardInterrupt:
            print(f"interrupted after step {len(run.steps)}; the same command goes on", file=sys.stderr)
            raise SystemExit(130) from None
    print(summary(run, plan))


def read_plan(recipe: Path, changes: tuple[str, ...] = ()) -> Plan:
    """Return the plan in a file, or in one that ships, with changes.

    Raises:
        FileNotFoundError: when there is no such file; it names those that ship.
        TypeError, ValueError: as `plan_from_toml` does.
    """
    shipped = Path(__file__).parent / "recipes"
    path = recipe if recipe.is_file() else shipped / f"{recipe}.toml"
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in shipped.glob("*.toml")))
        raise FileNotFoundError(f"there is no recipe file {recipe}; those that ship are {names}")
    try:
        return plan_from_toml(path.read_text(encoding="utf-8"), changes)
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no TOML: it is not UTF-8 text") from None
    except (TypeError, ValueError) as error:
        raise (TypeError if isinstance(error, TypeError) else ValueError)(f"{path}: {error}") from None


def check_writable(folder: Path) -> None:
    """Make sure, before anything is loaded, that a folder can be written to.

    Raises:
        OSError: when it cannot; it names the folder and the remedy.
    """
    probe = folder / ".writable"
    write_whole(probe, "")
    probe.unlink()


def _tell(run: Run, step: int) -> None:
    measured = run.measured.get(step)
    if measured:
        said = [f"{name.replace('_', ' ')} {measured[name]:.0%}" for name in measured if name.endswith("accuracy")]
        tqdm.write(f"step {step}: {', '.join(said)}")


def _one_line(message: Warning | str, category: type, *place: object) -> None:
    tqdm.write(f"warning: {message}", file=sys.stderr)


def summary(run: Run, plan: Plan) -> str:
    """Return what a run came to, in a few lines."""
    steps, measured = run.steps, run.measured
    last = steps.iloc[-1]
    lines = [f"{len(steps)} steps in {run.folder}: loss {last['loss']:.4g}, {last['tokens_generated']:,.0f} tokens written"]
    known = [row["accuracy"] for row in measured.values()]
    if known:
        held = plan.data.validation or f"{min(plan.data.held_out, plan.probe.problems)} problems that were held out"
        lines.append(f"accuracy on {held}: {known[0]:.0%} at the first measurement, {known[-1]:.0%} at the last")
    lines.append(f"next: opsd-lab watch {run.folder}, opsd-lab export {run.folder} --out DIR")
    return "\n".join(lines)
