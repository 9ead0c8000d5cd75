import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from opsd_lab.contexts import ContextBuilder, answer_only, change_numbers, hints, other_problem, partial_solution, wrong_solution
from opsd_lab.diagnostics import result_digits
from opsd_lab.evaluation.evaluate import evaluate
from opsd_lab.experiments.arms import sandbox_study
from opsd_lab.experiments.supervision_study import StudySettings, study_tables, write_rollouts
from opsd_lab.grading import Grader
from opsd_lab.policies.teachers import fixed_teacher
from opsd_lab.rollouts import HFSampler, SamplingParams
from opsd_lab.sandbox import CHAT, PLANS, TASKS, load_sandbox, own_solution, worksheets
from opsd_lab.sandbox.pretraining import VIEWS, Pretraining, Size, pretrain, samples, save_small
from opsd_lab.sandbox.vocabulary import WORDS, make_tokenizer
from opsd_lab.sandbox.worksheet import SPLITS, draw_problem, split_of
from opsd_lab.steps import arithmetic_steps
from opsd_lab.studies.study import run_cell
from opsd_lab.tokens.text import token_texts

BAND = {"greedy": (0.25, 0.8), "sampled": (0.05, 0.5)}
TINY = Pretraining(Size(hidden=32, layers=1, intermediate=48, heads=2, kv_heads=1), steps=3, batch=8)


def drawn(count=60):
    rng = np.random.default_rng(0)
    return [draw_problem(task, rng, f"{task}-{i}") for i in range(count) for task in TASKS]


def test_every_text_of_a_problem_is_made_of_the_sandboxs_words_and_spelled_by_them():
    tokenizer = make_tokenizer()
    assert len(WORDS) == len(set(WORDS)) == len(tokenizer) - 3
    for problem in drawn():
        for text in (problem.question, problem.solution, own_solution(problem), problem.answer):
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            assert "".join(token_texts(tokenizer, ids)) == text


def test_every_usual_view_can_be_shown():
    tokenizer, problems = make_tokenizer(), drawn(20)
    views = [
        answer_only,
        hints,
        partial_solution(0.5),
        partial_solution(0.3),
        wrong_solution(change_numbers),
        other_problem(problems),
    ]
    for view in [*views, *VIEWS.values()]:
        for problem in problems:
            if view is not views[4] or set(problem.solution) & set("123456789"):
                pair = ContextBuilder(tokenizer, view, student=CHAT, teacher=CHAT).build(problem)
                assert tokenizer.decode(pair.teacher_ids).endswith("<assistant>")


def test_any_other_word_is_an_error_and_not_an_unknown_token():
    with pytest.raises(Exception, match="UNK"):
        make_tokenizer()("Ann buys 3.")


def test_the_lines_of_a_solution_are_correct_and_its_answer_is_graded_so():
    with Grader() as grader:
        for problem in drawn():
            steps = arithmetic_steps(own_solution(problem))
            assert [step.label for step in steps] == ["correct"] * sum("=" in line for line in problem.meta["lines"])
            (grade,) = grader.grade([own_solution(problem)], [problem.answer])
            assert grade.final == "correct"


def test_a_chains_later_line_starts_from_the_earlier_result_and_a_sheets_does_not():
    for problem in drawn():
        lines = problem.meta["lines"]
        follows = [later.startswith(earlier.partition("=")[2]) for earlier, later in itertools.pairwise(lines)]
        if problem.meta["task"] == "chain":
            assert len(lines) == 3 and all(follows) and problem.answer == lines[-1].partition("=")[2]
        elif problem.meta["task"] == "sheet":
            assert problem.answer.split(", ") == [line.partition("=")[2] for line in lines]


def test_results_are_never_negative_and_have_two_digits_at_most():
    for problem in drawn(300):
        assert all(0 <= int(line.partition("=")[2]) <= 99 for line in problem.meta["lines"] if "=" in line)


def test_splits_share_no_question_and_are_the_same_each_time():
    for task in TASKS:
        found = {split: worksheets(task, split, 60) for split in SPLITS}
        questions = [problem.question for problems in found.values() for problem in problems]
        assert len(questions) == len(set(questions)) and {p.id for p in found["test"]} == {f"{task}-test-{i}" for i in range(60)}
        assert found["test"] == worksheets(task, "test", 60) and all(split_of(p) == s for s, ps in found.items() for p in ps)
    assert worksheets("sheet", "test", 20) == worksheets("sheet", "test", 60)[:20]


def test_unknown_names_are_named():
    with pytest.raises(ValueError, match="no sandbox task 'algebra'"):
        worksheets("algebra", "train", 1)
    with pytest.raises(ValueError, match="no sandbox split 'dev'"):
        worksheets("sheet", "dev", 1)
    with pytest.raises(ValueError, match="no sandbox model 'giant'"):
        load_sandbox("giant")


def test_a_missing_model_says_how_it_is_made(tmp_path):
    with pytest.raises(FileNotFoundError, match="python -m opsd_lab sandbox --name student"):
        load_sandbox("student", tmp_path)


def test_pre_training_samples_are_of_the_training_split_and_leave_the_wrong_result_out_of_the_loss():
    stream = samples(replace(PLANS["student"], mistakes=1.0), np.random.default_rng(0))
    tokenizer = make_tokenizer()
    masked = 0
    for _ in range(80):
        sample = next(stream)
        text = tokenizer.decode(sample.completion)
        shown = tokenizer.decode(sample.prompt)
        wrong = [step for step in arithmetic_steps(text) if step.label == "incorrect"]
        left_out = "".join(tokenizer.decode([t]) for t, counts in zip(sample.completion, sample.counted, strict=True) if not counts)
        assert len(wrong) <= 1 and sample.counted[-1] and sample.completion[-1] == tokenizer.eos_token_id
        if wrong:
            assert left_out == wrong[0].text.partition("=")[2]
            masked += 1
        elif "\n\n" not in shown:  # nothing shown: nothing wrong
            assert left_out == ""
    assert masked > 20


def test_pre_training_is_repeatable_and_what_is_written_loads_as_it_was(tmp_path):
    first, again = pretrain(TINY, progress=False), pretrain(TINY, progress=False)
    weights = dict(first.model.named_parameters())
    assert all(torch.equal(p, weights[name]) for name, p in again.model.named_parameters())
    save_small(first, tmp_path / "student")
    loaded = load_sandbox("student", tmp_path)
    assert loaded.model.dtype == torch.float32 and loaded.tokenizer.get_vocab() == first.tokenizer.get_vocab()
    for name, parameter in loaded.model.named_parameters():
        torch.testing.assert_close(parameter, weights[name].half().float(), rtol=0, atol=0)
    assert loaded.eos_ids == (loaded.tokenizer.convert_tokens_to_ids("<end>"),)
    (problem,) = worksheets("sheet", "test", 1)
    prompts = [ContextBuilder(policy.tokenizer, student=CHAT).student_prompt(problem) for policy in (first, loaded)]
    assert prompts[0] == prompts[1]


@pytest.fixture(scope="module")
def student():
    return load_sandbox()


def accuracy(policy, problems, view, temperature, grader):
    contexts = ContextBuilder(policy.tokenizer, VIEWS[view], student=CHAT, teacher=CHAT)
    prompts = {problem.id: list(contexts.build(problem).teacher_ids) for problem in problems}
    params = SamplingParams(64, temperature=temperature)
    sampler = HFSampler(policy, progress=False)
    return evaluate(sampler, problems, lambda problem: prompts[problem.id], params, grader).accuracy().mean


def test_the_shipped_student_is_nearly_always_right_with_the_reference_and_sometimes_without(student):
    problems = worksheets("sheet", "test", 64)
    with Grader() as grader:
        assert accuracy(student, problems, "reference", 1.0, grader) >= 0.95
        assert BAND["greedy"][0] <= accuracy(student, problems, "none", 0.0, grader) <= BAND["greedy"][1]
        assert BAND["sampled"][0] <= accuracy(student, problems, "none", 1.0, grader) <= BAND["sampled"][1]


def test_its_teacher_finds_wrong_results_unlikely_and_right_ones_likelier_than_the_student_does(student):
    problems = worksheets("sheet", "test", 32)
    settings = StudySettings(chat=CHAT, sampling=SamplingParams(64, temperature=1.0, n=1))
    rollouts = write_rollouts(student, problems, settings)
    views = {"reference": VIEWS["reference"]}
    table = study_tables(student, fixed_teacher(student), problems, rollouts, views, chat=CHAT, progress=False)["reference"]
    digits = result_digits(table).set_index("group")["mean"]
    assert digits["wrong"] < -1.5 < -0.5 < digits["valid, not the answer"]


def test_fifty_steps_of_opsd_raise_its_accuracy(student):
    study = sandbox_study(size=48, checkpoints=(50,))
    study = replace(study, splits={"test": study.splits["test"]}, evaluation=SamplingParams(64, temperature=1.0, n=2))
    base, trained = (run_cell(study, arm, 0)["accuracy"].iloc[0] for arm in ("base", "OPSD"))
    assert trained > base + 0.05
