"""Problems as people have them: every kind of file by its name, rows that are none left out with the reason, answers taken apart."""

import csv
import gzip
import json

import pandas as pd
import pytest

from opsd_lab.problems import opening
from opsd_lab.problems.opening import open_problems
from opsd_lab.problems.word_problems import builtin

GSM = "He has 48/2=<<48/2=24>>24 left.\n#### 24"


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_a_built_in_split_is_opened_by_its_name():
    problems, report = open_problems("builtin:one_step/validation", limit=5)
    assert problems == builtin("one_step", "validation")[:5] and str(report).endswith("5 of 5 rows are problems")


def test_rows_that_are_no_problems_are_left_out_and_said(tmp_path):
    rows = [
        {"question": "1 + 1?", "answer": 2},
        {"question": "2 + 2?", "answer": ["4"], "solution": None},
        {"question": "3 + 3?", "answer": ["6", "7"]},
        {"question": "", "answer": "8"},
        {"question": "5 + 5?", "answer": GSM},
        {"question": "6 + 6?", "answer": r"We add and obtain then the sum \boxed{12}."},
    ]
    path = tmp_path / "mine.jsonl"
    jsonl(path, rows)
    path.write_text(path.read_text() + "{broken\n", encoding="utf-8")
    problems, report = open_problems(str(path))
    assert [(p.id, p.answer) for p in problems] == [("mine-1", "2"), ("mine-2", "4"), ("mine-5", "24"), ("mine-6", "12")]
    assert problems[2].solution == "He has 48/2=24 left." and report.rows == 7 and report.kept == 4
    told = str(report)
    for text in ("4 of 7 rows", "2 rows: answer taken out of a whole solution", "is a list of 2 answers", "question: is blank"):
        assert text in told, told
    assert "is not valid JSON" in told and f"the first that was left out: {path}, line 3" in told


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet", ".jsonl", ".csv.gz", ".jsonl.gz"])
def test_the_same_rows_come_out_of_every_kind_of_file(tmp_path, ending):
    rows = [{"Problem": f"{i} + {i}?", "final": str(2 * i), "how": f"{i} + {i} = {2 * i}", "source": "x"} for i in range(1, 4)]
    path = tmp_path / f"rows{ending}"
    plain = tmp_path / f"plain{ending.removesuffix('.gz')}"
    if ending == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    elif "jsonl" in ending:
        jsonl(plain, rows)
    else:
        with plain.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if ending == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    if ending != ".parquet":
        path.write_bytes(gzip.compress(plain.read_bytes()) if ending.endswith(".gz") else plain.read_bytes())
    columns = {"question": "Problem", "answer": "final", "solution": "how"}
    problems, report = open_problems(str(path), columns)
    assert [(p.question, p.answer, p.solution) for p in problems] == [(r["Problem"], r["final"], r["how"]) for r in rows]
    assert report.ignored == ("source",)
    with pytest.raises(ValueError, match=r"has the columns Problem, final, how, source; say which is the question and"):
        open_problems(str(path))


def test_what_is_no_source_is_refused_with_what_would_be_one(tmp_path):
    with pytest.raises(ValueError, match=r"a file ends in one of \.jsonl, .*other names begin with builtin:, gym: or hub:"):
        open_problems("problems.txt")
    with pytest.raises(FileNotFoundError, match=r"there is no file nowhere\.csv"):
        open_problems("nowhere.csv")
    with pytest.raises(ValueError, match="no built-in split 'x'"):
        open_problems("builtin:one_step/x")
    path = jsonl(tmp_path / "a.jsonl", [{"question": "1?", "answer": ""}])
    with pytest.raises(ValueError, match=r"0 of 1 rows are problems(.|\n)*answer: is blank(.|\n)*there is no problem left; mend"):
        open_problems(path)
    with pytest.raises(ValueError, match="columns: hint are no fields of a problem"):
        open_problems(path, {"hint": "x"})


def test_what_must_be_there_is_left_out_where_it_is_not(tmp_path):
    rows = [{"question": "1 + 1?", "answer": "2", "solution": "1 + 1 = 2"}, {"question": "2 + 2?", "answer": "4", "solution": " "}]
    problems, report = open_problems(jsonl(tmp_path / "a.jsonl", rows), required=("question", "answer", "solution"))
    assert len(problems) == 1 and "1 left out: solution: is missing" in str(report)


def test_one_id_stands_for_one_problem(tmp_path):
    rows = [{"id": "a", "question": "1 + 1?", "answer": "2"}, {"id": "a", "question": "2 + 2?", "answer": "4"}]
    problems, report = open_problems(jsonl(tmp_path / "a.jsonl", rows))
    assert len(problems) == 1 and "id: line 1 has the same one" in str(report)


def test_a_hub_set_is_read_by_its_name_or_by_columns(monkeypatch):
    import datasets

    asked = []

    def load_dataset(repository, **options):
        asked.append((repository, options))
        return datasets.Dataset.from_list([{"question": "48 / 2?", "answer": GSM, "other": 1}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    problems, _ = open_problems("hub:gsm8k")
    assert problems[0].answer == "24" and problems[0].solution == "He has 48/2=24 left."
    for name in ("hub:gsm8k/test", "hub:openai/gsm8k/test", "hub:openai/gsm8k/main/test"):
        (one,) = open_problems(name).problems  # the set's own columns and config, however it is named
        assert (one.answer, one.solution) == (problems[0].answer, problems[0].solution)
    again, report = open_problems("hub:someone/sums/hard/test")
    assert again[0].answer == "24" and report.changed[opening.SPLIT] == 1 and report.ignored == ("other",)
    open_problems("hub:someone/sums", {"question": "question", "answer": "answer"})
    kept = ("openai/gsm8k", {"name": "main", "split": "test"})
    assert asked[:4] == [("openai/gsm8k", {"name": "main", "split": "train"}), kept, kept, kept]
    assert asked[4:] == [("someone/sums", {"name": "hard", "split": "test"}), ("someone/sums", {"name": None, "split": "train"})]
    with pytest.raises(ValueError, match="'hub:sums' names no data set; write hub:owner/name/split, hub:owner/name/config/split"):
        open_problems("hub:sums")
    for name in ("hub:gsm8k", "builtin:one_step/train"):
        with pytest.raises(ValueError, match=f"{name} has columns that are known; leave data.columns out"):
            open_problems(name, {"question": "q"})


def test_a_csv_row_that_cannot_be_read_is_one_row_and_those_behind_it_are_read(tmp_path):
    path = tmp_path / "mine.csv"
    rows = [f"What is {i} + 1?,{i + 1}" for i in range(1, 8)]
    rows[1], rows[3] = "caf\xe9?,2", '"a"b,2'
    path.write_bytes("\n".join(["question,answer", *rows]).encode("latin-1") + b"\n")
    problems, report = open_problems(str(path))
    assert [problem.answer for problem in problems] == ["2", "4", "6", "7", "8"] and report.rows == 7
    assert "is not UTF-8: byte 0xe9" in str(report) and "is not valid CSV: " in str(report)
    assert [row.number for row in report.left_out] == [3, 5]
    path.write_bytes(b'question,answer\n"an open quote,2\n' + b"What is 1 + 1?,2\n" * 3)
    with pytest.raises(ValueError, match=r"line 2.*is not valid CSV: unexpected end of data, with all up to line 5"):
        open_problems(str(path))
    path.write_bytes("q\xe9,answer\nx,2\n".encode("latin-1"))
    with pytest.raises(ValueError, match="is not UTF-8"):
        open_problems(str(path))


def test_a_file_of_json_is_read_by_the_names_of_all_its_rows(tmp_path):
    path = tmp_path / "mine.jsonl"
    rows = [
        {"question": "1 + 1?", "answer": "2", "source": "a"},
        {"question": "2 + 1?", "answer": "3", "solution": "2 + 1 = 3", "id": "b"},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    problems, report = open_problems(str(path))
    assert problems[1].solution == "2 + 1 = 3" and problems[1].id == "b" and report.ignored == ("source",)
    path.write_text("\n".join(map(json.dumps, [{"question": "lacks an answer"}, *rows])))
    problems, report = open_problems(str(path))
    assert len(problems) == 2 and "answer: is missing" in str(report)
