"""What is said of a model's own solutions, on the sandbox's model, whose chains go wrong."""

import pandas as pd
import pytest

from opsd_lab.diagnostics import step_gap
from opsd_lab.divergences import forward_kl
from opsd_lab.experiments import own_solutions as module
from opsd_lab.experiments.own_solutions import own_solutions
from opsd_lab.experiments.supervision_study import study_tables
from opsd_lab.objectives import OPSD, Pushed
from opsd_lab.policies.teachers import live_teacher
from opsd_lab.rollouts import SamplingParams, load_rollouts
from opsd_lab.sandbox import CHAT, load_sandbox, worksheets
from tests.conftest import tiny_policy

SAMPLING = SamplingParams(64, temperature=1.0, n=2)
PROBLEMS = worksheets("chain", "test", 12)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "solution_views", lambda problems: {"reference": module.other_problem(problems, closing="")})
        return folder, own_solutions(load_sandbox(), PROBLEMS, SAMPLING, folder, chat=CHAT)


def test_each_row_is_that_of_the_diagnostic(made):
    folder, found = made
    policy, rollouts = load_sandbox(), load_rollouts(folder / "rollouts.parquet")
    view = {"reference": module.other_problem(PROBLEMS, closing="")}
    for clip in (None, 0.05):
        objective = Pushed(OPSD(forward_kl, pointwise_clip=clip))
        table = study_tables(policy, live_teacher(), PROBLEMS, rollouts, view, chat=CHAT, objective=objective)["reference"]
        expected = step_gap(table, "push", ("label", "error_phase"))
        own = found[(found["clip"] == (clip or 0)) & (found["column"] == "push") & found["group"].isna()]
        pd.testing.assert_frame_equal(own[list(expected)].reset_index(drop=True), expected)
    assert found["n_solutions"].eq(24).all() and set(found["column"]) == {"gap", "push"}
    assert not ((found["column"] == "gap") & (found["clip"] > 0)).any()


def test_a_second_call_writes_and_scores_nothing_anew(made):
    folder, found = made
    kept = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix in (".parquet", ".safetensors")}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "solution_views", lambda problems: {"reference": module.other_problem(problems, closing="")})
        again = own_solutions(load_sandbox(), PROBLEMS, SAMPLING, folder, chat=CHAT)
    pd.testing.assert_frame_equal(again, found)
    assert kept == {path: path.stat().st_mtime_ns for path in kept}


def test_a_model_that_writes_no_equation_is_said_so(tmp_path):
    from tests.conftest import PROBLEMS as SUMS

    with pytest.raises(ValueError, match="none of the 4 solutions has an equation that can be judged"):
        own_solutions(tiny_policy(context=1024), SUMS[:4], SamplingParams(4, temperature=1.0), tmp_path)
