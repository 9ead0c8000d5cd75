"""Problems as people have them: numbers, lists and whole solutions as answers; CSV, Parquet and gzip; damaged and hostile files."""

import gzip
import json
import random
from decimal import Decimal

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from opsd_lab.basics import limited_files
from opsd_lab.problems.column_maps import COLUMN_MAPS, ColumnMap
from opsd_lab.problems.files import load_csv, load_jsonl, load_parquet, save_jsonl
from opsd_lab.problems.hub import from_dataset
from opsd_lab.problems.problem import BadRowsError, Problem
from opsd_lab.problems.reference_answers import solution_sign, split_boxed_answer

GSM8K = "48/2 = <<48/2=24>>24 in May.\n48+24 = <<48+24=72>>72 in all.\n#### 72"
MATH = r"We have $x^2 = 4$, so that $x = \pm 2$. The positive one is $\boxed{\frac{4}{2}}$."


def through_jsonl(answers, folder):
    (folder / "set.jsonl").write_text("\n".join(json.dumps({"question": "?", "answer": answer}) for answer in answers))
    return load_jsonl(folder / "set.jsonl")


def through_parquet(answers, folder):
    pq.write_table(pa.table({"question": ["?"] * len(answers), "answer": answers}), folder / "set.parquet")
    return load_parquet(folder / "set.parquet")


def through_csv(answers, folder):
    (folder / "set.csv").write_text("question,answer\n" + "".join(f"?,{answer}\n" for answer in answers))
    return load_csv(folder / "set.csv")


def through_a_data_set(answers, folder):
    return from_dataset(datasets.Dataset.from_dict({"q": ["?"] * len(answers), "a": answers}), ColumnMap("q", "a"))


TYPED = {"JSONL": through_jsonl, "Parquet": through_parquet, "data set": through_a_data_set}


@pytest.mark.parametrize("way", TYPED)
@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([27, -204, 0], ["27", "-204", "0"]),
        ([27.0, 0.5, -3.25, 1e-7, -0.0, 0.1], ["27", "0.5", "-3.25", "0.0000001", "0", "0.1"]),
        ([1e22, 2.0**53], ["10000000000000000000000", "9007199254740992"]),
        ([["2"], ["x = 1"]], ["2", "x = 1"]),
        ([[145.0], [0.5]], ["145", "0.5"]),
        (["073", "None", "1/2"], ["073", "None", "1/2"]),
    ],
)
def test_numbers_and_lists_of_one_answer_become_text_alike_from_every_source(way, answers, expected, tmp_path):
    assert [problem.answer for problem in TYPED[way](answers, tmp_path)] == expected


@pytest.mark.parametrize("way", TYPED)
@pytest.mark.parametrize(
    ("answer", "reason"),
    [(True, "is a boolean"), ([], "is a list of 0 answers"), (["1", "2"], "is a list of 2 answers.*'answer.0'"), (None, "is null")],
)
def test_what_is_no_one_answer_is_refused_with_its_row(way, answer, reason, tmp_path):
    with pytest.raises(BadRowsError, match=rf"(line 1|row 0): answer.*{reason}"):
        TYPED[way]([answer], tmp_path)


def test_short_floats_decimals_and_missing_numbers_of_a_table(tmp_path):
    short = pa.array([0.1, 27.0], pa.float32())
    assert [problem.answer for problem in through_parquet(short, tmp_path)] == ["0.1", "27"]
    nested = pa.array([[0.3]], pa.list_(pa.float32()))
    assert through_parquet(nested, tmp_path)[0].answer == "0.3"
    assert [p.answer for p in through_parquet([Decimal("72.50"), Decimal("8.00")], tmp_path)] == ["72.5", "8"]
    with pytest.raises(BadRowsError, match="row 1: answer: is nan, which is no finite number"):
        through_parquet([1.0, float("nan")], tmp_path)


def test_cells_of_a_csv_stay_as_they_are_written(tmp_path):
    cells = ["073", "NA", "None", "null", "1e5", "27.0", "true", "  x ", '"a,\nb"', '"say ""hi"""']
    found = through_csv(cells, tmp_path)
    assert [problem.answer for problem in found] == [*cells[:8], "a,\nb", 'say "hi"']
    assert [problem.id for problem in found][-2:] == ["set-10", "set-12"], "a row is named by the line that it begins in"


def test_a_csv_has_names_in_its_first_line_and_as_many_cells_in_every_row(tmp_path):
    path = tmp_path / "set.csv"
    path.write_bytes(b"\xef\xbb\xbfQ;A;S;n\r\n1+1?;2;;8\r\n\r\n2+2?;4;so 4;9\r\n")
    columns = ColumnMap("Q", "A", solution="S", meta=("n",))
    assert load_csv(path, columns, delimiter=";") == [
        Problem("set-2", "1+1?", "2", meta={"n": "8"}),
        Problem("set-4", "2+2?", "4", "so 4", meta={"n": "9"}),
    ]
    with pytest.raises(ValueError, match=r"no column \['Q', 'A', 'S', 'n'\]; there are \['Q;A;S;n'\]"):
        load_csv(path, columns)
    with pytest.raises(ValueError, match=r"the columns are \['Q', 'A', 'S', 'n'\]; say which holds what"):
        load_csv(path, delimiter=";")
    path.write_text('question,answer\na,b,c\nd,\n"e,f\ng,h\n')
    with pytest.raises(BadRowsError) as error:
        load_csv(path)
    assert [(row.number, row.field) for row in error.value.rows] == [(2, ""), (3, "answer"), (4, "")]
    assert "has 3 cells, the first line names 2 columns" in str(error.value) and "not valid CSV: unexpected end" in str(error.value)
    path.write_text("question,answer,answer\n")
    with pytest.raises(BadRowsError, match=r"names the columns \['answer'\] twice"):
        load_csv(path)


# ---- Whole solutions


@pytest.mark.parametrize(
    "solution",
    [
        GSM8K,
        "She has <<3+4=7>>7 left.",
        MATH,
        MATH.replace("boxed", "fbox"),
        "First, add the two numbers, which gives seven apples altogether. Then multiply by the number of baskets that were filled. "
        "Because nothing is left over at the end of the day, the total number of apples is twenty one.",
    ],
)
def test_a_whole_solution_in_the_answer_column_is_refused_with_the_remedy(solution, tmp_path):
    for way in TYPED.values():
        with pytest.raises(BadRowsError, match=r"whole solution.*(COLUMN_MAPS|split_boxed_answer)"):
            way([solution], tmp_path)


@pytest.mark.parametrize(
    "answer",
    [
        "72",
        r"\boxed{72}",
        r"$\boxed{5}$ apples",
        r"x \in \left(-\infty, -\frac{1}{2}\right] \cup \{3\}",
        "Yes, and the sequence is 1/2^3, 1/2^6, 1/2^9, ...",
        "((-1)^(n+1)+n+1)/(n+2) (i.e., 1 if for odd n, and n/(n+2) for even n)",
        r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}",
        "1 << 3 >> 1",
        "A. Paris",
        "line one\nline two\nline three",
    ],
)
def test_a_final_answer_is_not_taken_for_a_solution(answer):
    assert solution_sign(answer) is None


def test_the_named_maps_split_whole_solutions_of_files_too(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps({"question": "Q", "answer": GSM8K}))
    assert load_jsonl(path, COLUMN_MAPS["gsm8k"]) == [Problem("train-1", "Q", "72", "48/2 = 24 in May.\n48+24 = 72 in all.")]
    path.write_text(json.dumps({"problem": "Q", "solution": MATH, "level": "Level 1"}))
    assert load_jsonl(path, COLUMN_MAPS["math"]) == [Problem("train-1", "Q", r"\frac{4}{2}", MATH)]
    pq.write_table(pa.table({"problem": ["Q"], "solution": [MATH]}), tmp_path / "train.parquet")
    assert load_parquet(tmp_path / "train.parquet", COLUMN_MAPS["numina_cot"]) == [Problem("train-0", "Q", r"\frac{4}{2}", MATH)]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{1}" + "\n" + r"and thus \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed {3}", "3"),
        (r"$\boxed{\{1, 2\}}$", r"\{1, 2\}"),
        (r"\boxed{5} and again \boxed{5}", "5"),
    ],
)
def test_the_last_box_with_all_its_braces_is_the_answer(text, answer):
    assert split_boxed_answer(text) == (text, answer)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("no box", "has no"), (r"\boxed{1", "has no"), (r"\boxed{2} or \boxed{3}", "several boxed answers in one line: 2, 3")],
)
def test_a_solution_without_one_boxed_answer_says_so(text, reason):
    with pytest.raises(ValueError, match=reason):
        split_boxed_answer(text)


# ---- Columns and ids


def test_places_inside_a_column_are_named_by_a_path(tmp_path):
    row = {
        "prompt": [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}],
        "reward_model": {"ground_truth": 7},
        "a.b": "dotted",
    }
    columns = ColumnMap("prompt.-1.content", "reward_model.ground_truth", solution="a.b", meta=("prompt.0.role",))
    expected = [Problem("set-0", "Q", "7", "dotted", meta={"prompt.0.role": "system"})]
    data = datasets.Dataset.from_list([row])
    data.to_parquet(tmp_path / "set.parquet")
    assert from_dataset(data, columns, name="set") == load_parquet(tmp_path / "set.parquet", columns) == expected
    (tmp_path / "set.jsonl").write_text(json.dumps(row))
    assert load_jsonl(tmp_path / "set.jsonl", columns)[0].question == "Q"
    with pytest.raises(BadRowsError, match=r"question \(column 'prompt.2.content'\): is missing: no '2' in an array of 2"):
        from_dataset(data, ColumnMap("prompt.2.content", "a.b"))
    with pytest.raises(BadRowsError, match=r"answer \(column 'prompt.0.text'\): is missing: no 'text' in an object"):
        from_dataset(data, ColumnMap("a.b", "prompt.0.text"))
    with pytest.raises(ValueError, match=r"no column \['other.0'\]; there are \['prompt', 'reward_model', 'a.b'\]"):
        from_dataset(data, ColumnMap("other.0", "a.b"))
    with pytest.raises(ValueError, match="meta is one text, 'level'"):
        ColumnMap("q", "a", meta="level")


@pytest.mark.parametrize("solution", ["", None, "  "])
def test_an_empty_solution_is_none_unless_it_is_required(solution, tmp_path):
    row = {"question": "Q", "answer": "1", "solution": solution, "hints": None, "meta": None}
    (tmp_path / "set.jsonl").write_text(json.dumps(row))
    assert load_jsonl(tmp_path / "set.jsonl") == [Problem("set-1", "Q", "1")]
    with pytest.raises(BadRowsError, match="line 1: solution: is missing"):
        load_jsonl(tmp_path / "set.jsonl", required=["solution"])
    data = datasets.Dataset.from_list([{**row, "solution": solution}, {**row, "solution": "S"}])
    assert [p.solution for p in from_dataset(data, ColumnMap("question", "answer", solution="solution"))] == ["", "S"]


def test_rows_of_different_files_have_different_ids(tmp_path):
    for name in ("train", "test"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"question": f"{name}?", "answer": GSM8K}))
    ids = [load_jsonl(tmp_path / f"{name}.jsonl", COLUMN_MAPS["gsm8k"])[0].id for name in ("train", "test")]
    assert ids == ["train-1", "test-1"]
    loaded = [datasets.Dataset.from_json(str(tmp_path / f"{name}.jsonl"), cache_dir=tmp_path) for name in ("train", "test")]
    one, other = (from_dataset(data, COLUMN_MAPS["gsm8k"])[0].id for data in loaded)
    assert one != other and from_dataset(loaded[0], COLUMN_MAPS["gsm8k"])[0].id == one
    (tmp_path / "sums").mkdir()
    (tmp_path / "train.jsonl").rename(tmp_path / "sums" / "train.jsonl")
    named = datasets.load_dataset(str(tmp_path / "sums"), split="train", cache_dir=tmp_path)
    assert from_dataset(named, COLUMN_MAPS["gsm8k"])[0].id == "sums-train-0"


# ---- Compression, damage and hostility


def files_of(folder):
    """The same three problems in every form, with what reads each."""
    problems = [Problem(f"p{i}", f"What is {i} + {i}? " * 20, str(2 * i), f"{i} + {i} = {2 * i}") for i in range(1, 4)]
    save_jsonl(problems, folder / "set.jsonl")
    rows = [json.loads(line) for line in (folder / "set.jsonl").read_text().splitlines()]
    pq.write_table(pa.Table.from_pylist(rows), folder / "set.parquet")
    lines = [",".join(rows[0])] + [",".join(row.values()) for row in rows]
    (folder / "set.csv").write_text("\n".join(lines) + "\n")
    ways = {"set.jsonl": load_jsonl, "set.csv": load_csv, "set.parquet": load_parquet}
    for name in tuple(ways):
        (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
        ways[f"{name}.gz"] = ways[name]
    return problems, ways


def test_every_form_gives_the_same_problems_compressed_or_not_whatever_the_name(tmp_path):
    problems, ways = files_of(tmp_path)
    for name, load in ways.items():
        assert load(tmp_path / name) == problems, name
        (tmp_path / name).rename(tmp_path / "another")
        assert load(tmp_path / "another") == problems, name


def test_mutated_files_are_read_or_refused_in_the_documented_way_and_nothing_else(tmp_path):
    random.seed(0)
    _, ways = files_of(tmp_path)
    for name, load in ways.items():
        whole, refused = (tmp_path / name).read_bytes(), 0
        for _ in range(80):
            data = bytearray(whole)
            for _ in range(random.randint(1, 4)):
                place = random.randrange(len(data))
                data[place] = random.randrange(256)
            cut = random.choice((len(data), random.randrange(len(data))))
            (tmp_path / "mutated").write_bytes(data[:cut])
            try:
                load(tmp_path / "mutated")
            except ValueError as error:
                refused += 1
                assert "mutated" in str(error), error
        assert refused > 10, name


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("question".encode("utf-16"), "line 1: is UTF-16, not UTF-8"),
        (b"PAR1....", "line 1: is a Parquet file; load_parquet reads it"),
        (b"PK\x03\x04....", "line 1: is a zip archive"),
        (b"\x28\xb5\x2f\xfd....", "line 1: is compressed with zstd"),
    ],
)
def test_files_of_another_kind_are_named(content, words, tmp_path):
    (tmp_path / "set").write_bytes(content)
    for load in (load_jsonl, load_csv):
        with pytest.raises(BadRowsError, match=words):
            load(tmp_path / "set")
    with pytest.raises(BadRowsError, match=r"row 0: is no Parquet file|row 0: .*damaged"):
        load_parquet(tmp_path / "set")


def test_bad_bytes_and_cut_compression_name_their_line(tmp_path):
    good = b'{"question": "q", "answer": "1"}\n'
    (tmp_path / "set").write_bytes(good * 2 + b'{"question": "\xff"}\n')
    with pytest.raises(BadRowsError, match=r"set, line 3: is not UTF-8: byte 0xff at offset 14"):
        load_jsonl(tmp_path / "set")
    (tmp_path / "set").write_bytes(b"question,answer\na,b\n\xff,c\n")
    with pytest.raises(BadRowsError, match=r"set, line 3: is not UTF-8"):
        load_csv(tmp_path / "set")
    noise = "".join(random.Random(0).choices("abcdefgh", k=200_000))
    folded = gzip.compress(good * 2 + json.dumps({"question": noise, "answer": "1"}).encode())
    (tmp_path / "set").write_bytes(folded[: len(folded) // 2])
    with pytest.raises(BadRowsError, match="set, line 3: the compressed data end in the middle"):
        load_jsonl(tmp_path / "set")


@pytest.mark.parametrize("load", [load_jsonl, load_csv, load_parquet])
@pytest.mark.parametrize("content", [b"\n", b"x"])
def test_a_small_file_that_unfolds_to_much_is_refused_early(load, content, tmp_path, monkeypatch):
    monkeypatch.setattr(limited_files, "EXPECTED", 2**20)
    monkeypatch.setattr(limited_files, "LONGEST_LINE", 2**19)
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(content * 2**24))
    with pytest.raises(BadRowsError, match=r"bomb.gz, (line|row) \d+: (unfolds to more than|is longer than)"):
        load(tmp_path / "bomb.gz")


def test_a_table_that_unfolds_to_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("opsd_lab.basics.arrow_rows.LARGEST", 2**20)
    pq.write_table(pa.table({"question": ["x" * 2**12] * 2000, "answer": ["1"] * 2000}), tmp_path / "bomb.parquet")
    assert (tmp_path / "bomb.parquet").stat().st_size < 2**16
    with pytest.raises(BadRowsError, match=r"bomb.parquet, row \d+: unfolds to more than 1 MiB"):
        load_parquet(tmp_path / "bomb.parquet")


@pytest.mark.parametrize("load", [load_jsonl, load_csv, load_parquet])
def test_a_file_that_is_not_there_is_missed_by_its_name(load, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.x"):
        load(tmp_path / "none.x")
