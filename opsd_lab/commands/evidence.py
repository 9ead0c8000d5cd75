"""What makes this project's own evidence: the walkthrough without a browser, studies, and the tables and pages that stand on them."""

import json
import os
import time
from functools import partial
from pathlib import Path

import pandas as pd

from opsd_lab.basics.files import write_whole
from opsd_lab.experiments import NOTEBOOKS, RESULTS
from opsd_lab.experiments.catalogue import STUDIES
from opsd_lab.experiments.results_page import results_page
from opsd_lab.experiments.study_tables import seeds_table
from opsd_lab.methods.page import methods_page
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
    print(f"Executing {NOTEBOOK.name}, about a quarter of an hour on two cores ...", flush=True)
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
        out: the Parquet file to write; where it is there already, its cells that would come out the same are kept.
        cells: the folder of the finished cells; left out, build/cells/NAME.
        seeds: the seeds of every arm.
        arms: the arms to run; left out, all.
        workers: how many cells run at once, each with its share of the cores.
    """
    if name not in STUDIES:
        raise ValueError(f"no study {name!r}; there are {', '.join(STUDIES)}")
    finished = pd.read_parquet(out) if out.exists() else None
    folder = cells or Path("build/cells") / name
    results = run_study(STUDIES[name], seeds, folder, arms=arms or None, finished=finished, workers=workers)
    write_whole(out, partial(results.to_parquet, index=False, compression="zstd"))
    print(seeds_table(results))
    if len(failed := failures(results)):
        print(failed.to_string(index=False))
