import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.stats import mannwhitneyu

from opsd_lab.diagnostics.first_wrong_step import BASELINE, SIGNALS, first_wrong_step, score_steps
from opsd_lab.tokens.table import TokenTable
from tests.test_token_table import make_frame


def make_table(*texts: list[str]) -> TokenTable:
    frames = [make_frame(tokens, rollout=i, problem_id=f"p{i // 2}") for i, tokens in enumerate(texts)]
    return TokenTable(pd.concat(frames))


FIRST = ["One", ".", " Two", " and", " half", ".", "\n", "Three", "."]
SECOND = ["All", " right", "."]


def test_segments_before_the_marked_span_are_right_and_those_after_it_unjudged():
    steps = score_steps(make_table(FIRST, SECOND), [(5, 14), None])
    assert steps["label"].tolist() == ["correct", "incorrect", "unverifiable", "correct"]
    assert steps["rollout"].tolist() == [0, 0, 0, 1] and steps["step"].tolist() == [0, 1, 2, 0]
    assert steps["tokens"].tolist() == [2, 4, 2, 3], "the newline between two segments belongs to neither"


def test_a_step_carries_the_means_of_its_own_tokens():
    table = make_table(FIRST)
    row = score_steps(table, [(5, 14)]).iloc[1]
    for name in SIGNALS:
        assert row[name] == pytest.approx(table.frame[name][2:6].mean())


def test_a_span_over_two_segments_makes_both_the_wrong_step():
    assert score_steps(make_table(FIRST), [(0, 8)])["label"].tolist() == ["incorrect", "incorrect", "unverifiable"]


def test_the_segments_do_not_depend_on_the_annotation():
    marked, unmarked = (score_steps(make_table(FIRST), [span]) for span in ((7, 9), None))
    pd.testing.assert_frame_equal(marked.drop(columns="label"), unmarked.drop(columns="label"))


def test_annotations_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="1 annotations for 2 rollouts"):
        score_steps(make_table(FIRST, SECOND), [None])
    with pytest.raises(ValueError, match=r"wrong step \(400, 410\) of rollout 0 lies in none"):
        score_steps(make_table(FIRST), [(400, 410)])


def random_steps(problems=40, seed=0, shift=1.0) -> pd.DataFrame:
    rng, rows = np.random.default_rng(seed), []
    for rollout in range(2 * problems):
        count = int(rng.integers(2, 9))
        wrong = int(rng.integers(0, count)) if rollout % 4 else None
        for step in range(count):
            label = "correct" if wrong is None or step < wrong else "incorrect" if step == wrong else "unverifiable"
            values = rng.normal(size=len(SIGNALS)).round(1)  # ties
            rows.append({"rollout": rollout, "problem_id": f"p{rollout // 2}", "step": step, "tokens": 3, "label": label})
            rows[-1] |= dict(zip(SIGNALS, values, strict=True))
            rows[-1]["gap"] -= shift * (label == "incorrect")
    return pd.DataFrame(rows)


def row_of(result: pd.DataFrame, measure: str, signal: str) -> pd.Series:
    return result[(result["measure"] == measure) & (result["signal"] == signal)].iloc[0]


@pytest.mark.parametrize("signal", SIGNALS)
def test_the_area_under_the_curve_is_the_one_of_the_rank_test(signal):
    steps = random_steps()
    groups = [steps.loc[steps["label"] == label, signal] * SIGNALS[signal] for label in ("incorrect", "correct")]
    expected = mannwhitneyu(*groups).statistic / (len(groups[0]) * len(groups[1]))
    assert row_of(first_wrong_step(steps), "auroc", signal)["mean"] == pytest.approx(expected)


def test_the_bounds_of_an_area_are_those_of_leaving_out_each_problem_written_out():
    steps = random_steps(12)

    def area(frame):
        wrong, right = (-frame.loc[frame["label"] == label, "gap"].to_numpy() for label in ("incorrect", "correct"))
        return ((wrong[:, None] > right) + 0.5 * (wrong[:, None] == right)).mean()

    whole = area(steps)
    without = np.array([area(steps[steps["problem_id"] != name]) for name in steps["problem_id"].unique()])
    variance = 11 / 12 * np.sum((without - whole) ** 2)
    found = row_of(first_wrong_step(steps), "auroc", "gap")
    sizes = [steps[steps["label"] == label].groupby("problem_id").size().to_numpy() for label in ("incorrect", "correct")]
    t = stats.t.ppf(0.975, min(size.sum() ** 2 / (size**2).sum() for size in sizes) - 1)
    trials = whole * (1 - whole) / variance
    centre = (whole * trials + t**2 / 2) / (trials + t**2)
    half = t * np.sqrt(centre * (1 - centre) / (trials + t**2))
    long_tail = np.sum((whole - without) ** 3)  # on whose side the bound may lie farther
    assert found["low"] == pytest.approx(centre - half) if long_tail > 0 else found["low"] <= centre - half + 1e-12
    assert found["high"] == pytest.approx(centre + half) if long_tail < 0 else found["high"] >= centre + half - 1e-12
    assert (found["n"], found["unit"], found["baseline"]) == (12, "problems", BASELINE)


def test_a_signal_that_is_always_right_is_not_known_to_be_so_for_ever():
    steps = random_steps(20)
    steps["gap"] = np.where(steps["label"] == "incorrect", -5.0, 0.0)
    found = row_of(first_wrong_step(steps), "auroc", "gap")
    assert found["mean"] == found["high"] == 1 and found["low"] < 0.95


def test_localisation_counts_hits_among_all_segments_and_shares_ties():
    def solution(rollout, gaps, wrong):
        labels = ["correct" if i < wrong else "incorrect" if i == wrong else "unverifiable" for i in range(len(gaps))]
        about = {"rollout": rollout, "problem_id": f"p{rollout}", "tokens": 1}
        return pd.DataFrame({"step": range(len(gaps)), "label": labels, **dict.fromkeys(SIGNALS, 0.0), "gap": gaps}).assign(**about)

    steps = pd.concat([solution(0, [0, -3, 0], 1), solution(1, [0, -1, -5, 0], 1), solution(2, [-2, -2], 1), solution(3, [-1, 0], 0)])
    result = first_wrong_step(steps)
    top, within = row_of(result, "top-1", "gap"), row_of(result, "auroc within", "gap")
    assert top["mean"] == pytest.approx((1 + 0 + 0.5 + 1) / 4) and top["n_solutions"] == 4
    assert top["chance"] == pytest.approx((1 / 3 + 1 / 4 + 1 / 2 + 1 / 2) / 4)
    assert within["mean"] == pytest.approx((1 + 1 + 0.5) / 3) and within["n_solutions"] == 3
    assert row_of(result, "top-1", BASELINE)["mean"] == pytest.approx(top["chance"]), "a constant signal is a blind guess"


def test_a_signal_is_compared_with_the_baseline_on_the_same_problems():
    steps = random_steps(shift=2.0)
    steps["divergence"] = -steps[BASELINE]
    result = first_wrong_step(steps)
    same, better = row_of(result, "auroc", "divergence"), row_of(result, "auroc", "gap")
    assert (same["difference"], same["difference_low"], same["difference_high"]) == (0, 0, 0)
    assert better["difference_low"] > 0 and better["difference"] == pytest.approx(better["mean"] - same["mean"])


def test_a_signal_without_information_is_seldom_told_from_chance():
    covered = []
    for seed in range(40):
        found = row_of(first_wrong_step(random_steps(30, seed, shift=0.0), {"gap": -1}), "auroc", "gap")
        covered.append(found["low"] <= 0.5 <= found["high"])
    assert sum(covered) >= 34


def test_steps_of_one_kind_only_are_refused():
    with pytest.raises(ValueError, match="no steps labelled incorrect"):
        first_wrong_step(random_steps().query("label != 'incorrect'"))


def test_another_baseline_is_what_a_signal_is_compared_with():
    steps = random_steps(30)
    found = first_wrong_step(steps, {"gap": -1, "divergence": 1}, "divergence")
    own = first_wrong_step(steps, {"gap": -1, "divergence": 1})
    row, base = row_of(found, "auroc", "gap"), row_of(own, "auroc", "divergence")
    assert row["baseline"] == "divergence" and row["difference"] == pytest.approx(row["mean"] - base["mean"])
    assert row_of(found, "auroc", "divergence")["difference"] == 0
    with pytest.raises(ValueError, match="the baseline 'x' is none of gap, divergence"):
        first_wrong_step(steps, {"gap": -1}, "x")
