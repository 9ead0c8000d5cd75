"""TokenTables on disk: a damaged file is refused in the documented way, whatever happened to it."""

import random
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from opsd_lab.tokens.files import MARK, load_table, save_table
from opsd_lab.tokens.table import TokenTable
from tests.test_token_table import make_frame, make_top


@pytest.fixture
def whole(tmp_path):
    return save_table(TokenTable(make_frame(), make_top()), tmp_path / "whole.parquet").read_bytes()


def mutated(whole, chance):
    data = bytearray(whole)
    for _ in range(chance.randint(0, 3)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    place = chance.randrange(len(data))
    match chance.randrange(5):
        case 0:
            del data[place:]
        case 1:
            del data[place : place + chance.randint(1, 40)]
        case 2:
            data[place:place] = chance.randbytes(chance.randint(1, 40))
        case 3:
            data[place : place + 64] = bytes(64)
    return bytes(data)


def test_mutated_files_are_refused_with_their_name_or_hold_a_whole_table(whole, tmp_path):
    chance, refused = random.Random(0), 0
    for _ in range(400):
        (tmp_path / "mutated.parquet").write_bytes(mutated(whole, chance))
        try:
            assert len(load_table(tmp_path / "mutated.parquet")) > 0
        except ValueError as error:
            refused += 1
            assert str(error).startswith(f"{tmp_path / 'mutated.parquet'}: ")
    assert refused > 200


def test_a_flipped_bit_in_a_number_is_found(whole, tmp_path):
    found = 0
    for place in range(200, len(whole) // 2, 97):
        data = bytearray(whole)
        data[place] ^= 1
        (tmp_path / "flipped.parquet").write_bytes(data)
        try:
            table = load_table(tmp_path / "flipped.parquet")
        except ValueError:
            found += 1
        else:
            assert table.to_pandas().astype(str).equals(TokenTable(make_frame(), make_top()).to_pandas().astype(str))
    assert found > 10


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows.drop_columns(["gap"]), "damaged, or changed .*its columns are not those that were written"),
        (
            lambda rows: rows.append_column("more", pa.array([1] * len(rows))),
            "damaged, or changed .*its columns are not those that were written",
        ),
        (lambda rows: rows.set_column(0, "rollout", pa.array(["x"] * len(rows))), "column 'rollout' is not of type int64"),
        (lambda rows: rows.set_column(7, "gap", pa.array(np.full(len(rows), 99.0))), "gap is not teacher_logprob"),
        (lambda rows: rows.replace_schema_metadata({}), "a Parquet file, but not one of a TokenTable"),
        (lambda rows: rows.replace_schema_metadata({MARK.key: b"{broken"}), "version None"),
        (lambda rows: rows.replace_schema_metadata({MARK.key: b"[]"}), "version None"),
        (lambda rows: rows.replace_schema_metadata({MARK.key: b'{"version": 2}'}), "version 2 of the columns for a TokenTable"),
    ],
)
def test_a_table_of_another_schema_is_refused_with_what_differs(whole, tmp_path, change, words):
    path = tmp_path / "changed.parquet"
    pq.write_table(change(pq.read_table(tmp_path / "whole.parquet")), path)
    with pytest.raises(ValueError, match=f"changed.parquet: .*{words}"):
        load_table(path)


def test_half_a_character_is_refused_with_its_row_where_a_table_is_made():
    frame = make_frame().astype({"token": object, "problem_id": object, "label_source": object})
    for column in ("token", "problem_id", "label_source"):
        changed = frame.copy()
        changed.loc[changed.index[3], column] = "x\ud83d"
        with pytest.raises(ValueError, match=rf"column '{column}' holds half of a surrogate pair in row 3, 'x\\ud83d'"):
            TokenTable(changed)
    with pytest.raises(ValueError, match="column 'label_source' holds half of a surrogate pair in row 0"):
        TokenTable(make_frame()).with_columns(label_source="\udc00")
    top = make_top()
    with pytest.raises(ValueError, match=r"the text of token id .*half of a surrogate pair"):
        replace(top, texts=dict.fromkeys(top.texts, "\ud83d"))
