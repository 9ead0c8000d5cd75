"""The premise: the same problems under each view, what is copied, and going on after an interruption."""

import pandas as pd
import pytest

from opsd_lab.commands import measuring
from opsd_lab.contexts import hidden_answer
from opsd_lab.evaluation.evaluate import Evaluation
from opsd_lab.experiments.premise import NONE, SETS, Premise, copied_share, measure_premise, premise_table, premise_views
from opsd_lab.grading import Grader
from opsd_lab.problems.problem import Problem
from opsd_lab.rollouts import HFSampler, SamplingParams
from tests.conftest import tiny_policy

SMALL = Premise(("one_step", "chain_sum"), 5, SamplingParams(6, temperature=1.0, n=2), chunk=3)


@pytest.fixture(scope="module")
def grader():
    with Grader() as found:
        yield found


@pytest.fixture(scope="module")
def rows(grader, tmp_path_factory):
    pytest.importorskip("reasoning_gym")
    path = tmp_path_factory.mktemp("premise") / "whole.parquet"
    return measure_premise(tiny_policy(context=2048), SMALL, grader, path, model="tiny", progress=False)


def test_every_problem_has_its_answers_under_every_view(rows):
    views = list(premise_views(()))
    assert rows.groupby(["set", "view"], sort=False)["problem_id"].nunique().eq(5).all() and len(rows) == 2 * len(views) * 5 * 2
    assert {name: set(of["problem_id"]) for name, of in rows[rows["set"] == "chain_sum"].groupby("view")}.keys() == set(views)
    assert rows.groupby("set")["problem_id"].nunique().eq(5).all()  # the same problems under every view
    assert "text" not in rows


def test_a_measurement_that_was_cut_goes_on_and_comes_out_the_same(rows, grader, tmp_path):
    class Cut(HFSampler):
        left = 2

        def sample(self, *args, **options):
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            return super().sample(*args, **options)

    policy, path = tiny_policy(context=2048), tmp_path / "rows.parquet"
    with pytest.raises(KeyboardInterrupt):
        measure_premise(policy, SMALL, grader, path, model="tiny", sampler=Cut(policy, progress=False), progress=False)
    kept = pd.read_parquet(path)
    assert kept["settings"].nunique() == 2 * len(premise_views(()))  # all views of twice three problems
    rest = Cut(policy, progress=False)
    rest.left = 4 - 2  # what is there is not written anew
    again = measure_premise(policy, SMALL, grader, path, model="tiny", sampler=rest, progress=False)
    pd.testing.assert_frame_equal(again, rows)
    pd.testing.assert_frame_equal(pd.read_parquet(path), rows)
    other = Premise(("one_step",), 5, SamplingParams(7, temperature=1.0, n=2), chunk=3)
    with pytest.raises(ValueError, match=r"rows.parquet holds another measurement, .*; name another file"):
        measure_premise(policy, other, grader, path, model="tiny", progress=False)


def test_the_command_measures_any_model(tmp_path, capsys):
    pytest.importorskip("reasoning_gym")
    tiny = tiny_policy(context=2048)
    tiny.model.save_pretrained(tmp_path / "tiny")
    tiny.tokenizer.save_pretrained(tmp_path / "tiny")
    options = {"sets": ("leg_counting",), "count": 2, "n": 2, "max_new_tokens": 6}
    measuring.premise(str(tmp_path / "tiny"), tmp_path / "a.parquet", **options)
    assert "answer hidden" in capsys.readouterr().out
    found = pd.read_parquet(tmp_path / "a.parquet")
    assert found["model"].unique().tolist() == [str(tmp_path / "tiny")] and len(found) == 2 * 2 * len(premise_views(()))


def test_the_table_counts_by_hand():
    right = {NONE: [1, 0, 0, 0], "reference": [1, 1, 1, 0]}  # two problems, two answers each
    parts = []
    for view, verdicts in right.items():
        words = ["correct" if one else "incorrect" for one in verdicts]
        same = {"final": words, "boxed": words, "last_number": words, "answer": [str(one) for one in verdicts]}
        about = {"set": "s", "view": view, "problem_id": list("aabb"), "sample": [0, 1] * 2, "truncated": [True, False] * 2}
        parts.append(pd.DataFrame({**about, **same, "tokens": 8, "copied": 0.25, "shared": 0.5}))
    table = premise_table(pd.concat(parts)).set_index("view")
    assert table["mean"].to_dict() == {NONE: 0.25, "reference": 0.75} and table.loc["reference", "difference"] == 0.5
    assert table.loc["reference", ["copied", "shared", "truncated", "tokens"]].tolist() == [0.25, 0.5, 0.5, 8]
    alone = Evaluation("x", parts[1].assign(text=""))
    assert table.loc["reference", "majority"] == alone.maj_at_k().mean
    assert table.loc["reference", "low"] == alone.accuracy().low


def test_what_is_copied_is_a_run_of_the_shown_text_whatever_its_white_space():
    shown = "First we add 12 and 30 to get 42.\nSo the answer is 42."
    assert copied_share(shown.replace(" ", "\n"), shown) == 1
    assert copied_share("", shown) == 0 and copied_share("12 and 30", shown) == 0  # too short to be known as a copy
    assert copied_share("we add 12 and 30 to get" + "x" * 23, shown) == 0.5


@pytest.mark.parametrize(
    ("answer", "solution", "shown"),
    [
        ("5", "2 + 3 = 5. 5.5 is not 15, 5", "2 + 3 = ___. 5.5 is not 15, ___"),
        ("-5", "2 - 7 = -5, not 5", "2 - 7 = ___, not 5"),
        ("No", "No: Not one. No", "___: Not one. ___"),
        ("2^n", "it is 2^n.", "it is ___."),
    ],
)
def test_a_hidden_answer_is_hidden_wherever_it_stands_and_nowhere_else(answer, solution, shown):
    problem = Problem("p", "q", answer, solution)
    assert hidden_answer(problem, closing="").splitlines()[1:] == [shown]


def test_an_answer_that_is_not_in_the_solution_cannot_be_hidden():
    with pytest.raises(ValueError, match="its answer '7' does not stand in its solution; choose another privileged view"):
        hidden_answer(Problem("p", "q", "7", "17 and 7.5"))


def test_the_sets_are_known_by_name_and_take_what_every_view_applies_to(grader):
    with pytest.raises(ValueError, match="there is no set 'gsm'; there are one_step"):
        Premise(("gsm",))
    pytest.importorskip("reasoning_gym")
    for name in SETS:
        problems, views = Premise((name,), 40).problems(name, grader)
        assert len(problems) == 40 and all(isinstance(view(p), str) for p in problems for view in views.values()), name
