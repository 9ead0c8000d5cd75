from dataclasses import replace

import numpy as np
import pytest

from opsd_lab.experiments.arms import sandbox_study
from opsd_lab.experiments.clip_study import (
    CLIPS,
    TRAINED,
    VIEWS,
    clip_arm,
    clip_name,
    clip_rows,
    clip_sandbox,
    clip_smollm2,
    context_effects,
)
from opsd_lab.figures.family import draw_clip
from tests.test_results import results, table


@pytest.fixture(scope="module")
def rows():
    study = sandbox_study()
    problems = list(study.train)[:6]
    return clip_rows(study.policy(0), problems, problems, study.chat, replace(study.sampling, n=1), "sandbox")


def test_each_view_is_measured_with_each_clip_and_a_smaller_clip_takes_from_more_tokens(rows):
    assert rows[["view", "clip"]].values.tolist() == [[view, clip] for view in VIEWS for clip in CLIPS]
    assert set(rows["model"]) == {"sandbox"} and rows["n"].max() == 6
    shares = rows[rows["view"] == "reference"].set_index("clip")["clipped"]
    assert shares.loc[list(CLIPS)].is_monotonic_increasing and 0 < shares.max() <= 1


def test_a_small_clip_turns_the_gradient_round_and_without_a_view_there_is_none(rows):
    told = rows.set_index(["view", "clip"])
    assert told.loc[("reference", 0.05), "low"] > 0 > told.loc[("reference", 1e-7), "high"]
    assert np.isnan(told.loc["none", ["mean", "weights"]]).all(axis=None)
    assert np.isfinite(told.loc["reference", "weights"]).all()


def test_the_figure_has_a_row_for_each_view_and_clip_that_has_a_direction(rows):
    figure = draw_clip(rows)
    assert list(figure.layout.yaxis.ticktext) == [f"{view}, clip {clip:g}" for view in VIEWS if view != "none" for clip in CLIPS]
    assert tuple(figure.layout.xaxis.range) == (-1.05, 1.05)


def test_the_studies_train_each_view_with_each_clip_at_one_rate():
    for study in (clip_sandbox(), clip_smollm2()):
        arms = {name: arm for name, arm in study.arms.items() if arm is not None}
        assert len(arms) == len(TRAINED) * len(VIEWS)
        assert len({arm.training["learning_rate"] for arm in arms.values()}) == 1


def test_what_the_context_adds_is_the_reference_minus_the_other_problem_at_the_same_clip():
    rng, rows = np.random.default_rng(0), []
    for clip, shares in zip(TRAINED, [(0.8, 0.2), (0.5, 0.5), (0.1, 0.6), (0.3, 0.3)], strict=True):
        for view, share in zip(("reference", "other problem"), shares, strict=True):
            rows += [table(clip_arm(view, clip), seed, 100, rng.binomial(2, share, 50)) for seed in range(3)]
    trained = results(*rows)
    found, means = context_effects(trained).set_index("clip"), trained.groupby("arm")["accuracy"].mean()
    assert found.index.tolist() == ["no clip", "clip 0.05", "clip 0.001", "clip 1e-06"]
    for clip in TRAINED:
        expected = means[clip_arm("reference", clip)] - means[clip_arm("other problem", clip)]
        assert found.loc[clip_name(clip), "mean"] == pytest.approx(expected)
    assert found.loc["no clip", "low"] > 0.4 and found.loc["clip 0.001", "high"] < -0.2 and set(found["n"]) == {50}
    with pytest.raises(ValueError, match="other problem, no clip"):
        context_effects(trained[trained["arm"] != "other problem, no clip"])
