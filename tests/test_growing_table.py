import pandas as pd
import pytest

from opsd_lab.basics.growing_table import GrowingTable


def part(key, *numbers):
    return pd.DataFrame({"number": numbers, "settings": key})


def test_parts_stand_in_their_order_however_they_came_and_those_that_are_there_are_not_missing(tmp_path):
    path, parts = tmp_path / "folder" / "rows.parquet", ["c", "a", "b"]
    table = GrowingTable(path, parts)
    assert table.missing == parts
    with pytest.raises(ValueError, match="nothing has been measured yet"):
        table.rows  # noqa: B018
    table.add(pd.concat([part("b", 3), part("a", 2, 4)]))
    again = GrowingTable(path, parts)
    assert again.missing == ["c"] and again.rows["number"].tolist() == [2, 4, 3]
    again.add(part("c", 1))
    assert pd.read_parquet(path)["number"].tolist() == [1, 2, 4, 3] and not again.missing


def test_a_file_with_other_parts_or_none_is_refused_and_stays(tmp_path):
    path = tmp_path / "rows.parquet"
    GrowingTable(path, ["a"]).add(part("a", 1))
    with pytest.raises(ValueError, match=r"rows\.parquet holds another measurement, .*; name another file, or delete it"):
        GrowingTable(path, ["b"])
    pd.DataFrame({"number": [1]}).to_parquet(path)
    with pytest.raises(ValueError, match="holds another measurement"):
        GrowingTable(path, ["a"])
