import re
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from opsd_lab.problems.files import load_jsonl
from opsd_lab.problems.problem import Problem
from opsd_lab.problems.word_problems import FAMILIES, SIZES, builtin, generate, key, splits, write_files

DATA = Path(__file__).parents[1] / "data" / "word_problems"
CASES = [(family, split) for family in FAMILIES for split in SIZES]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def parts(family):
    return splits(family, SIZES, seed=0)


@pytest.fixture(scope="module")
def everything(parts):
    return [problem for problems in parts.values() for problem in problems]


def steps_of(problems):
    return {step for problem in problems for step in key(problem)}


def test_every_line_of_working_is_right_and_leads_to_the_answer(everything):
    for problem in everything:
        lines = re.findall(r"(\d+) ([-+*]) (\d+) = (\d+)\.", problem.solution)
        assert [[int(a), op, int(b), int(r)] for a, op, b, r in lines] == problem.meta["steps"]
        for a, op, b, result in lines:
            assert {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[op] == int(result) > 0
        for before, after in pairwise(lines):
            assert before[3] == after[0]
        assert problem.solution.endswith(f"The answer is \\boxed{{{problem.answer}}}.")
        assert lines[-1][3] == problem.answer


def test_the_question_states_the_numbers_of_the_working_in_order_and_nothing_else(everything):
    for problem in everything:
        first, *rest = problem.meta["steps"]
        assert re.findall(r"\d+", problem.question) == [str(n) for n in (first[0], first[2], *(step[2] for step in rest))]


def test_numbers_stay_in_the_range_of_their_family(family, everything):
    for problem in everything:
        a, op, b, _ = problem.meta["steps"][0]
        if family == "two_digit":
            small, large = sorted((a, b))
            assert 10 <= large <= 99
            assert (2 <= small <= 9) if op == "*" else (10 <= small <= 99)
        else:
            assert all(2 <= n <= (9 if op == "*" else 20) for n in (a, b))


def test_texts_have_no_open_marks_and_one_thing_is_singular(everything):
    singular = re.compile(r"\b1 [a-z]+s\b")
    for problem in everything:
        assert not re.search(r"[{}]", problem.question + problem.solution.replace(f"\\boxed{{{problem.answer}}}", ""))
        assert not singular.search(problem.question + problem.solution)
        assert "  " not in problem.question + problem.solution
    assert any(problem.answer == "1" for problem in everything)


def test_hints_do_not_give_the_answer_away(everything):
    for problem in everything:
        assert 1 <= len(problem.hints) <= 2
        for hint in problem.hints:
            assert problem.answer not in re.findall(r"\d+", hint)


def test_splits_have_the_asked_sizes_and_all_texts_and_ids_are_distinct(parts, everything):
    assert {name: len(problems) for name, problems in parts.items()} == SIZES
    assert len({problem.question for problem in everything}) == len(everything)
    assert len({problem.id for problem in everything}) == len(everything)


def test_splits_share_neither_a_key_nor_a_single_step(parts):
    names = list(parts)
    for i, left in enumerate(names):
        for right in names[i + 1 :]:
            assert not steps_of(parts[left]) & steps_of(parts[right]), (left, right)


def test_every_split_holds_every_operation_of_its_family(family, parts):
    for problems in parts.values():
        counts = Counter("".join(step[1] for step in problem.meta["steps"]) for problem in problems)
        assert set(counts) == set(FAMILIES[family])
        assert min(counts.values()) >= len(problems) // len(FAMILIES[family])


def test_keys_come_back_only_after_all_others_of_their_operations(parts):
    for problems in parts.values():
        counts: dict[str, Counter] = {}
        for problem in problems:
            operations = "".join(step[1] for step in problem.meta["steps"])
            counts.setdefault(operations, Counter())[key(problem)] += 1
        for counter in counts.values():
            assert max(counter.values()) - min(counter.values()) <= 1


def test_the_same_seed_gives_the_same_problems_and_another_seed_others(family):
    assert generate(family, 40, seed=3) == generate(family, 40, seed=3)
    texts = [{problem.question for problem in generate(family, 40, seed=seed)} for seed in (3, 4)]
    assert texts[0] != texts[1]
    sizes = {"a": 20, "b": 10}
    assert splits(family, sizes, seed=5) == splits(family, sizes, seed=5)
    assert splits(family, sizes, seed=5) != splits(family, sizes, seed=6)


def test_generate_avoids_the_keys_of_excluded_problems():
    train = generate("one_step", 300, seed=0)
    rest = generate("one_step", 300, seed=1, exclude=train)
    assert not {key(problem) for problem in train} & {key(problem) for problem in rest}


def test_numbers_in_either_order_are_one_key_for_sums_and_products_but_not_for_differences():
    def problem(*steps):
        return Problem("p", "q", "a", meta={"steps": [list(step) for step in steps]})

    assert key(problem((7, "+", 5, 12))) == key(problem((5, "+", 7, 12))) == (("+", 5, 7),)
    assert key(problem((7, "*", 5, 35))) == key(problem((5, "*", 7, 35)))
    assert key(problem((9, "-", 4, 5))) == (("-", 9, 4),)
    assert key(problem((3, "*", 4, 12), (12, "-", 5, 7))) == (("*", 3, 4), ("-", 12, 5))


def test_a_problem_from_elsewhere_has_no_key():
    with pytest.raises(ValueError, match=r"'p' has no meta\['steps'\]"):
        key(Problem("p", "q", "a"))


def test_asking_for_more_than_exist_says_how_many_exist():
    everything_but_one = generate("one_step", 3000, seed=0)
    kept = key(everything_but_one[0])
    others = [problem for problem in everything_but_one if key(problem) != kept]
    with pytest.raises(ValueError, match=r"(\d+) problems asked for, but (\d+) with distinct texts exist") as error:
        generate("one_step", 10**9, seed=0, exclude=others)
    exist = int(re.search(r"but (\d+)", str(error.value)).group(1))
    problems = generate("one_step", exist, seed=0, exclude=others)
    assert len({problem.question for problem in problems}) == exist
    assert {key(problem) for problem in problems} == {kept}


@pytest.mark.parametrize("sizes", [{}, {"train": 0}, {"train": 5, "test": -1}])
def test_splits_without_a_positive_size_are_refused(sizes):
    with pytest.raises(ValueError, match="at least one"):
        splits("one_step", sizes, seed=0)


def test_more_splits_than_calculations_are_refused():
    with pytest.raises(ValueError, match=r"50 sets, but only 36 steps with '\*'"):
        splits("one_step", {str(i): 1 for i in range(50)}, seed=0)


def test_an_unknown_family_or_split_names_the_known_ones():
    with pytest.raises(ValueError, match="one_step, two_digit, two_step"):
        generate("three_step", 1, seed=0)
    with pytest.raises(ValueError, match="one_step, two_digit, two_step"):
        builtin("three_step", "train")
    with pytest.raises(ValueError, match="train, validation, test"):
        builtin("one_step", "dev")


@pytest.mark.parametrize(("name", "split"), CASES)
def test_builtin_problems_equal_the_committed_file(name, split):
    assert builtin(name, split) == load_jsonl(DATA / f"{name}_{split}.jsonl")


def test_the_command_writes_the_committed_files_byte_for_byte(tmp_path):
    command = [sys.executable, "-m", "opsd_lab.problems.word_problems", "--out", str(tmp_path / "new"), "--seed", "0"]
    subprocess.run(command, check=True, timeout=300)
    written = {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()}
    assert written == {path.name: path.read_bytes() for path in DATA.iterdir()}
    assert set(written) == {f"{name}_{split}.jsonl" for name, split in CASES}


def test_another_seed_writes_other_files(tmp_path):
    write_files(tmp_path, seed=1)
    assert (tmp_path / "one_step_train.jsonl").read_bytes() != (DATA / "one_step_train.jsonl").read_bytes()
