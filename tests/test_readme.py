import ast
import importlib
import json
import re
import tomllib
from pathlib import Path

import pytest

import opsd_lab
from opsd_lab.policies import packaged
from opsd_lab.problems.word_problems import one_per_key
from tests.conftest import tiny_policy
from tests.diagnostics.tables import build
from tests.test_imports import FOLDERS

ROOT = Path(__file__).parents[1]
README, MAP, RESULTS, DATA = (
    (ROOT / path).read_text(encoding="utf-8") for path in ("README.md", "docs/map.md", "docs/results.md", "data/README.md")
)
PAGES = [ROOT / "README.md", ROOT / "data" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WRITTEN_BY_HAND = [path for path in PAGES if path.name != "results.md"]


def section(page: str, heading: str) -> str:
    """Return what stands under a heading, up to the next one of the same kind."""
    kind = heading.split()[0]
    return page.split(f"\n{heading}\n", 1)[1].split(f"\n{kind} ", 1)[0]


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page, re.DOTALL)


def examples() -> dict[str, str]:
    """Return the code under each heading of "Add your own"."""
    parts = section(MAP, "## Add your own").split("\n### ")[1:]
    return {part.splitlines()[0]: blocks(part)[0] for part in parts if blocks(part)}


def test_readme_is_read_in_two_minutes():
    assert len(README.splitlines()) <= 100


@pytest.mark.parametrize("path", WRITTEN_BY_HAND, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_line_of_a_page_is_longer_than_the_code_may_be(path):
    assert [line for line in path.read_text(encoding="utf-8").splitlines() if len(line) > 134] == []


def test_readmes_findings_are_those_of_the_results_page_word_by_word():
    found = [
        re.findall(r"^- (.*?)(?=^- |\Z|\n\n)", part, re.DOTALL | re.MULTILINE) for part in (section(README, "## What comes out"),)
    ]
    stated = [" ".join(sentence.split()) for sentence in found[0]]
    short = section(RESULTS, "## In short").strip().removeprefix("- ").split("\n- ")
    assert stated == [" ".join(sentence.split()) for sentence in short] and len(stated) == 5


def test_readmes_code_runs():
    (code,) = blocks(README)
    smaller = {"load_policy()": "tiny_policy(context=4096)", "steps=20": "steps=1", "max_new_tokens=64": "max_new_tokens=4"}
    assert len([line for line in code.splitlines() if line]) <= 12
    for whole, reduced in smaller.items():
        assert code.count(whole) == 1
        code = code.replace(whole, reduced)
    names = {"tiny_policy": tiny_policy}
    exec(code, names)
    assert names["record"].step == 1 and "gap" in names["record"].metrics


def test_every_name_among_readmes_pieces_is_in_the_folder_that_stands_beside_it():
    rows = [row.split("|")[1:-1] for row in section(README, "## The pieces").splitlines() if row.startswith("|")][2:]
    assert len(rows) > 10
    for _, _, choices, folder in rows:
        found = importlib.import_module(f"opsd_lab.{folder.strip(' `')}")
        names = re.findall(r"`(\w+)`", choices)
        assert names and [name for name in names if not hasattr(found, name)] == []


def test_the_names_of_a_first_notebook_are_some_fifty():
    assert len(opsd_lab.__all__) < 60
    assert [name for name in opsd_lab.__all__ if not hasattr(opsd_lab, name)] == []


def test_readme_repeats_versions_and_commands_as_they_are():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert f"Python {project['requires-python'].removeprefix('>=')} or newer" in README
    assert re.search(r"^MODEL := (.*)$", makefile, re.MULTILINE)[1] == packaged.NAME
    assert set(re.findall(r"(?:`|^)make (\w+)", README, re.MULTILINE)) <= set(re.findall(r"^(\w+):", makefile, re.MULTILINE))
    assert set(re.findall(r"\.\[(\w+)\]", README)) <= set(project["optional-dependencies"])


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_that_a_page_names_is_there(path):
    text = path.read_text(encoding="utf-8")
    links = [path.parent / target for target in re.findall(r"\]\((?!https?:)([^)#]+)", text)]
    inside = [ROOT / name for name in re.findall(r"`((?:opsd_lab|tests|notebooks|docs|data)/[\w./]+)`", text)]
    assert [str(each) for each in (*links, *inside) if not each.exists()] == []


def test_the_map_has_every_folder_in_the_order_in_which_they_stand_on_each_other():
    lines = re.findall(r"^\| `(\w+)/?` \| (.*) \|$", section(MAP, "## The folders"), re.MULTILINE)
    assert [name for name, _ in lines] == [name for name in FOLDERS if name != "opsd_lab"]
    named = [(folder, name) for folder, words in lines for name in re.findall(r"`(\w+\.py)`", words)]
    assert [pair for pair in named if not (ROOT / "opsd_lab" / pair[0] / pair[1]).exists()] == [] and len(named) > 20


@pytest.mark.parametrize("kind", examples())
def test_what_a_newcomer_adds_is_at_most_ten_lines_and_runs(kind):
    code = examples()[kind]
    assert len([line for line in code.splitlines() if line]) <= 10 and ast.get_docstring(ast.parse(code)) is None
    exec(code, {"__name__": kind})


def test_the_view_of_the_map_shows_the_teacher_one_result_and_the_student_none(capsys):
    names = {}
    exec(examples()["A view"], names)
    (problem,) = names["worksheets"]("sheet", "test", 1)
    last = problem.answer.split(", ")[-1]
    assert last in capsys.readouterr().out and last not in names["contexts"].text(problem, "student")


def test_the_sampler_of_the_map_keeps_the_shortest_of_each_four(policy):
    names = {}
    exec(examples()["A sampler"], names)
    params = opsd_lab.SamplingParams(max_new_tokens=12, n=2)
    kept = names["Shortest"](policy, progress=False).sample([[5, 6], [7]], params)
    drawn = opsd_lab.HFSampler(policy, progress=False).sample([[5, 6], [7]], opsd_lab.SamplingParams(max_new_tokens=12, n=8))
    lengths = [len(rollout.completion_ids) for rollout in drawn]
    assert [len(rollout.completion_ids) for rollout in kept] == [min(lengths[i : i + 4]) for i in range(0, 16, 4)]


def test_the_diagnostic_of_the_map_is_the_share_of_such_tokens():
    names = {}
    exec(examples()["A diagnostic"], names)
    table = build(
        {"student_rank": [0, 0, 3, 0], "teacher_rank": [1, 0, 2, 4], "problem_id": "p0"},
        {"student_rank": [0, 1], "teacher_rank": [0, 1], "problem_id": "p1"},
    )
    (row,) = names["disagreement"](table).to_dict("records")
    assert row["mean"] == pytest.approx(2 / 6) and 0 <= row["low"] < row["mean"] < row["high"] <= 1


def lines(path: str) -> list[str]:
    return (ROOT / "data" / path).read_text(encoding="utf-8").splitlines()


def test_the_sizes_in_the_datas_readme_are_those_of_the_files():
    stated = {
        name: list(map(int, sizes)) for name, *sizes in re.findall(r"^\| `(\w+)` \| .* \| (\d+) \| (\d+) \| (\d+) \|$", DATA, re.M)
    }
    splits = ("train", "validation", "test")
    assert len(stated) == 3
    assert stated == {name: [len(lines(f"word_problems/{name}_{split}.jsonl")) for split in splits] for name in stated}


def test_the_counts_in_the_datas_readme_are_those_of_the_files():
    kept = one_per_key(opsd_lab.builtin("one_step", "test"))
    origins = [json.loads(line)["origin"] for line in lines("equations/false_equations.jsonl")]
    answers = [json.loads(line) for line in lines("answers/labelled_answers.jsonl")]
    counts = [
        f"of `one_step`'s {len(opsd_lab.builtin('one_step', 'test'))} test problems these are {len(kept)}",
        f"holds the {len(lines('equations/marked_equations.jsonl')):,} lines",
        f"holds {len(origins)} false ones: {origins.count('written')} that",
        f"and {origins.count('changed')} of GSM8K's",
        f"holds {len(answers):,} answers of {len({answer['kind'] for answer in answers})} kinds",
    ]
    text = " ".join(DATA.split())
    assert [count for count in counts if count not in text] == []
