"""The command line: the walkthrough without a browser, and the same experiment over several seeds."""

import json
import os
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from tyro.extras import SubcommandApp

from opsd_lab.basics.files import write_whole
from opsd_lab.diagnostics.first_wrong_step import SIGNALS, first_wrong_step
from opsd_lab.evaluation.evaluate import Evaluation
from opsd_lab.evaluation.statistics import mean_interval
from opsd_lab.experiments import RESULTS
from opsd_lab.experiments.walkthrough import (
    Settings,
    build_trainer,
    control_view,
    evaluate_greedily,
    held_out_problems,
    reference_view,
)
from opsd_lab.policies.policy import load_policy

app = SubcommandApp()
PHASES = ("setup", "generate", "score", "train", "evaluate")
NOTEBOOK = Path("notebooks/01_opsd_walkthrough.ipynb")


@app.command
def walkthrough(out: Path = Path("build"), setup_seconds: float = 0.0) -> None:
    """Execute notebook 01; write walkthrough.html and walkthrough.json into a folder and print a summary.

    Args:
        out: the folder to write to.
        setup_seconds: how long the set-up before this command took, for the report.
    """
    import nbformat
    from nbclient import NotebookClient

    from opsd_lab.figures.export import drop_widgets, export_html

    started = time.time()
    out.mkdir(parents=True, exist_ok=True)
    report_path, executed = out / "walkthrough.json", out / NOTEBOOK.name
    report_path.unlink(missing_ok=True)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    print(f"Executing {NOTEBOOK}, about 8 minutes on two cores ...", flush=True)
    os.environ["OPSD_LAB_OUT"] = str(out.resolve())  # the kernel inherits it
    client = NotebookClient(notebook, timeout=3600, resources={"metadata": {"path": str(NOTEBOOK.parent)}})
    client.on_cell_start = lambda cell, cell_index: _announce(cell, started)
    try:
        client.execute()
    finally:
        drop_widgets(notebook)
        write_whole(executed, nbformat.writes(notebook) + "\n")
    export_html(executed, out / "walkthrough.html")
    report = json.loads(report_path.read_text())
    report["seconds"] |= {"setup": round(setup_seconds, 1), "total": round(setup_seconds + time.time() - started, 1)}
    write_whole(report_path, json.dumps(report, indent=1) + "\n")
    print(summary(report, (out / "walkthrough.html").resolve()))


def _announce(cell: dict, started: float) -> None:
    for line in cell["source"].splitlines() if cell["cell_type"] == "markdown" else ():
        if line.startswith("## "):
            print(f"  {time.time() - started:4.0f} s  {line[3:]}", flush=True)


def summary(report: dict, page: Path) -> str:
    """Return the five lines that `make walkthrough` ends with."""

    def shown(name: str) -> str:
        value = report["accuracy"][name]
        return f"{value['mean']:.0%} [{value['low']:.0%}, {value['high']:.0%}]"

    seconds, tokens = report["seconds"], report["tokens"]
    return "\n".join(
        [
            f"{report['model']}, seed {report['seed']}: accuracy on {report['n']} held-out problems, 95 % intervals",
            f"  before {shown('before')}   OPSD {shown('after')}   control {shown('control')}",
            f"  {seconds['total']:.0f} s: " + ", ".join(f"{phase} {seconds[phase]:.0f}" for phase in PHASES),
            f"  {tokens['generated']:,} tokens generated, {tokens['trained']:,} trained on; "
            f"peak memory {report['peak_memory_gib']} GiB",
            f"Open {page}",
        ]
    )


@app.command
def seeds(out: Path = RESULTS / "walkthrough_seeds.json", seeds: tuple[int, ...] = (0, 1, 2)) -> None:
    """Train OPSD and its control for several seeds and write every accuracy; finished runs are not repeated.

    Args:
        out: the JSON file to write, and to go on from.
        seeds: the seeds to run.
    """
    settings = Settings()
    results = (
        json.loads(out.read_text())
        if out.exists()
        else {"settings": asdict(settings), "problem_ids": [p.id for p in held_out_problems()], "correct": {}}
    )
    if results["settings"] != json.loads(json.dumps(asdict(settings), default=str)):
        raise SystemExit(f"{out} was written with other settings; delete it to start again")
    for seed in seeds:
        for arm, view in (("OPSD", reference_view()), ("control", control_view())):
            if f"{arm} {seed}" in results["correct"]:
                continue
            trainer = build_trainer(replace(settings, seed=seed), view)
            if "base" not in results["correct"]:  # the base model does not depend on the seed
                _keep(results, "base", evaluate_greedily(trainer.policy, settings, "base"))
            for _ in trainer.train(settings.steps):
                pass
            _keep(results, f"{arm} {seed}", evaluate_greedily(trainer.policy, settings, arm))
            write_whole(out, json.dumps(results, indent=1) + "\n")
    print(table(results))


def _keep(results: dict, name: str, evaluation: Evaluation) -> None:
    results["correct"][name] = {
        **{by: "".join(map(str, evaluation.correct(by)[:, 0].astype(int))) for by in ("last_number", "boxed")},
        "truncated": evaluation.truncation_rate,
    }
    print(f"{name}: last number {evaluation.accuracy('last_number')}, boxed {evaluation.accuracy('boxed')}", flush=True)


def table(results: dict) -> str:
    """Return the table of a results file as Markdown: per arm the mean over seeds, its interval, and each seed's accuracy.

    The interval is that over problems of the seeds' mean (`mean_interval`), which leaves the spread between seeds to the last column.
    """
    lines = ["| arm | last number, mean [95 % interval] | boxed | last number by seed |", "|---|---|---|---|"]
    for arm in ("base", "OPSD", "control"):
        runs = [run for name, run in results["correct"].items() if name.split()[0] == arm]
        correct = {by: np.array([[int(c) for c in run[by]] for run in runs]) for by in ("last_number", "boxed")}
        cells = {by: mean_interval(values.mean(axis=0), values.size) for by, values in correct.items()}
        each = ", ".join(f"{row.mean():.3f}" for row in correct["last_number"])
        shown = [f"{c.mean:.3f} [{c.low:.3f}, {c.high:.3f}]" for c in cells.values()]
        lines.append(f"| {arm} | {shown[0]} | {shown[1]} | {each} |")
    return "\n".join(lines)


@app.command
def show(path: Path = RESULTS / "walkthrough_seeds.json") -> None:
    """Print the table of a results file.

    Args:
        path: the file that `seeds` wrote.
    """
    print(table(json.loads(path.read_text())))


@app.command
def champ(
    out: Path = RESULTS / "champ_steps.parquet",
    model: str = "smollm2-135m-instruct",
    compared: int = 60,
    parts: Path = Path("build/champ"),
) -> None:
    """Score CHAMP's 540 annotated solutions under the reference, and those of some problems under every view; write step means.

    The extra `champ` brings the data. Interrupted, the same command goes on where it stopped.

    Args:
        out: the Parquet file to write; it holds numbers and no text of the solutions.
        model: a hub id, a folder, or the embedded model.
        compared: for how many problems all views are compared.
        parts: the folder for finished parts of the scoring.
    """
    from opsd_lab.experiments.champ_study import champ_views, score_solutions, step_rows, with_all_views
    from opsd_lab.problems.champ import champ_problems, champ_solutions

    policy, problems, solutions = load_policy(model), champ_problems(), champ_solutions()
    views, found = champ_views(problems), []
    drawn = with_all_views(problems, compared)
    for scope, chosen, shown in (("all", problems, {"reference": views["reference"]}), ("compared", drawn, views)):
        started = time.time()
        tables = score_solutions(policy, chosen, solutions, shown, parts=parts / scope)
        tokens = len(tables["reference"])
        print(f"{scope}: {len(chosen)} problems, {len(shown)} views, {tokens:,} tokens, {time.time() - started:.0f} s", flush=True)
        found.append(step_rows(tables, chosen, solutions).assign(scope=scope))
    rows = pd.concat(found, ignore_index=True)
    rows[list(SIGNALS)] = rows[list(SIGNALS)].astype("float32")
    write_whole(out, partial(rows.assign(model=model).to_parquet, index=False, compression="zstd"))
    print(first_wrong_step(rows[rows["scope"] == "all"]).round(3).to_string(index=False))


@app.command
def sandbox(name: str = "student", out: Path | None = None) -> None:
    """Train a model of the sandbox from scratch and write it; about 10 minutes on one core for the student.

    Args:
        name: student or expert.
        out: the folder that holds the models; left out, that of this package.
    """
    from opsd_lab.sandbox import FOLDER, accuracies, make_sandbox

    policy = make_sandbox(name, out or FOLDER)
    print(accuracies(policy).to_string(index=False))


@app.command
def study(
    name: str,
    out: Path,
    cells: Path | None = None,
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4),
    arms: tuple[str, ...] = (),
    workers: int = 1,
) -> None:
    """Run a study, arms x seeds, and write its table; finished cells are not repeated.

    Args:
        name: sandbox-baselines, sandbox-ablations, sandbox-search, smollm2 or smollm2-search.
        out: the Parquet file to write.
        cells: the folder of the finished cells; left out, build/cells/NAME.
        seeds: the seeds of every arm.
        arms: the arms to run; left out, all.
        workers: how many cells run at once, each with its share of the cores.
    """
    from opsd_lab.experiments.arms import STUDIES
    from opsd_lab.studies.results import failures, final_rows
    from opsd_lab.studies.study import run_study

    if name not in STUDIES:
        raise SystemExit(f"no study {name!r}; there are {', '.join(STUDIES)}")
    results = run_study(STUDIES[name], seeds, cells or Path("build/cells") / name, arms=arms or None, workers=workers)
    write_whole(out, partial(results.to_parquet, index=False, compression="zstd"))
    split = "validation" if name.endswith("search") else "test"
    print(final_rows(results, split).groupby("arm", sort=False)["accuracy"].agg(["mean", "min", "max", "count"]).round(3).to_string())
    if len(failed := failures(results)):
        print(failed.to_string(index=False))


if __name__ == "__main__":
    app.cli(prog="python -m opsd_lab", description=__doc__)
