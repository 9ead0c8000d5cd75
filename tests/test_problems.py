import json
from dataclasses import replace

import datasets
import pytest

from opsd_lab.problems.column_maps import COLUMN_MAPS, ColumnMap
from opsd_lab.problems.files import load_jsonl, save_jsonl
from opsd_lab.problems.hub import from_dataset, load_hub
from opsd_lab.problems.problem import BadRowsError, Problem
from opsd_lab.problems.reference_answers import split_gsm8k_answer

GOOD = {"question": "1 + 1?", "answer": "2"}


def write(path, *lines):
    path.write_bytes(b"\n".join(x if isinstance(x, bytes) else json.dumps(x).encode() for x in lines) + b"\n")
    return path


def faults(path, **options):
    """The (line, field, reason) triples of the report that loading this file raises."""
    with pytest.raises(BadRowsError) as error:
        load_jsonl(path, **options)
    return [(row.number, row.field, row.reason) for row in error.value.rows]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


# ---- Problem


@pytest.mark.parametrize("hints", ["one text", (1,), [None]])
def test_a_problem_refuses_hints_that_are_not_several_texts(hints):
    with pytest.raises(ValueError, match="hints is not a sequence of texts"):
        Problem("p", "q", "a", hints=hints)


@pytest.mark.parametrize("field", ["id", "question", "answer", "solution"])
def test_a_problem_refuses_half_a_character_and_says_where(field):
    with pytest.raises(ValueError, match=f"{field} holds half of a surrogate pair"):
        Problem(**{"id": "p", "question": "q", "answer": "a", field: "x\ud83d"})
    with pytest.raises(ValueError, match="Problem 'p': hint 1 holds half of a surrogate pair"):
        Problem("p", "q", "a", hints=("x", "\ud83d"))


# ---- JSONL


def test_every_field_is_read_and_blank_lines_keep_the_line_numbers(tmp_path):
    full = {**GOOD, "id": "mine", "solution": "1 + 1 = 2", "hints": ["weak", "strong"], "meta": {"level": 1.5}}
    problems = load_jsonl(write(tmp_path / "set.jsonl", GOOD, b"", b" \t\r", full, GOOD))
    assert problems == [
        Problem("set-1", "1 + 1?", "2"),
        Problem("mine", "1 + 1?", "2", "1 + 1 = 2", ("weak", "strong"), {"level": 1.5}),
        Problem("set-5", "1 + 1?", "2"),
    ]


def test_a_byte_order_mark_and_windows_line_ends_are_accepted(tmp_path):
    path = tmp_path / "set.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n" + json.dumps(GOOD).encode())
    assert [problem.id for problem in load_jsonl(path)] == ["set-1", "set-2"]


@pytest.mark.parametrize(
    ("line", "field", "reason"),
    [
        (b'{"question": "q", ', "", "is not valid JSON"),
        (b'{"question": "q", "answer": "a"} trailing', "", "is not valid JSON"),
        (b'["q", "a"]', "", "is an array, not an object"),
        (b"null", "", "is null, not an object"),
        (b'{"question": "\xff", "answer": "a"}', "", "is not UTF-8: byte 0xff at offset 14"),
        (b'\xef\xbb\xbf{"question": "\xff", "answer": "a"}', "", "is not UTF-8: byte 0xff"),
        (b'{"question": "q", "answer": "a", "meta": {"x": NaN}}', "", "NaN is not a finite number"),
        (b'{"question": "q", "answer": "a", "meta": {"x": -Infinity}}', "", "-Infinity is not a finite number"),
        (b'{"question": "q", "answer": "a", "meta": {"x": 1e999}}', "", "1e999 is not a finite number"),
        (b'{"question": "q", "answer": "a", "answer": "b"}', "", "the key 'answer' appears twice"),
        (b'{"question": "q", "answer": "a", "meta": ' + b"[" * 99999, "", "cannot be read as JSON"),
        (b'{"question": "q", "answer": ' + b"9" * 5000 + b"}", "", "cannot be read as JSON"),
        (b'{"answer": "a"}', "question", "is missing"),
        (b'{"question": "q"}', "answer", "is missing"),
        (b'{"question": " \\n", "answer": "a"}', "question", "is blank"),
        (b'{"question": "q", "answer": ""}', "answer", "is blank"),
        (b'{"question": "q", "answer": true}', "answer", "is a boolean, not text"),
        (b'{"question": null, "answer": "a"}', "question", "is null, not text"),
        (b'{"question": "q", "answer": "a", "id": ""}', "id", "is blank; leave the field out"),
        (b'{"question": "q", "answer": "a", "solution": 3}', "solution", "is a number, not text"),
        (b'{"question": "q", "answer": ["1", "2"]}', "answer", "is a list of 2 answers, not one"),
        (b'{"question": "q", "answer": "a", "hints": "one"}', "hints", "is text, not an array of texts"),
        (b'{"question": "q", "answer": "a", "hints": ["one", 2]}', "hints", "hint 1 is a number, not text"),
        (b'{"question": "q", "answer": "a", "hints": [""]}', "hints", "hint 0 is blank"),
        (b'{"question": "q", "answer": "a", "meta": []}', "meta", "is an array, not an object"),
        (b'{"question": "q", "answer": "a", "level": 3}', "level", "unknown field; move it into meta"),
        (b'{"question": "\\ud800", "answer": "a"}', "question", "half of a surrogate pair"),
        (b'{"question": "q", "answer": "a", "meta": {"x": "\\ud800"}}', "meta", "half of a surrogate pair"),
    ],
)
def test_a_bad_row_is_reported_with_its_line_field_and_reason(tmp_path, line, field, reason):
    ((number, where, why),) = faults(write(tmp_path / "set.jsonl", GOOD, b"", line, GOOD))
    assert (number, where) == (3, field)
    assert reason in why


def test_all_faults_of_all_rows_come_in_one_report(tmp_path):
    path = write(tmp_path / "set.jsonl", {"question": "", "extra": 1}, GOOD, b"{", {"answer": True, "hints": 4})
    found = faults(path)
    assert [(number, field) for number, field, _ in found] == [
        (1, "extra"),
        (1, "answer"),
        (1, "question"),
        (3, ""),
        (4, "question"),
        (4, "answer"),
        (4, "hints"),
    ]
    with pytest.raises(BadRowsError) as error:
        load_jsonl(path)
    head, *lines = str(error.value).split("\n")
    assert head == "7 fault(s) in 3 line(s); nothing was kept:"
    assert f"{path}, line 4: answer: is a boolean, not text" in lines
    assert len(lines) == 7


def test_a_long_report_shows_twenty_faults_and_counts_the_rest(tmp_path):
    path = write(tmp_path / "set.jsonl", *[b"{"] * 53)
    with pytest.raises(BadRowsError) as error:
        load_jsonl(path)
    assert len(error.value.rows) == 53
    assert str(error.value).count("is not valid JSON") == 20
    assert str(error.value).endswith("... and 33 more, all of them in this error's .rows")


def test_a_repeated_id_names_the_line_that_has_it_also_when_one_of_them_is_a_default(tmp_path):
    rows = [{**GOOD, "id": "a"}, {**GOOD, "id": "set-3"}, GOOD, {**GOOD, "id": "a"}]
    assert faults(write(tmp_path / "set.jsonl", *rows)) == [
        (3, "id", "'set-3' is the id of line 2 already"),
        (4, "id", "'a' is the id of line 1 already"),
    ]


def test_required_fields_can_be_added_but_question_and_answer_never_dropped(tmp_path):
    path = write(tmp_path / "set.jsonl", {**GOOD, "solution": "s"}, GOOD, {"solution": "s"})
    assert faults(path, required=["solution"]) == [
        (2, "solution", "is missing"),
        (3, "question", "is missing"),
        (3, "answer", "is missing"),
    ]
    with pytest.raises(ValueError, match=r"unknown fields \['reference'\]"):
        load_jsonl(path, required=["reference"])


HARD = [
    Problem(
        "1",
        "Is 3 < 4 & \\boxed{x}?",
        "yes\n",
        "line 1\r\nline 2\u2028\u0085\x00 end",
        ("é 🙂", "強"),
        {"a": [1, {"b": None}]},
    ),
    Problem("2", '"quoted" \\ud800 as plain text', " 2 ", meta={"x": 0.1, "n": 10**30, "t": True}),
]


def test_saving_and_loading_gives_equal_problems_and_the_same_bytes_again(tmp_path):
    save_jsonl(HARD, tmp_path / "one.jsonl")
    back = load_jsonl(tmp_path / "one.jsonl")
    assert back == HARD
    save_jsonl(back, tmp_path / "two.jsonl")
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()
    save_jsonl([], tmp_path / "none.jsonl")
    assert load_jsonl(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize(
    ("problem", "field", "reason"),
    [
        (Problem("p", "q", "a", meta={"x": (1, 2)}), "meta", "would change in the file"),
        (Problem("p", "q", "a", meta={1: 2}), "meta", "would change in the file"),
        (Problem("p", "q", "a", meta={"x": float("nan")}), "meta", "cannot be written as JSON"),
        (Problem("p", "q", "a", meta={"x": {1}}), "meta", "cannot be written as JSON"),
        (Problem("p", "q", "a", meta={"x": "\ud800"}), "meta", "half of a surrogate pair"),
        (Problem("p", "q", "a", solution=" "), "solution", "would change in the file"),
        (Problem("p", "q", "1 + 1 = 2\n#### 2"), "answer", "whole solution"),
        (Problem("p", "q", "a", hints=("",)), "hints", "hint 0 is blank"),
        (HARD[0], "id", "'1' is the id of problem 1 already"),
    ],
)
def test_a_problem_that_would_not_come_back_is_refused_and_the_old_file_stays(tmp_path, problem, field, reason):
    path = tmp_path / "set.jsonl"
    save_jsonl(HARD, path)
    before = path.read_bytes()
    with pytest.raises(BadRowsError) as error:
        save_jsonl([*HARD, problem], path)
    (row,) = error.value.rows
    assert (row.number, row.field, row.unit) == (3, field, "problem")
    assert reason in row.reason
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["set.jsonl"]


def test_a_write_that_fails_leaves_no_partial_file(tmp_path):
    (tmp_path / "set.jsonl").mkdir()
    with pytest.raises(OSError):
        save_jsonl(HARD, tmp_path / "set.jsonl")
    assert [each.name for each in tmp_path.iterdir()] == ["set.jsonl"]


# ---- Hugging Face data sets: local files of the published schemas

ROWS = {
    "openthoughts_opsd": {"problem": "P", "solution": "S", "Answer": "A"},
    "math500": {
        "problem": "P",
        "solution": "S",
        "answer": "A",
        "subject": "Algebra",
        "level": 2,
        "unique_id": "test/algebra/1.json",
    },
    "aime24": {"id": 60, "problem": "P", "solution": "S", "answer": "A", "url": "https://x.org", "year": "2024"},
    "aime25": {"problem": "P", "answer": "A", "id": "0"},
    "hmmt25": {"problem_idx": 7, "answer": "A", "problem_type": ["Algebra"], "problem": "P"},
    "gsm8k": {"question": "P", "answer": "S <<1+1=2>>2\n#### A"},
    "math": {"problem": "P", "level": "Level 2", "type": "Algebra", "solution": "S is \\boxed{\\frac{1}{2}}."},
    "numina_cot": {"source": "x", "problem": "P", "solution": "S: $\\boxed{A}$", "messages": [{"role": "user", "content": "P"}]},
    "olympiadbench": {"id": 1606, "question": "P", "solution": ["S", "another"], "final_answer": ["2"], "is_multiple_answer": False},
}
EXPECTED = {
    "openthoughts_opsd": Problem("sums-train-0", "P", "A", "S"),
    "math500": Problem("test/algebra/1.json", "P", "A", "S", meta={"subject": "Algebra", "level": 2}),
    "aime24": Problem("60", "P", "A", "S"),
    "aime25": Problem("0", "P", "A"),
    "hmmt25": Problem("7", "P", "A"),
    "gsm8k": Problem("sums-train-0", "P", "A", "S 2"),
    "math": Problem("sums-train-0", "P", "\\frac{1}{2}", "S is \\boxed{\\frac{1}{2}}."),
    "numina_cot": Problem("sums-train-0", "P", "A", "S: $\\boxed{A}$"),
    "olympiadbench": Problem("1606", "P", "2", "S"),
}


def load_local(tmp_path, rows, kind="json"):
    path = tmp_path / f"rows.{kind}"
    table = datasets.Dataset.from_list(rows)
    _ = table.to_json(path) if kind == "json" else table.to_parquet(path)
    return datasets.load_dataset(kind, data_files=str(path), split="train")


@pytest.mark.parametrize("kind", ["json", "parquet"])
@pytest.mark.parametrize("name", list(COLUMN_MAPS))
def test_each_named_set_is_mapped_from_its_published_columns(tmp_path, name, kind):
    assert from_dataset(load_local(tmp_path, [ROWS[name]], kind), COLUMN_MAPS[name], name="sums-train") == [EXPECTED[name]]


def test_load_hub_asks_for_the_configuration_and_split_of_the_map(tmp_path):
    # A folder laid out like a hub repository: two configurations, each with two splits.
    configs = []
    for config in ("main", "socratic"):
        for split in ("train", "test"):
            rows = [{"question": f"{config} {split} {i}", "answer": f"s\n#### {i}"} for i in range(3)]
            datasets.Dataset.from_list(rows).to_parquet(tmp_path / "gsm8k" / f"{config}-{split}.parquet")
        files = [{"split": split, "path": f"{config}-{split}.parquet"} for split in ("train", "test")]
        configs.append({"config_name": config, "data_files": files})
    (tmp_path / "gsm8k" / "README.md").write_text(f"---\nconfigs: {json.dumps(configs)}\n---\n")
    local = replace(COLUMN_MAPS["gsm8k"], hub_id=str(tmp_path / "gsm8k"))

    assert [problem.question for problem in load_hub(local)] == [f"main train {i}" for i in range(3)]
    limited = load_hub(local, split="test", limit=2)
    assert [(problem.id, problem.question) for problem in limited] == [
        ("gsm8k-test-0", "main test 0"),
        ("gsm8k-test-1", "main test 1"),
    ]
    assert len(load_hub(replace(local, config="socratic", split="test"), limit=100)) == 3


def test_load_hub_refuses_what_it_cannot_ask_for():
    with pytest.raises(ValueError, match=r"'math-500'; known: openthoughts_opsd, math500"):
        load_hub("math-500")
    with pytest.raises(ValueError, match="no hub_id"):
        load_hub(ColumnMap("question", "answer"))
    with pytest.raises(ValueError, match="limit is 0"):
        load_hub("gsm8k", limit=0)


def test_bad_rows_of_a_data_set_are_reported_together_by_row_and_column(tmp_path):
    rows = [
        {"problem": "P", "solution": "S", "Answer": "1"},
        {"problem": " ", "solution": "S", "Answer": None},
        {"problem": "P", "solution": "", "Answer": "3"},
        {"problem": "P", "solution": None, "Answer": "4"},
    ]
    with pytest.raises(BadRowsError) as error:
        from_dataset(load_local(tmp_path, rows), COLUMN_MAPS["openthoughts_opsd"], name="mine", required=["solution"])
    assert [(row.number, row.field) for row in error.value.rows] == [
        (1, "question (column 'problem')"),
        (1, "answer (column 'Answer')"),
        (2, "solution"),
        (3, "solution"),
    ]
    assert "mine, row 2: solution: is missing" in str(error.value)
    with pytest.raises(ValueError, match=r"unknown fields \['reference'\]"):
        from_dataset(load_local(tmp_path, rows), COLUMN_MAPS["openthoughts_opsd"], required=["reference"])


def test_a_repeated_id_in_a_data_set_is_an_error(tmp_path):
    rows = [{"problem": "P", "answer": "A", "id": word} for word in ("x", "y", "x")]
    with pytest.raises(BadRowsError, match="row 2: id: 'x' is the id of row 0 already"):
        from_dataset(load_local(tmp_path, rows), COLUMN_MAPS["aime25"])


def test_a_missing_column_names_those_that_exist(tmp_path):
    data = load_local(tmp_path, [ROWS["gsm8k"]])
    with pytest.raises(ValueError, match=r"no column \['problem', 'Answer', 'solution'\].*\['question', 'answer'\]"):
        from_dataset(data, COLUMN_MAPS["openthoughts_opsd"])


def test_all_splits_at_once_and_streams_are_refused(tmp_path):
    data = load_local(tmp_path, [ROWS["gsm8k"]])
    for wrong in (datasets.DatasetDict(train=data), data.to_iterable_dataset()):
        with pytest.raises(TypeError, match="needs one split, not streamed"):
            from_dataset(wrong, COLUMN_MAPS["gsm8k"])


def test_a_gsm8k_answer_loses_its_calculator_marks_and_nothing_else():
    text = "Half is 48/2 = <<48/2=24>>24, and 1 < 2.\nSo 48+24 = <<48+24=72>>72.\n#### 1,072"
    assert split_gsm8k_answer(text) == ("Half is 48/2 = 24, and 1 < 2.\nSo 48+24 = 72.", "1,072")


@pytest.mark.parametrize(
    ("answer", "field", "reason"),
    [
        ("no mark", "answer", 'has no "####"'),
        ("s\n#### ", "answer", "is blank"),
        ("", "answer", "is blank"),
    ],
)
def test_a_gsm8k_answer_without_its_parts_is_a_bad_row(tmp_path, answer, field, reason):
    rows = [ROWS["gsm8k"], {"question": "P", "answer": answer}]
    with pytest.raises(BadRowsError) as error:
        from_dataset(load_local(tmp_path, rows), COLUMN_MAPS["gsm8k"])
    (row,) = error.value.rows
    assert row.number == 1
    assert row.field.split()[0] == field
    assert reason in row.reason


def test_a_map_with_two_sources_of_the_solution_is_refused():
    with pytest.raises(ValueError, match="not both"):
        ColumnMap("q", "a", solution="s", extract_answer=split_gsm8k_answer)
