"""What a notebook shows, read back from its committed outputs: a cell is found by a tag in its metadata."""

import ast
import json
import re
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

LABEL = re.compile(r"(.*?)<br>[-−\d.]+ \[")  # what stands before the estimate in a row's hover text
REMEDY = "run the notebook and save it with its outputs"


class Estimate(NamedTuple):
    """A mean with the bounds of its interval."""

    mean: float
    low: float
    high: float


def parameter(notebook: Path, name: str) -> object:
    """Return the value that the notebook's parameters cell gives to a name.

    Raises:
        ValueError: when it gives it none.
    """
    source = next("".join(cell["source"]) for cell in _cells(notebook) if cell["cell_type"] == "code")
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == name:
            return ast.literal_eval(statement.value)
    raise ValueError(f"{notebook}: the first code cell, that of the parameters, does not set {name}")


def printed(notebook: Path, tag: str) -> str:
    """Return what the tagged cell printed.

    Raises:
        ValueError: when there is not one such cell, or it printed nothing; it names notebook and tag.
    """
    texts = ["".join(output["text"]) for output in _outputs(notebook, tag) if output["output_type"] == "stream"]
    if not texts:
        raise ValueError(f"{notebook}: the cell with the tag {tag!r} printed nothing; {REMEDY}")
    return texts[0].strip()


def rows(notebook: Path, tag: str) -> list[dict[str, str]]:
    """Return the rows of the DataFrame that the tagged cell shows, each by the names of index and columns.

    Raises:
        ValueError: when there is not one such cell, or it shows no DataFrame; it names notebook and tag.
    """
    pages = ["".join(output["data"]["text/html"]) for output in _outputs(notebook, tag) if "text/html" in output.get("data", {})]
    table = re.search(r"<table.*?</table>", pages[0], re.DOTALL) if pages else None
    if table is None:
        raise ValueError(f"{notebook}: the cell with the tag {tag!r} shows no table; {REMEDY}")
    whole = ElementTree.fromstring(table[0])
    head, lines = ([[cell.text or "" for cell in line] for line in whole.find(part)] for part in ("thead", "tbody"))
    names = ["".join(column) for column in zip(*head, strict=True)]  # the index's name stands in a line of its own
    return [dict(zip(names, line, strict=True)) for line in lines]


def intervals(notebook: Path, tag: str) -> dict[tuple[str, ...], Estimate]:
    """Return the estimates that `draw_intervals` drew in the tagged cell, by the parts of each row's label.

    Raises:
        ValueError: when there is not one such cell, or it shows no such figure; it names notebook and tag.
    """
    kind, labels, found = "application/vnd.plotly.v1+json", {}, {}
    figures = [output["data"][kind] for output in _outputs(notebook, tag) if kind in output.get("data", {})]
    for trace in (trace for figure in figures[:1] for trace in figure["data"]):
        if "customdata" in trace:
            labels |= {y: LABEL.match(text)[1].replace("<br>", " ") for y, text in zip(trace["y"], trace["customdata"], strict=True)}
        if "error_x" in trace:
            sides = (trace[name] if name == "x" else trace["error_x"][name] for name in ("x", "arrayminus", "array"))
            found |= {y: Estimate(x, x - less, x + more) for y, x, less, more in zip(trace["y"], *sides, strict=True)}
    if not found:
        raise ValueError(f"{notebook}: the cell with the tag {tag!r} shows no figure of intervals; {REMEDY}")
    return {tuple(label.split(" · ")): found[y] for y, label in labels.items()}


def _cells(notebook: Path) -> list[dict]:
    return json.loads(notebook.read_text(encoding="utf-8"))["cells"]


def _outputs(notebook: Path, tag: str) -> list[dict]:
    cells = [cell for cell in _cells(notebook) if tag in cell["metadata"].get("tags", ())]
    if len(cells) != 1:
        raise ValueError(f"{notebook}: {len(cells)} cells have the tag {tag!r}; give it to the one whose output is wanted")
    return cells[0]["outputs"]
