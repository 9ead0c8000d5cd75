"""Every reader of files, fed with whatever bytes: it returns what is there, or raises the error that its docstring names."""

import json
import tomllib
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opsd_lab.grading.comparison import Comparison
from opsd_lab.grading.reading import read as read_answer
from opsd_lab.methods import recipe_from_toml
from opsd_lab.problems import Problem
from opsd_lab.problems.files import load_csv, load_jsonl, load_parquet
from opsd_lab.problems.opening import open_problems
from opsd_lab.rollouts import Rollout, load_rollouts, save_rollouts
from opsd_lab.runs import Run
from opsd_lab.runs.lines import append_line, read_lines
from opsd_lab.runs.plan import plan_from_toml, plan_to_toml
from opsd_lab.tokens.files import load_table, save_table
from opsd_lab.training.recipes import Recipe
from tests.diagnostics.tables import build

FUZZ = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["question", "answer", "solution", "id", "hints", "meta"]) | st.text(max_size=8)
ROWS = st.lists(st.dictionaries(NAMES, VALUES, max_size=6) | VALUES, max_size=6)


def changed(data, content: bytes) -> bytes:
    """Return a file's bytes with some of them cut, flipped, doubled or put in their place by others."""
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, min(len(content), start + 40)))
    return content[:start] + data.draw(st.binary(max_size=40)) + content[end:] if data.draw(st.booleans()) else content[:start]


def read(function, path, *errors):
    try:
        return function(path)
    except errors as error:
        assert str(error), "an error says something"
        return None


@FUZZ
@given(rows=ROWS, junk=st.binary(max_size=60))
def test_jsonl_of_anything_gives_problems_or_a_report(tmp_path, rows, junk):
    path = tmp_path / "a.jsonl"
    path.write_bytes("\n".join(json.dumps(row) for row in rows).encode("utf-8", "backslashreplace") + b"\n" + junk)
    for found in (read(load_jsonl, path, ValueError), read(lambda p: open_problems(str(p)).problems, path, ValueError)):
        assert found is None or all(isinstance(problem, Problem) for problem in found)


@FUZZ
@given(content=st.binary(max_size=200), header=st.sampled_from([b"question,answer\n", b"a,b\n", b""]))
def test_csv_of_anything_gives_problems_or_a_report(tmp_path, content, header):
    path = tmp_path / "a.csv"
    path.write_bytes(header + content)
    for found in (read(load_csv, path, ValueError), read(lambda p: open_problems(str(p)).problems, path, ValueError)):
        assert found is None or all(isinstance(problem, Problem) for problem in found)


@pytest.fixture(scope="module")
def parquet(tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "whole.parquet"
    pd.DataFrame({"question": ["1 + 1?", "2 + 2?"], "answer": ["2", "4"]}).to_parquet(path)
    return path.read_bytes()


@FUZZ
@given(data=st.data())
def test_parquet_with_any_change_gives_problems_or_a_report(tmp_path, parquet, data):
    path = tmp_path / "a.parquet"
    path.write_bytes(changed(data, parquet))
    for found in (read(load_parquet, path, ValueError), read(lambda p: open_problems(str(p)).problems, path, ValueError)):
        assert found is None or all(isinstance(problem, Problem) for problem in found)


@FUZZ
@given(data=st.data(), text=st.text(max_size=80))
def test_toml_of_anything_is_a_recipe_or_a_plan_or_an_error_that_says_why(data, text):
    recipes = Path(__file__).parents[1] / "opsd_lab" / "commands" / "recipes"
    whole = data.draw(st.sampled_from(sorted(recipes.glob("*.toml")))).read_text()
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, min(len(whole), start + 30)))
    for given_text in (text, whole[:start] + text + whole[end:]):
        plan = read(plan_from_toml, given_text, ValueError, TypeError)
        assert plan is None or plan_from_toml(plan_to_toml(plan)) == plan
        recipe = read(recipe_from_toml, given_text, ValueError, TypeError)
        assert recipe is None or isinstance(recipe, Recipe)


@FUZZ
@given(value=VALUES, place=st.sampled_from(["steps", "data.train", "model.rank", "training.learning_rate", "recipe.view", "probe"]))
def test_any_value_in_any_place_of_a_plan_is_taken_or_refused_by_name(value, place):
    try:
        change = f"{place}={json.dumps(value)}"
        tomllib.loads(f"x = {json.dumps(value)}")
    except (ValueError, RecursionError):
        change = f"{place}={value}"
    text = 'steps = 1\n[data]\ntrain = "builtin:one_step/train"\n'
    try:
        plan_from_toml(text, [change])
    except (ValueError, TypeError) as error:
        assert str(error)


@FUZZ
@given(data=st.data())
def test_a_runs_folder_with_any_change_is_read_or_said_to_be_damaged(tmp_path, data):
    run = Run(tmp_path)
    run.write_about({"experiment": {"objective": "OPSD"}, "prompts": {"student": "é"}})
    for name in ("steps.jsonl", "probes.jsonl", "events.jsonl"):
        (tmp_path / name).unlink(missing_ok=True)
        for step in (1, 2, 3):
            append_line(tmp_path / name, {"step": step, "loss": 0.5, "kind": "x", "text": "", "time": ""})
    name = data.draw(st.sampled_from(["run.json", "steps.jsonl", "probes.jsonl", "events.jsonl"]))
    (tmp_path / name).write_bytes(changed(data, (tmp_path / name).read_bytes()))
    about = read(lambda run: run.about, run, ValueError)
    assert about is None or about["experiment"] == {"objective": "OPSD"}
    steps = read(lambda run: run.steps, run, ValueError)
    assert steps is None or steps["step"].tolist() in ([1, 2, 3], [1, 2], [1], [])
    assert len(run.events) <= 3


@FUZZ
@given(rows=st.lists(st.dictionaries(st.text(max_size=6), st.floats() | st.integers() | st.text(max_size=8), max_size=4), max_size=4))
def test_lines_come_back_as_they_were_written(tmp_path, rows):
    path = tmp_path / "a.jsonl"
    path.unlink(missing_ok=True)
    plain = [row for row in rows if "crc32" not in row and _encodable(row)]
    for row in plain:
        append_line(path, row)
    found, wrong = read_lines(path)
    assert not wrong and repr(found) == repr(plain)


def _encodable(row):
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    rollout = Rollout("p", (1, 2), (3, 4), (-1.0, -2.0), "stop", "ab", ("a", "b"))
    save_rollouts([rollout], folder / "rollouts.parquet")
    save_table(build({"gap": [0.5, -1.0, 0.0]}), folder / "table.parquet")
    return {name: (folder / f"{name}.parquet").read_bytes() for name in ("rollouts", "table")}


@FUZZ
@given(data=st.data())
def test_a_file_of_rollouts_or_tokens_with_any_change_is_read_whole_or_refused(tmp_path, files, data):
    for name, load in (("rollouts", load_rollouts), ("table", load_table)):
        path = tmp_path / name
        path.write_bytes(changed(data, files[name]))
        read(load, path, ValueError)


CHARACTERS = list("()[]{},;12-x=<^!|/*+%:& ")
NAMED = ("le", "cup", "setminus", "mathbb{R}", "frac", "sqrt", "pi", "infty", "in", "pm", "binom", "left(", "right)", "text{m}")
COMMANDS = [rf"\{name}" for name in ("{", "}", "\\", *NAMED)]
WORDS = [*CHARACTERS, *COMMANDS, "and", " or equivalently ", " is the answer", r"\begin{pmatrix}", r"\end{pmatrix}"]


@FUZZ
@given(parts=st.lists(st.sampled_from(WORDS), max_size=40), times=st.sampled_from([1, 1, 8, 40]), closing=st.sampled_from(WORDS))
def test_an_answer_of_any_symbols_is_read_and_compared_or_left_unread(parts, times, closing):
    found = read_answer("".join(parts) * times + "2" + closing * times)
    if found.sure:
        comparison = Comparison(lambda question, *trees: "open")
        for gold in ("2", "(1,2)", r"\mathbb{R} \setminus \{-1/2, 3\}"):
            try:
                assert comparison.decide(read_answer(gold, True), found) in (True, False, None)
            except RecursionError:
                assert times > 1
