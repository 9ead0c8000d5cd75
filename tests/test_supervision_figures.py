import json
import math

import numpy as np
import pandas as pd
import pytest

from opsd_lab.diagnostics import by_view, compare_views, divergence_by_class, mean_by_position, step_gap
from opsd_lab.figures.supervision import (
    draw_compare_views,
    draw_depth_decay,
    draw_divergence_by_class,
    draw_first_wrong_step,
    draw_gap_distributions,
    draw_intervals,
    draw_mean_by_position,
    draw_step_gap,
)
from opsd_lab.figures.training import TEMPLATE
from tests.diagnostics.tables import build, row, simulated

NAN = math.nan
HOSTILE = "<script>alert(1)</script> $x$ &"
ESCAPED = "&lt;script&gt;alert(1)&lt;/script&gt; &#36;x&#36; &amp;"
ROWS = pd.DataFrame(
    {
        "label": ["first", "second", "third"],
        "mean": [0.5, -0.25, NAN],
        "low": [0.4, NAN, NAN],
        "high": [0.7, NAN, NAN],
        "n": [12, 12, 12],
        "unit": "problems",
        "n_tokens": [4000, 7, 0],
    }
)
TABLE = simulated(3, problems=6)
TABLES = {"reference": TABLE, "none": simulated(4, problems=6).with_columns(label=TABLE.frame["label"])}
GAPS = by_view(step_gap, TABLES)
STEPS = GAPS[GAPS["per"] == "step"]
POSITIONS = by_view(mean_by_position, TABLES, bins=4)
CLASSES = divergence_by_class(TABLE)
SIGNALS = pd.DataFrame(
    [
        {"measure": measure, "signal": signal, "mean": mean, "low": mean - 0.1, "high": mean + 0.2, "chance": chance}
        | {"difference": 0.02, "difference_low": -0.04, "difference_high": 0.06, "baseline": "student_logprob"}
        | {"n": 30, "unit": "problems", "n_solutions": n}
        for measure, chance, n in (("auroc", 0.5, 40), ("top-1", 0.21, 25))
        for signal, mean in (("gap", 0.6), ("student_logprob", 0.55))
    ]
)
DEPTHS = pd.DataFrame(
    [
        {
            "depth": depth,
            "who": who,
            "mean": mean,
            "low": mean - 0.1,
            "high": mean + 0.05,
            "n": 48,
            "unit": "problems",
            "n_rollouts": 96,
        }
        for depth, values in ((0.5, (0.3, 0.6, 0.3)), (0.0, (0.5, 0.9, 0.4)))
        for who, mean in zip(("student", "teacher", "teacher - student"), values, strict=True)
    ]
)
FIGURES = {
    "intervals": lambda: draw_intervals(ROWS, "label", "gap (nats)", "Some gaps"),
    "distributions": lambda: draw_gap_distributions(TABLE),
    "positions": lambda: draw_mean_by_position(POSITIONS, "view"),
    "classes": lambda: draw_divergence_by_class(CLASSES),
    "step gap": lambda: draw_step_gap(GAPS),
    "views": lambda: draw_compare_views(compare_views(TABLES, "none")),
    "first wrong step": lambda: draw_first_wrong_step(SIGNALS),
    "depths": lambda: draw_depth_decay(DEPTHS),
}


def dots(figure):
    """The traces of means, without those that only hold intervals or bands."""
    return [trace for trace in figure.data if trace.customdata is not None]


def bars(figure, axis="x"):
    """Return the ends of all intervals drawn as bars."""
    found = []
    for trace in figure.data:
        error = trace[f"error_{axis}"]
        if error.array is not None:
            found += [(at - below, at + above) for at, below, above in zip(trace[axis], error.arrayminus, error.array, strict=True)]
    return found


def notes(figure):
    return [note.text for note in figure.layout.annotations]


def written(figure):
    """Return all that the figure can show, as one string."""
    return json.dumps(figure.to_plotly_json(), default=lambda array: np.asarray(array).tolist(), ensure_ascii=False)


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_every_figure_has_the_common_look_and_its_n_in_the_title(draw):
    figure = draw()
    assert figure.layout.template == TEMPLATE
    assert "n = " in figure.layout.title.text and "problems" in figure.layout.title.text
    assert figure.layout.height < 900


def test_intervals_are_those_of_the_frame_in_its_order():
    figure = draw_intervals(ROWS, "label", "gap (nats)", "Some gaps")
    (means,) = dots(figure)
    np.testing.assert_array_equal(means.x, ROWS["mean"])
    assert list(means.y) == [0, 1, 2] and figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1]
    assert bars(figure) == [pytest.approx((0.4, 0.7))]
    assert "n = 12 problems, 0–4,000 tokens" in figure.layout.title.text
    assert [text.split("<br>")[0] for text in figure.layout.yaxis.ticktext] == ["first", "second", "third"]
    assert "n = 4,000 tokens" in figure.layout.yaxis.ticktext[0] and "problems" not in figure.layout.yaxis.ticktext[0]


def test_intervals_are_printed_and_missing_ones_are_said_to_be_missing():
    texts = notes(draw_intervals(ROWS, "label", "gap", "t"))
    assert [text for text in texts if "span" not in text] == ["0.50 [0.40, 0.70]", "−0.25, no interval", "no value"]


def test_several_label_columns_tell_rows_apart_together():
    frame = ROWS.assign(label=["a", "a", "b"], view=["x", "y", "x"])
    figure = draw_intervals(frame, ["view", "label"], "gap", "t")
    assert [text.split("<br>")[0] for text in figure.layout.yaxis.ticktext] == ["x · a", "y · a", "x · b"]
    with pytest.raises(ValueError, match=r"several rows have \{'label': 'a'\}"):
        draw_intervals(frame, "label", "gap", "t")


def test_long_labels_and_titles_are_wrapped_and_nothing_of_them_is_lost():
    long = "a view whose name goes on and on until it could never stand in one line"
    figure = draw_intervals(ROWS.assign(label=[long, "b", "c"]).drop(columns="n_tokens"), "label", "gap", long * 3)
    lines = figure.layout.yaxis.ticktext[0].split("<br>")
    assert " ".join(lines) == long and max(map(len, lines)) <= 32
    assert figure.layout.title.text.split("<br><span")[0].replace("<br>", " ") == long * 3


SPREAD = build(
    {"gap": [0.0, 1, 2, 3, 4, 50], "step": [0, 0, 0, 1, 1, 2], "label": ["correct"] * 5 + ["incorrect"], "problem_id": "p"},
    {"gap": [-1.0, 9], "step": [0, -1], "label": ["incorrect", ""], "problem_id": "q"},
)


@pytest.mark.parametrize("per", ["token", "step"])
def test_distributions_have_the_mean_of_step_gap_and_the_counts_of_each_row(per):
    figure = draw_gap_distributions(SPREAD, per=per)
    expected = step_gap(SPREAD)
    means = [trace.x[0] for trace in figure.data if trace.type == "scatter"]
    assert means == pytest.approx([row(expected, per, label)["mean"] for label in ("correct", "incorrect")])
    correct, incorrect, none = figure.layout.yaxis.ticktext
    assert all(words in correct for words in ("n = 1 problem<br>", "2 steps", "5 tokens"))
    assert all(words in incorrect for words in ("n = 2 problems", "2 steps", "2 tokens"))
    assert "0 tokens" in none and any("no value" in note for note in notes(figure))
    assert "n = 2 problems, 4 steps, 7 tokens" in figure.layout.title.text


def test_boxes_hold_quantiles_and_histograms_shares_of_their_row():
    figure = draw_gap_distributions(SPREAD)
    box = next(trace for trace in figure.data if trace.type == "box")
    assert [box[key][0] for key in ("lowerfence", "q1", "median", "q3", "upperfence")] == pytest.approx([0.2, 1, 2, 3, 3.8])
    histogram = next(trace for trace in figure.data if trace.type == "bar")
    shares = [float(text.split("%")[0]) for text in histogram.customdata]
    assert sum(shares) == pytest.approx(100) and sorted(shares)[-5:] == [20] * 5
    heights = -np.array(histogram.y)
    assert heights[np.array(shares) > 0] == pytest.approx(heights.max())


def test_an_axis_cut_before_heavy_tails_says_how_many_values_lie_outside():
    gaps = np.concatenate([np.linspace(-1, 1, 998), [-500, 70]])
    table = build({"gap": gaps, "label": "correct", "step": 0})
    figure = draw_gap_distributions(table)
    low, high = figure.layout.xaxis.range
    assert low == pytest.approx(np.quantile(gaps, 0.01)) and high == pytest.approx(np.quantile(gaps, 0.99))
    below, above = (gaps < low).sum(), (gaps > high).sum()
    assert figure.layout.xaxis.title.text.endswith(
        f"the axis is cut: of 1,000 tokens, {below} below −0.982 and {above} above 0.982 lie outside"
    )
    assert {f"◀ {below}", f"{above} ▶"} <= set(notes(figure))


def test_an_axis_without_heavy_tails_shows_every_value_and_says_nothing():
    figure = draw_gap_distributions(build({"gap": np.linspace(0.5, 1, 50), "label": "correct", "step": 0}))
    assert figure.layout.xaxis.range == (0, 1) and figure.layout.xaxis.title.text == "gap of each token (nats)"
    assert not any("▶" in note for note in notes(figure))


def test_values_that_are_all_zero_still_have_an_axis():
    low, high = draw_gap_distributions(build({"gap": [0.0, 0.0], "label": "correct", "step": 0})).layout.xaxis.range
    assert low < 0 < high


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        (SPREAD, {"per": "rollout"}, "per is 'rollout'"),
        (SPREAD, {"column": "token"}, "column 'token' holds no numbers"),
        (build({"gap": [1.0]}), {}, "no step of the table is labelled"),
        (SPREAD.select(np.zeros(8, dtype=bool)), {}, "the table is empty"),
    ],
)
def test_distributions_of_nothing_are_refused(table, options, message):
    with pytest.raises(ValueError, match=f"draw_gap_distributions: .*{message}"):
        draw_gap_distributions(table, **options)


def test_position_lines_run_through_the_middles_of_bins_and_leave_the_whole_out():
    figure = draw_mean_by_position(POSITIONS, "view")
    for trace, (view, rows) in zip(dots(figure), POSITIONS.groupby("view", sort=False), strict=True):
        assert trace.name == view and list(trace.x) == [0.125, 0.375, 0.625, 0.875]
        assert list(trace.y) == rows["mean"].tolist()[1:]
    assert len({trace.line.dash for trace in dots(figure)}) == len({trace.marker.symbol for trace in dots(figure)}) == 2
    band = next(trace for trace in figure.data if trace.fill == "toself")
    first = POSITIONS[POSITIONS["view"] == "reference"][1:]
    assert list(band.y) == [*first["high"], *first["low"][::-1]]


def test_many_position_lines_have_bars_side_by_side_instead_of_bands():
    frame = pd.concat([POSITIONS[POSITIONS["view"] == "none"].assign(view=f"v{i}") for i in range(7)])
    figure = draw_mean_by_position(frame, "view")
    assert not any(trace.fill for trace in figure.data) and len(bars(figure, "y")) == 28
    assert bars(figure, "y")[0] == pytest.approx(tuple(frame.iloc[1][["low", "high"]]))
    x = np.array([trace.x for trace in dots(figure)])
    assert len(set(x[:, 0])) == 7 and (x[:, 0] < 0.25).all() and (x[:, 1] > 0.25).all()
    assert len({(trace.marker.symbol) for trace in dots(figure)}) == 7


def test_a_bin_without_a_value_or_an_interval_interrupts_line_and_band():
    frame = POSITIONS[POSITIONS["view"] == "none"].reset_index(drop=True)
    frame.loc[2, ["low", "high"]] = NAN
    figure = draw_mean_by_position(frame)
    band = next(trace for trace in figure.data if trace.fill == "toself")
    assert list(band.x) == [0.625, 0.875, 0.875, 0.625]
    assert bars(figure, "y") == [pytest.approx(tuple(frame.loc[1, ["low", "high"]]))]
    frame.loc[2, "mean"] = NAN
    assert math.isnan(dots(draw_mean_by_position(frame))[0].y[1])


def test_class_shares_and_means_stand_side_by_side_in_the_order_of_the_frame():
    figure = draw_divergence_by_class(CLASSES)
    share, divergence = dots(figure)
    for trace, measure in ((share, "share"), (divergence, "divergence")):
        np.testing.assert_array_equal(trace.x, CLASSES[CLASSES["measure"] == measure]["mean"])
    names = [text.split("<br>")[0] for text in figure.layout.yaxis.ticktext]
    assert names == CLASSES["token_class"].unique().tolist()
    drawn = CLASSES[CLASSES["measure"] == "share"].dropna(subset=["low"])
    assert bars(figure)[: len(drawn)] == [pytest.approx(pair) for pair in zip(drawn["low"], drawn["high"], strict=True)]


def test_classes_that_the_measures_order_differently_keep_their_own_numbers():
    figure = draw_divergence_by_class(CLASSES.iloc[::-1])
    share, divergence = dots(figure)
    names = [text.split("<br>")[0] for text in figure.layout.yaxis.ticktext]
    for trace, measure in ((share, "share"), (divergence, "divergence")):
        for value, place in zip(trace.x, trace.y, strict=True):
            np.testing.assert_equal(value, row(CLASSES, measure, names[place])["mean"])


def test_views_show_correct_and_incorrect_steps_and_the_contrast():
    figure = draw_step_gap(GAPS, "step")
    correct, incorrect, contrast = dots(figure)
    for trace, label in ((correct, "correct"), (incorrect, "incorrect"), (contrast, "incorrect - correct")):
        rows = STEPS[STEPS["label"] == label]
        assert list(trace.x) == rows["mean"].tolist()
        assert [round(place) for place in trace.y] == [0, 1]
    assert [trace.name for trace in (correct, incorrect)] == ["correct steps", "incorrect steps"]
    assert len({trace.marker.symbol for trace in dots(figure)}) == 3
    assert contrast.xaxis == "x2" and incorrect.xaxis == "x"
    counts = {label: row(STEPS[STEPS["view"] == "none"], "none", "step", label)["n_steps"] for label in ("correct", "incorrect")}
    assert all(f"{count} {label} steps" in figure.layout.yaxis.ticktext[1] for label, count in counts.items())


def test_views_take_differences_from_a_baseline_as_well():
    frame = compare_views(TABLES, "none")
    figure = draw_compare_views(frame, value_title="gap minus none")
    assert dots(figure)[2].x[0] == row(frame, "reference", "none", "incorrect - correct")["mean"]
    assert dots(figure)[0].name == "correct tokens" and figure.layout.xaxis.title.text == "gap minus none"


def test_one_view_alone_has_one_row():
    figure = draw_step_gap(step_gap(TABLE))
    assert len(figure.layout.yaxis.ticktext) == 1 and [len(trace.x) for trace in dots(figure)] == [1, 1, 1]


def test_views_without_labels_or_told_apart_by_nothing_are_refused():
    with pytest.raises(ValueError, match=r"draw_step_gap: several rows have \{'per': 'token', 'label': 'correct'\}"):
        draw_step_gap(GAPS.drop(columns="view"))
    with pytest.raises(ValueError, match="draw_step_gap: no row has label 'incorrect - correct'"):
        draw_step_gap(GAPS[GAPS["label"] != "incorrect - correct"])


def test_first_wrong_steps_have_a_panel_per_measure_with_chance_and_baseline():
    figure = draw_first_wrong_step(SIGNALS)
    auroc, top = dots(figure)
    assert (list(auroc.x), list(top.x)) == ([0.6, 0.55], [0.6, 0.55]) and top.xaxis == "x2"
    assert bars(figure)[0] == pytest.approx((0.5, 0.8))
    lines = [shape for shape in figure.layout.shapes if shape.type == "line"]
    assert [(line.x0, line.xref) for line in lines] == [(0.5, "x"), (0.21, "x2")]
    heads = notes(figure)
    assert "auroc" in heads[0] and "chance 0.50" in heads[0] and "40 solutions" in heads[0]
    assert "top-1" in heads[1] and "chance 0.21" in heads[1] and "25 solutions" in heads[1]
    assert ["baseline" in text for text in figure.layout.yaxis.ticktext] == [False, True]
    shades = [shape for shape in figure.layout.shapes if shape.type == "rect"]
    assert [(shade.y0, shade.y1) for shade in shades] == [(0.5, 1.5)] * 2
    assert "above the baseline: 0.020 [−0.040, 0.060]" in auroc.customdata[0]


def test_views_of_a_first_wrong_step_stand_beside_each_other_in_each_row():
    frame = pd.concat([SIGNALS.assign(view="a"), SIGNALS.assign(view="b", mean=SIGNALS["mean"] + 0.01)])
    a, b, *_ = dots(draw_first_wrong_step(frame))
    assert (a.name, b.name) == ("a", "b") and a.marker.symbol != b.marker.symbol
    assert list(b.x) == pytest.approx([0.61, 0.56])
    assert a.y[0] < 0 < b.y[0] < 0.5 < a.y[1]


def test_depths_are_drawn_in_order_for_both_sides_with_the_difference_below():
    student, teacher, difference = dots(draw_depth_decay(DEPTHS))
    assert (list(student.x), list(student.y)) == ([0, 0.5], [0.5, 0.3])
    assert list(teacher.y) == [0.9, 0.6] and list(difference.y) == [0.4, 0.3]
    assert difference.yaxis == "y2" and teacher.yaxis == "y"
    assert len({trace.line.dash for trace in (student, teacher, difference)}) == 3


@pytest.mark.parametrize(
    "figure",
    [
        lambda: draw_intervals(ROWS.assign(label=[HOSTILE, "b", "c"]), "label", HOSTILE, HOSTILE),
        lambda: draw_mean_by_position(POSITIONS.replace({"view": {"none": HOSTILE}}), "view", value_title=HOSTILE, title=HOSTILE),
        lambda: draw_divergence_by_class(CLASSES.replace({"token_class": {"number": HOSTILE}}), title=HOSTILE),
        lambda: draw_step_gap(GAPS.replace({"view": {"none": HOSTILE}}), value_title=HOSTILE, title=HOSTILE),
        lambda: draw_first_wrong_step(SIGNALS.assign(view=HOSTILE).replace({"gap": HOSTILE, "auroc": HOSTILE}), title=HOSTILE),
        lambda: draw_depth_decay(DEPTHS.rename(columns={"n_rollouts": f"n_{HOSTILE}"}), title=HOSTILE),
    ],
)
def test_hostile_labels_are_shown_letter_by_letter(figure):
    text = written(figure())
    assert "<script" not in text and "$x$" not in text and ESCAPED in text.replace("<br>", " ")


@pytest.mark.parametrize(
    ("draw", "frame", "column"),
    [
        (lambda frame: draw_intervals(frame, "label", "x", "t"), ROWS, "high"),
        (lambda frame: draw_mean_by_position(frame, "view"), POSITIONS, "view"),
        (draw_divergence_by_class, CLASSES, "n_tokens"),
        (draw_step_gap, GAPS, "n_tokens"),
        (draw_first_wrong_step, SIGNALS, "chance"),
        (draw_depth_decay, DEPTHS, "who"),
    ],
)
def test_what_a_frame_lacks_is_named(draw, frame, column):
    with pytest.raises(ValueError, match=rf"draw_\w+: the frame has no column \['{column}'\]; it has"):
        draw(frame.drop(columns=column))
    with pytest.raises(ValueError, match=r"draw_\w+: the frame has no rows"):
        draw(frame.iloc[:0])


def test_rows_that_a_figure_needs_are_named():
    with pytest.raises(ValueError, match="draw_divergence_by_class: no row has measure 'share'"):
        draw_divergence_by_class(CLASSES[CLASSES["measure"] != "share"])
    with pytest.raises(ValueError, match="draw_depth_decay: no row has who 'teacher'"):
        draw_depth_decay(DEPTHS[DEPTHS["who"] != "teacher"])
    with pytest.raises(ValueError, match='only the position "all"'):
        draw_mean_by_position(POSITIONS[POSITIONS["position"] == "all"], "view")


def test_more_groups_than_markers_can_tell_apart_are_refused():
    frame = pd.concat([POSITIONS[POSITIONS["view"] == "none"].assign(view=f"v{i}") for i in range(13)])
    with pytest.raises(ValueError, match="13 values of 'view', but at most 12"):
        draw_mean_by_position(frame, "view")
