"""How often the labels of arithmetic are right, on equations that people and models wrote."""

import json
from functools import cache
from pathlib import Path

import pytest

from opsd_lab.steps import arithmetic_steps

EQUATIONS = Path(__file__).parents[1] / "data" / "equations"


@cache
def labelled(name: str) -> tuple[tuple[dict, str], ...]:
    """Return each row with the label of the step that its equals sign lies in, "" where none was found."""
    rows = map(json.loads, (EQUATIONS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines())
    found = []
    for row in rows:
        steps = arithmetic_steps(row["line"])
        found.append((row, next((step.label for step in steps if step.start <= row["sign"] < step.end), "")))
    return tuple(found)


def test_the_sample_is_what_its_readme_says():
    marked, false = labelled("marked_equations"), labelled("false_equations")
    assert len(marked) == 4206 and all(row["true"] for row, _ in marked)
    assert sum(row["checked"] for row, _ in false) >= 200 and sum(row["origin"] == "written" for row, _ in false) == 167
    assert all(row["line"][row["sign"]] == "=" for row, _ in false)


def test_no_true_equation_of_a_worked_solution_is_called_incorrect():
    assert [row["line"] for row, label in labelled("marked_equations") if label == "incorrect"] == []


@pytest.mark.parametrize("half", [0, 1], ids=["tuned on", "held out"])
def test_at_least_nineteen_in_twenty_marked_equations_are_found_and_judged(half):
    labels = [label for row, label in labelled("marked_equations") if int(row["id"].split("-")[2]) % 2 == half]
    assert sum(label in ("correct", "incorrect") for label in labels) / len(labels) >= 0.95


def test_of_a_hundred_labels_correct_and_incorrect_hardly_one_is_wrong():
    true, false = ([label for _, label in labelled(name)] for name in ("marked_equations", "false_equations"))
    assert true.count("correct") / (true.count("correct") + false.count("correct")) >= 0.999
    assert false.count("incorrect") / (true.count("incorrect") + false.count("incorrect")) >= 0.99


def test_most_false_equations_are_called_incorrect():
    labels = [label for row, label in labelled("false_equations") if row["origin"] == "changed"]
    assert labels.count("incorrect") / len(labels) >= 0.65
