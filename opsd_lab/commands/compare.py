"""`compare`: runs side by side: what differs between them, what they cost, and what they came to."""

from pathlib import Path

import pandas as pd
from tyro.conf import Positional

from opsd_lab.experiments.study_tables import markdown
from opsd_lab.runs import Run


def compare(runs: Positional[tuple[Path, ...]], *, out: Path | None = None) -> None:
    """Print what runs differ in, what they cost and what was measured; accuracies with 95 % intervals over problems.

    Args:
        runs: the runs' folders; the first is what the others are compared with.
        out: a Parquet file for all their steps, a row each; left out, none is written.
    """
    found = [Run.open(folder) for folder in runs]
    if len(found) < 2:
        raise ValueError("compare takes two runs or more; `watch` shows one")
    print(differing(found))
    print()
    print(ended(found))
    if out is not None:
        joined = pd.concat([run.steps.assign(run=str(run.folder)) for run in found], ignore_index=True)
        joined.to_parquet(out, index=False)
        print(f"\n{len(joined)} steps in {out}")


def differing(runs: list[Run]) -> str:
    """Return a table of what the runs' settings differ in."""
    parts = [run.about["experiment"] for run in runs]
    names = [name for name in dict.fromkeys(name for part in parts for name in part) if len({p.get(name) for p in parts}) > 1]
    if not names:
        return "The runs depend on the same; they differ in how far they are."
    rows = [[name, *(_shown(part.get(name)) for part in parts)] for name in names]
    return markdown(["what differs", *(str(run.folder) for run in runs)], rows)


def ended(runs: list[Run]) -> str:
    """Return a table of how far the runs are, what they cost, and what was measured last."""
    rows = []
    for run in runs:
        steps, measured = run.steps, run.measured
        if steps.empty:
            rows.append([run.folder, 0, *[""] * 5])
            continue
        last, (at, row) = steps.iloc[-1], max(measured.items(), default=(0, {}))
        flops = sum(last[name] for name in steps if name.startswith("flops_"))
        accuracies = [_accuracy(row, name) for name in ("accuracy", "teacher_accuracy")]
        rows.append([run.folder, len(steps), f"{last['loss']:.4g}", f"{last['tokens_generated']:,.0f}", f"{flops:.3g}"])
        rows[-1] += [f"{text} at step {at}" if text else "" for text in accuracies]
    return markdown(["run", "steps", "loss", "tokens written", "operations", "accuracy", "the teacher's accuracy"], rows)


def _accuracy(row: dict[str, float], name: str) -> str:
    return f"{row[name]:.2f} [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]" if name in row else ""


def _shown(text: str | None) -> str:
    if text is None:
        return "nothing"
    name, mark, digits = text.partition("#")
    return f"{name or 'content'} {digits[:6]}" if mark else text
