import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from opsd_lab.tokens.files import MARK, load_table, save_table
from opsd_lab.tokens.table import COLUMNS, TokenTable
from opsd_lab.tokens.top import ARRAYS, TopTokens

HOSTILE = ["a", "\n", "é", "\x00", "", "</script>", "\u202e", "\ufffd", "🙂", " 7"]


def make_frame(tokens=HOSTILE, **columns) -> pd.DataFrame:
    n = len(tokens)
    rng = np.random.default_rng(0)
    numbers = {name: rng.normal(size=n) for name, dtype in COLUMNS.items() if dtype == "float64"}
    whole = {name: np.arange(n) * 3 for name, dtype in COLUMNS.items() if dtype == "int64"}
    texts = {"problem_id": "p", "label": "correct", "label_source": "human", "error_phase": "before", "outcome": "incorrect"}
    frame = pd.DataFrame(numbers | whole).assign(**texts, token=list(tokens), rollout=0, position=range(n), step=0)
    return frame.assign(gap=frame["teacher_logprob"] - frame["student_logprob"]).assign(**columns)


def make_top(n=10, k=3) -> TopTokens:
    rng = np.random.default_rng(1)
    logprobs = -np.sort(rng.exponential(size=(4, n, k)), axis=-1)
    logprobs[0, 0, -1] = -np.inf
    ids = rng.integers(0, 20, size=(2, n, k))
    return TopTokens(ids[0], logprobs[0], logprobs[1], ids[1], logprobs[2], logprobs[3], {i: f"<t{i}>\n" for i in range(20)})


def assert_same(one: TokenTable, other: TokenTable) -> None:
    pd.testing.assert_frame_equal(one.frame, other.frame, check_exact=True)
    assert (one.top is None) == (other.top is None)
    for name in ARRAYS if one.top else ():
        mine, theirs = getattr(one.top, name), getattr(other.top, name)
        assert mine.dtype == theirs.dtype and np.array_equal(mine, theirs)
        assert all(one.top.texts[i] == other.top.texts[i] for i in np.unique(one.top.student_top_ids).tolist())


@pytest.mark.parametrize("top", [None, make_top()], ids=["alone", "with the most probable tokens"])
def test_a_table_comes_back_exactly_from_pandas_and_from_parquet(tmp_path, top):
    frame = make_frame(divergence=[np.inf, 1e-300, 0.1 + 0.2, *[-0.0] * 7])
    table = TokenTable(frame, top)
    assert_same(table, TokenTable.from_pandas(table.to_pandas()))
    assert_same(table, load_table(save_table(table, tmp_path / "deep" / "table.parquet")))
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["table.parquet"], "nothing half-written stays behind"


def test_an_empty_table_comes_back_from_parquet_too(tmp_path):
    table = TokenTable(make_frame().iloc[:0])
    assert_same(table, load_table(save_table(table, tmp_path / "empty.parquet")))


def test_any_data_tool_can_read_the_lists_of_the_most_probable_tokens(tmp_path):
    top = make_top()
    rows = pq.read_table(save_table(TokenTable(make_frame(), top), tmp_path / "t.parquet")).to_pylist()
    assert rows[4]["student_top_ids"] == top.student_top_ids[4].tolist()
    assert rows[4]["teacher_top_tokens"] == [top.texts[i] for i in top.teacher_top_ids[4].tolist()]


def test_a_file_of_another_schema_version_is_refused_with_the_remedy(tmp_path):
    path = save_table(TokenTable(make_frame()), tmp_path / "t.parquet")
    rows = pq.read_table(path)
    pq.write_table(rows.replace_schema_metadata(rows.schema.metadata | {MARK.key: json.dumps({"version": 99}).encode()}), path)
    with pytest.raises(ValueError, match=r"version 99 .* this is version 1; score the rollouts again"):
        load_table(path)


def test_files_that_hold_no_token_table_are_refused(tmp_path):
    make_frame().to_parquet(tmp_path / "other.parquet")
    (tmp_path / "text.parquet").write_text("not parquet")
    for name, message in (("other", "not one of a TokenTable"), ("text", "not a Parquet file")):
        with pytest.raises(ValueError, match=message):
            load_table(tmp_path / f"{name}.parquet")
    with pytest.raises(FileNotFoundError):
        load_table(tmp_path / "absent.parquet")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"divergence": [0.1] * 9 + [np.nan]}, "column 'divergence' has no value in row 9"),
        ({"token": [None] * 10}, r"column 'token' has no value in row 0 \(10 such rows\)"),
        ({"error_phase": "later"}, r"unknown values \['later'\] in column 'error_phase'"),
        ({"outcome": "right"}, "in column 'outcome'"),
        ({"outcome": ["correct"] * 9 + ["incorrect"]}, "rollout 0 has more than one outcome"),
        ({"problem_id": ["p"] * 9 + ["q"]}, "rollout 0 has more than one problem_id"),
        ({"position": [0, 1, 2, 3, 4, 5, 6, 7, 8, 8]}, "rollout 0 has two tokens at position 8"),
    ],
)
def test_a_table_that_contradicts_itself_names_the_place(changes, message):
    with pytest.raises(ValueError, match=message):
        TokenTable(make_frame(**changes))


def test_columns_that_nobody_has_filled_yet_may_be_left_out():
    table = TokenTable(make_frame().drop(columns=["label_source", "error_phase", "outcome"]))
    assert set(table.frame["error_phase"]) | set(table.frame["outcome"]) == {""}


def test_rows_are_taken_together_with_their_most_probable_tokens():
    table = TokenTable(make_frame(), make_top())
    two = TokenTable.concatenate([table, table])
    assert np.array_equal(two.rollout(1).top.student_top_ids, table.top.student_top_ids)
    few = table.select(table.frame["position"] > 6)
    assert len(few) == 3 and np.array_equal(few.top.teacher_top_logprobs, table.top.teacher_top_logprobs[7:])


def test_lists_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="10 tokens but the most probable tokens of 9"):
        TokenTable(make_frame(), make_top(9))
    with pytest.raises(ValueError, match="only some of the tables"):
        TokenTable.concatenate([TokenTable(make_frame()), TokenTable(make_frame(), make_top())])
    with pytest.raises(ValueError, match=r"different k cannot be joined: \[2, 3\]"):
        TopTokens.concatenate([make_top(k=2), make_top(k=3)])
    frame = TokenTable(make_frame(), make_top()).to_pandas()
    with pytest.raises(ValueError, match="come together or not at all"):
        TokenTable.from_pandas(frame.drop(columns="teacher_top_ids"))
    with pytest.raises(ValueError, match="has no text"):
        TopTokens(*[make_top().student_top_ids] * 6, texts={})
