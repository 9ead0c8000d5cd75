import pytest

from opsd_lab.basics.schedules import Linear
from opsd_lab.contexts import (
    ChatFormat,
    ContextBuilder,
    answer_only,
    hints,
    no_privilege,
    other_problem,
    partial_solution,
    reference_solution,
    wrong_solution,
)
from opsd_lab.contexts.views import LONGEST_WORD, PartialSolution, hidden_answer
from opsd_lab.problems.problem import Problem
from tests.conftest import PROBLEMS, byte_tokenizer

PROBLEM = Problem("p", "What is 2 + 3? {x} %s", "5", "2 + 3 = 5. So \\boxed{5}.", ("Add.", "Count on from 2."))
# The thinking switch of the Qwen3 family: an empty thought, written by the template, turns thinking off.
QWEN3 = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)


def test_smollm2_prompts_are_these_very_tokens(smollm2):
    builder = ContextBuilder(smollm2.tokenizer, student=ChatFormat("Think.", response_prefix="Calculation:"))
    pair = builder.build(Problem("p", "2 + 3?", "5", "2 + 3 = 5."))
    head = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    head += "<|im_start|>user\n"
    assert builder.text(Problem("p", "2 + 3?", "5", "2 + 3 = 5."), "student") == (
        head + "2 + 3?\n\nThink.<|im_end|>\n<|im_start|>assistant\nCalculation:"
    )
    # fmt: off
    golden = [1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712, 8182, 2, 198,
              1, 4093, 198, 34, 1232, 216, 35, 47, 198, 198, 16817, 30, 2, 198, 1, 520, 9531, 198, 10745, 34928, 42]
    # fmt: on
    assert list(pair.student_ids) == golden
    assert smollm2.tokenizer.decode(pair.teacher_ids).count("2 + 3 = 5.") == 1


def test_chatml_tokens_round_trip_and_the_privilege_stands_in_the_user_turn():
    tokenizer = byte_tokenizer()
    builder = ContextBuilder(tokenizer)
    pair = builder.build(PROBLEM)
    for side, ids in (("student", pair.student_ids), ("teacher", pair.teacher_ids)):
        assert tokenizer.decode(ids) == builder.text(PROBLEM, side)
        assert ids[0] == tokenizer.convert_tokens_to_ids("<|im_start|>")
    user_turn = builder.text(PROBLEM, "teacher").split("<|im_end|>")[0]
    assert PROBLEM.solution in user_turn and PROBLEM.question in user_turn
    assert PROBLEM.solution not in builder.text(PROBLEM, "student")


@pytest.mark.parametrize(
    ("student", "teacher", "ends"),
    [
        (False, True, ("<think>\n\n</think>\n\n", "assistant\n")),
        (True, False, ("assistant\n", "<think>\n\n</think>\n\n")),
        (None, None, ("assistant\n", "assistant\n")),
    ],
)
def test_thinking_is_set_for_each_side_apart(student, teacher, ends):
    tokenizer = byte_tokenizer(QWEN3)
    builder = ContextBuilder(tokenizer, student=ChatFormat(enable_thinking=student), teacher=ChatFormat(enable_thinking=teacher))
    pair = builder.build(PROBLEM)
    assert tokenizer.decode(pair.student_ids).endswith(ends[0])
    assert tokenizer.decode(pair.teacher_ids).endswith(ends[1])


def test_the_first_completion_token_follows_the_prefix_on_both_sides():
    chat = ChatFormat(response_prefix="<think>\n")
    tokenizer = byte_tokenizer(QWEN3)
    pair = ContextBuilder(tokenizer, student=chat, teacher=chat).build(PROBLEM)
    boundary = tokenizer("assistant\n<think>\n", add_special_tokens=False)["input_ids"]
    assert list(pair.student_ids[-len(boundary) :]) == boundary == list(pair.teacher_ids[-len(boundary) :])


def test_no_privilege_shows_the_teacher_exactly_what_the_student_sees():
    pair = ContextBuilder(byte_tokenizer(), view=no_privilege).build(PROBLEM)
    assert pair.student_ids == pair.teacher_ids


def test_each_view_shows_what_it_names_and_no_more():
    assert PROBLEM.solution in reference_solution(PROBLEM)
    assert "5" in answer_only(PROBLEM) and "2 + 3" not in answer_only(PROBLEM)
    assert "Count on from 2." in hints(PROBLEM) and "5" not in hints(PROBLEM)
    partial = partial_solution(0.4)(PROBLEM)
    assert "2 + 3 =" in partial and "boxed" not in partial
    assert partial_solution(1.0)(PROBLEM).count(PROBLEM.solution) == 1
    wrong = wrong_solution()(PROBLEM)
    assert "2 + 3 =" in wrong and "= 5" not in wrong and "{5}" not in wrong
    assert wrong == wrong_solution()(PROBLEM)


def test_another_problems_solution_stands_under_the_same_words_and_is_never_ones_own():
    view = other_problem(PROBLEMS)
    for problem in PROBLEMS:
        shown = view(problem)
        assert problem.solution not in shown
        donor = next(d for d in PROBLEMS if d.solution in shown)
        assert shown == reference_solution(donor)
    assert len({view(p) for p in PROBLEMS}) > len(PROBLEMS) // 3, "donors are spread over the pool"


def test_other_problem_without_another_problem_is_an_error():
    with pytest.raises(ValueError, match="no donor for problem 'p3'"):
        other_problem(PROBLEMS[:1])(PROBLEMS[0])


@pytest.mark.parametrize("view", [reference_solution, partial_solution(0.5), wrong_solution()])
def test_a_problem_without_a_solution_is_named_with_the_remedy(view):
    with pytest.raises(ValueError, match="problem 'bare' has no solution; give it one"):
        ContextBuilder(byte_tokenizer(), view=view).build(Problem("bare", "2 + 3?", "5"))


def test_the_closing_sentence_is_ones_own_choice():
    assert reference_solution(PROBLEM, closing="").endswith(PROBLEM.solution)
    assert reference_solution(PROBLEM, closing="Go on.").endswith(f"{PROBLEM.solution}\nGo on.")


def test_a_problem_without_hints_is_named():
    with pytest.raises(ValueError, match="problem 'bare' has no hints"):
        hints(Problem("bare", "2 + 3?", "5"))


def test_an_answer_that_does_not_stand_in_the_solution_cannot_be_replaced():
    with pytest.raises(ValueError, match="pass wrong_solution a function"):
        wrong_solution()(Problem("p", "q", "7", "no number here"))


def test_braces_and_percent_signs_pass_through_untouched():
    assert PROBLEM.question in ContextBuilder(byte_tokenizer()).text(PROBLEM, "teacher")
    assert "\\boxed{5}" in ContextBuilder(byte_tokenizer()).text(PROBLEM, "teacher")


def test_a_tokenizer_without_a_chat_template_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"no chat template; use an instruction-tuned model, or set\s+tokenizer.chat_template"):
        ContextBuilder(byte_tokenizer(None))


def test_a_prompt_that_is_too_long_is_an_error_that_names_the_problem_and_nothing_is_cut():
    with pytest.raises(ValueError, match=r"problem 'p': the teacher's prompt has .* leave the problem out"):
        length = len(ContextBuilder(byte_tokenizer()).build(PROBLEM).student_ids)
        ContextBuilder(byte_tokenizer(), max_tokens=length).build(PROBLEM)


def test_a_builder_gives_a_steps_views_and_itself_where_none_varies():
    tokenizer = byte_tokenizer()
    steady = ContextBuilder(tokenizer, {"one": reference_solution, "two": no_privilege})
    assert steady.at(1) is steady
    changing = ContextBuilder(tokenizer, PartialSolution(Linear(0.0, 1.0, 4)))
    assert [changing.at(step).view for step in (1, 3)] == [PartialSolution(0.25), PartialSolution(0.75)]


def test_a_part_of_a_solution_without_blanks_is_not_all_of_it_and_a_hidden_answer_is_hidden_behind_a_comma_too():
    dense = Problem("d", "?", "7", solution="一" * 4000)
    assert PartialSolution(0.25, closing="")(dense).count("一") == 1000 + LONGEST_WORD
    pair = Problem("p", "?", "12", solution="So (3,12) and 12 and 3,120 and 1.12 and 1,12 and {,}12")
    assert hidden_answer(pair, closing="").endswith("So (3,12) and ___ and 3,120 and 1.12 and 1,12 and {,}___")
