"""What makes this project's own evidence: the walkthrough without a browser, studies, and the tables and pages that stand on them."""

import json
import os
import re
import time
from functools import partial
from pathlib import Path

import pandas as pd

from opsd_lab.basics.files import write_whole
from opsd_lab.diagnostics.first_wrong_step import SIGNALS, first_wrong_step
from opsd_lab.experiments import NOTEBOOKS, RESULTS
from opsd_lab.experiments.catalogue import STUDIES
from opsd_lab.experiments.clip_study import clip_table
from opsd_lab.experiments.results_page import results_page
from opsd_lab.experiments.study_tables import seeds_table
from opsd_lab.grading import Grader
from opsd_lab.methods.page import methods_page
from opsd_lab.policies.policy import load_policy
from opsd_lab.rollouts import SamplingParams
from opsd_lab.studies.results import failures
from opsd_lab.studies.study import COLUMNS, run_study

PHASES = ("setup", "generate", "score", "train", "evaluate")
NOTEBOOK = NOTEBOOKS / "01_opsd_walkthrough.ipynb"


def walkthrough(out: Path = Path("build"), setup_seconds: float = 0.0) -> None:
    """Execute notebook 01; write walkthrough.html and walkthrough.json into a folder and print a summary.

    Args:
        out: the folder to write to.
        setup_seconds: how long the set-up before this command took, for the report.
    """
    try:
        import nbformat
        from nbclient import NotebookClient

        from opsd_lab.figures.export import drop_widgets, export_html
    except ImportError as error:
        raise ImportError(f"{error}; the walkthrough needs `pip install 'opsd-lab[notebooks]'`") from None

    started = time.time()
    out.mkdir(parents=True, exist_ok=True)
    report_path, executed = out / "walkthrough.json", out / NOTEBOOK.name
    report_path.unlink(missing_ok=True)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    print(f"Executing {NOTEBOOK.name}, about 8 minutes on two cores ...", flush=True)
    os.environ["OPSD_LAB_OUT"] = str(out.resolve())  # the kernel inherits it
    client = NotebookClient(notebook, timeout=3600, resources={"metadata": {"path": str(out.resolve())}})
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


def show(path: Path = RESULTS / "walkthrough.parquet") -> None:
    """Print a study's table in short: each arm's accuracy over its seeds, with 95 % intervals over problems.

    Args:
        path: a Parquet file that `study` wrote.
    """
    if not path.exists():
        shipped = ", ".join(sorted(file.name for file in RESULTS.glob("*.parquet")))
        raise FileNotFoundError(f"{path} is not there; `study` writes such a file, and {RESULTS} holds {shipped}")
    results = pd.read_parquet(path)
    if missing := COLUMNS.keys() - set(results):
        raise ValueError(f"{path} is no table of a study: it has no column {', '.join(sorted(missing))}")
    print(seeds_table(results))


def clip(out: Path = RESULTS / "clip.parquet") -> None:
    """Measure how a point-wise clip turns forward KL's gradient on SmolLM2's and the sandbox's rollouts; write and print the table.

    Args:
        out: the Parquet file.
    """
    rows = clip_table()
    write_whole(out, partial(rows.to_parquet, index=False, compression="zstd"))
    print(rows.round(3).to_string(index=False))


def methods(out: Path = Path("docs/methods.md")) -> None:
    """Write the page of the family's methods.

    Args:
        out: the Markdown file.
    """
    write_whole(out, methods_page())
    print(out)


def results(out: Path = Path("docs/results.md"), notebooks: Path = NOTEBOOKS) -> None:
    """Write the results page from the committed tables and the outputs of the notebooks.

    Args:
        out: the Markdown file to write.
        notebooks: the folder of the notebooks, whose outputs hold what no table does.
    """
    write_whole(out, results_page(notebooks))


def champ(
    model: str = "smollm2-135m-instruct",
    out: Path | None = None,
    problems: int | None = None,
    compared: int = 60,
    parts: Path = Path("build/champ"),
) -> None:
    """Score CHAMP's annotated solutions under the reference and another problem's, and those of some problems under every view.

    Writes the means of each step, and prints how well they find the first wrong one. The extra `champ` brings the data. Interrupted,
    the same command goes on where it stopped.

    Args:
        model: a hub id, a folder, a GGUF file, or a packaged model.
        out: the Parquet file to write; it holds numbers and no text of the solutions. Left out, build/champ_MODEL.parquet.
        problems: of how many problems, drawn with a seed, both solutions are scored; left out, of all 270.
        compared: for how many problems all views are compared.
        parts: the folder for finished parts of the scoring.
    """
    from opsd_lab.experiments.champ_study import champ_views, score_solutions, step_rows, with_all_views
    from opsd_lab.problems.champ import champ_problems, champ_solutions

    policy, every, solutions = load_policy(model), champ_problems(), champ_solutions()
    name, views, found = file_name(model), champ_views(every), []
    both = {name: views[name] for name in ("reference", "other problem")}
    chosen = every if problems is None else with_all_views(every, problems)
    for scope, some, shown in (("all", chosen, both), ("compared", with_all_views(every, compared) if compared else [], views)):
        if not some:
            continue
        started = time.time()
        tables = score_solutions(policy, some, solutions, shown, parts=parts / name / scope)
        tokens = len(tables["reference"])
        print(f"{scope}: {len(some)} problems, {len(shown)} views, {tokens:,} tokens, {time.time() - started:.0f} s", flush=True)
        found.append(step_rows(tables, some, solutions).assign(scope=scope))
    rows = pd.concat(found, ignore_index=True)
    rows[list(SIGNALS)] = rows[list(SIGNALS)].astype("float32")
    path = out or Path("build") / f"champ_{name}.parquet"
    write_whole(path, partial(rows.assign(model=model).to_parquet, index=False, compression="zstd"))
    for view, of in rows[rows["scope"] == "all"].groupby("view", sort=False):
        print(view, first_wrong_step(of.reset_index(drop=True)).round(3).to_string(index=False), sep="\n")


def file_name(model: str) -> str:
    """Return a model's name as a part of a file's."""
    return re.sub(r"[^\w.-]+", "_", model)


def premise(
    model: str = "smollm2-135m-instruct",
    out: Path | None = None,
    sets: tuple[str, ...] = (),
    count: int = 32,
    n: int = 4,
    max_new_tokens: int = 320,
    parts: Path = Path("build/premise"),
) -> None:
    """Measure how well a model answers the same problems under each privileged view; write every verdict and print the table.

    The extras `champ` and `reasoning-gym` bring the data. Interrupted, the same command goes on where it stopped.

    Args:
        model: a hub id, a folder, a GGUF file, or a packaged model.
        out: the Parquet file to write; it holds verdicts and no text. Left out, build/premise_MODEL.parquet.
        sets: of one_step, two_step, CHAMP and reasoning-gym's tasks; left out, all.
        count: how many problems of each set.
        n: answers for each problem under each view.
        max_new_tokens: how long an answer may be.
        parts: the folder for finished parts.
    """
    from opsd_lab.experiments.premise import SETS, Premise, measure_premise, premise_table

    name = file_name(model)
    wanted = Premise(sets or tuple(SETS), count, SamplingParams(max_new_tokens, temperature=0.7, n=n))
    with Grader() as grader:
        rows = measure_premise(load_policy(model), wanted, grader, parts / name).assign(model=model)
    path = out or Path("build") / f"premise_{name}.parquet"
    write_whole(path, partial(rows.to_parquet, index=False, compression="zstd"))
    print(premise_table(rows).drop(columns=["n", "unit", "note"]).round(2).to_string(index=False))


def sandbox(name: str = "student", out: Path | None = None) -> None:
    """Train a model of the sandbox from scratch and write it; about 10 minutes on one core for the student.

    Args:
        name: student or expert.
        out: the folder that holds the models; left out, that of this package.
    """
    from opsd_lab.sandbox import FOLDER, accuracies, make_sandbox

    policy = make_sandbox(name, out or FOLDER)
    print(accuracies(policy).to_string(index=False))


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
        name: a study of `opsd_lab.experiments.catalogue.STUDIES`; a name that is none of them is answered with the list.
        out: the Parquet file to write.
        cells: the folder of the finished cells; left out, build/cells/NAME.
        seeds: the seeds of every arm.
        arms: the arms to run; left out, all.
        workers: how many cells run at once, each with its share of the cores.
    """
    if name not in STUDIES:
        raise ValueError(f"no study {name!r}; there are {', '.join(STUDIES)}")
    results = run_study(STUDIES[name], seeds, cells or Path("build/cells") / name, arms=arms or None, workers=workers)
    write_whole(out, partial(results.to_parquet, index=False, compression="zstd"))
    print(seeds_table(results))
    if len(failed := failures(results)):
        print(failed.to_string(index=False))
