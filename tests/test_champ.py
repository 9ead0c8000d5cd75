import pandas as pd
import pytest

from opsd_lab.commands import measuring
from opsd_lab.contexts import change_numbers, reference_solution
from opsd_lab.experiments import champ_study
from opsd_lab.experiments.champ_study import champ_views, score_solutions, with_all_views
from opsd_lab.problems import champ
from opsd_lab.problems.champ import AnnotatedSolution, champ_problems, champ_solutions
from opsd_lab.problems.problem import Problem
from tests.conftest import tiny_policy


def test_every_problem_and_annotation_of_the_data_set_is_read():
    problems, solutions = champ_problems(), champ_solutions()
    assert len(problems) == 270 and len(solutions) == 540
    assert all(problem.solution for problem in problems) and sum(not problem.hints for problem in problems) == 25
    assert sum(solution.wrong_step is None for solution in solutions) == 96
    assert {solution.problem_id for solution in solutions} == {problem.id for problem in problems}
    assert {solution.author for solution in solutions} == {"GPT-3.5", "GPT-4", "GPT-4 Turbo", "PaLM 2 Medium"}


def test_every_marked_step_holds_visible_text():
    for solution in champ_solutions():
        if solution.wrong_step:
            assert solution.text[slice(*solution.wrong_step)].strip()


def test_a_missing_package_names_the_extra(monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(champ, "import_module", absent)
    with pytest.raises(ModuleNotFoundError, match=r"'champ_dataset': CHAMP comes with the extra `champ`"):
        champ_problems()


@pytest.mark.parametrize("span", [(-1, 2), (2, 2), (3, 9)])
def test_a_marked_step_outside_its_text_is_refused(span):
    with pytest.raises(ValueError, match="does not lie in a text of 5 characters"):
        AnnotatedSolution("p", "someone", "right", span)


def test_changed_numbers_keep_every_word_and_change_every_digit_but_zero():
    problem = Problem("p", "q", "12", "7 + 5 = 12, and 100.")
    changed = change_numbers(problem)
    kept = [a == b for a, b in zip(problem.solution, changed, strict=True)]
    assert kept == [not (c.isdigit() and c != "0") for c in problem.solution]
    assert change_numbers(problem) == changed
    assert len(set(filter(str.isdigit, changed))) == len(set("751200")), "different digits stay different"
    with pytest.raises(ValueError, match="problem 'p': its solution has no digit to change"):
        change_numbers(Problem("p", "q", "0", "Nothing, so 0."))


def test_every_view_applies_to_the_problems_drawn_and_the_seed_fixes_them():
    problems = champ_problems()
    drawn = with_all_views(problems, 20)
    assert drawn == with_all_views(problems, 20) != with_all_views(problems, 20, seed=1)
    for view in champ_views(problems).values():
        assert all(view(problem) for problem in drawn)
    with pytest.raises(ValueError, match=r"271 problems are wanted, but all views apply to 2\d\d only"):
        with_all_views(problems, 271)


def test_solutions_of_the_problems_given_are_scored_and_one_that_does_not_fit_is_refused(policy):
    problem = Problem("p", "What is 1 + 1?", "2", "1 + 1 = 2")
    solutions = [AnnotatedSolution("p", "a", "It is 3.", (6, 7)), AnnotatedSolution("q", "a", "no", None)]
    table = score_solutions(policy, [problem], solutions, {"reference": reference_solution})["reference"]
    assert "".join(table.frame["token"]) == "It is 3."
    long = [AnnotatedSolution("p", "a", "x" * 500, None)]
    with pytest.raises(ValueError, match=r"view 'reference', example 0 \(problem 'p'\): .* exceeds the context of tiny, 512 tokens"):
        score_solutions(policy, [problem], long, {"reference": reference_solution})


def test_the_command_scores_any_model_under_reference_and_other_problem_and_goes_on(tmp_path, capsys, monkeypatch):
    tiny = tiny_policy(context=8192)
    tiny.model.save_pretrained(tmp_path / "tiny")
    tiny.tokenizer.save_pretrained(tmp_path / "tiny")
    options, path = {"model": str(tmp_path / "tiny"), "problems": 8, "compared": 2}, tmp_path / "a.parquet"
    measuring.champ(out=path, **options)
    assert "other problem" in capsys.readouterr().out
    rows = pd.read_parquet(path)
    assert rows.groupby("scope")["view"].nunique().to_dict() == {"all": 2, "compared": 6} and rows["category"].notna().all()
    assert rows.groupby("scope")["problem_id"].nunique().to_dict() == {"all": 8, "compared": 2} and set(rows["model"]) == {
        options["model"]
    }
    whole = {(r.scope, r.view, r.rollout) for r in rows.itertuples()}
    assert len(whole) == 2 * (8 * 2 + 2 * 6)
    scored = []
    monkeypatch.setattr(
        champ_study, "score_solutions", lambda *args, **more: scored.append(len(args[1])) or score_solutions(*args, **more)
    )
    gone = rows["problem_id"].unique()[[1, 4]]
    rows[~rows["problem_id"].isin(gone)].to_parquet(path)  # as if it had been interrupted
    measuring.champ(out=path, **options)
    assert sum(scored) == 2 + len(set(gone) & set(rows.loc[rows["scope"] == "compared", "problem_id"]))
    pd.testing.assert_frame_equal(pd.read_parquet(path), rows, rtol=1e-3, atol=1e-4)  # other micro-batches round otherwise
    rows.assign(settings="0" * 64).to_parquet(path)
    with pytest.raises(ValueError, match=r"a\.parquet holds another measurement"):
        measuring.champ(out=path, **options)
