import numpy as np
import pytest

from opsd_lab.diagnostics.position import mean_by_position
from tests.diagnostics.tables import build, row, simulated


def test_each_token_counts_in_the_bin_of_its_relative_position():
    table = build({"gap": [1.0, 3.0, 5.0, 7.0]}, {"gap": [10.0, 20.0], "problem_id": "p1"})
    result = mean_by_position(table, bins=2)
    assert row(result, "0-50 %")["mean"] == pytest.approx((1 + 3 + 10) / 3)
    assert row(result, "50-100 %")["mean"] == pytest.approx((5 + 7 + 20) / 3)
    assert row(result, "all")["mean"] == pytest.approx(46 / 6) and row(result, "all")["n_tokens"] == 6


def test_the_bins_share_out_every_token_and_any_column_can_be_averaged():
    table = simulated(0)
    result = mean_by_position(table, "divergence", bins=5)
    bins = result.iloc[1:]
    assert bins["n_tokens"].sum() == len(table)
    assert np.average(bins["mean"], weights=bins["n_tokens"]) == pytest.approx(table.frame["divergence"].mean())
    assert (bins["low"] < bins["mean"]).all() and (bins["mean"] < bins["high"]).all()


def test_no_bins_and_columns_without_numbers_are_refused():
    with pytest.raises(ValueError, match="bins is 0"):
        mean_by_position(simulated(0), bins=0)
    with pytest.raises(ValueError, match="column 'token' holds no numbers"):
        mean_by_position(simulated(0), "token")
