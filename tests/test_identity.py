"""Digests of content: equal for equal content in every process, different for different content, refused where nobody can tell."""

import functools
import json
import os
import re
import subprocess
import sys
import threading
import types
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from opsd_lab.contexts import other_problem, partial_solution, reference_solution
from opsd_lab.divergences import forward_kl, jsd, reverse_kl
from opsd_lab.evaluation.rewards import AnswerReward
from opsd_lab.grading import Grader
from opsd_lab.identity.digest import digest
from opsd_lab.identity.parts import differences, parts_of, policy_parts, versions
from opsd_lab.methods import METHODS
from opsd_lab.objectives import OPSD, SFT
from opsd_lab.policies.policy import add_lora
from opsd_lab.policies.teachers import AveragedTeacher
from opsd_lab.rollouts import SamplingParams
from tests.conftest import PROBLEMS, tiny_policy

CLOSING = "In your own words."
TABLE = np.arange(6).reshape(2, 3)


class Plain:
    """A view as people write one: no dataclass, no repr."""

    def __init__(self, closing: str = CLOSING, **more: object) -> None:
        self.closing = closing
        self.__dict__ |= more

    def __call__(self, problem):
        return f"{problem.solution} {self.closing} {TABLE[0, 1]}"

    @functools.cached_property
    def length(self) -> int:
        return len(self.closing)


@dataclass(frozen=True)
class Weighted(OPSD):
    """An objective of somebody's own."""

    weight: float = 1.0


class Slotted:
    __slots__ = ("left", "right")

    def __init__(self, left: object) -> None:
        self.left = left


def recursive(depth):
    return 0 if depth == 0 else mutual(depth - 1)


def mutual(depth):
    return recursive(depth)


def enclosing(value: object, offset: int = 0):
    def view(problem):
        return f"{value}{offset}"

    return view


def everything() -> dict[str, object]:
    """Values of every kind, each of another content than the others."""
    return {
        "none": None,
        "true": True,
        "one": 1,
        "one as a float": 1.0,
        "one as text": "1",
        "one as bytes": b"1",
        "minus zero": -0.0,
        "zero": 0.0,
        "list": ["a", "b"],
        "joined": ["ab"],
        "tuple": ("a", "b"),
        "nested": ["a", ["b"]],
        "mapping": {"a": "b"},
        "set": {"a", "b", "c", "d"},
        "frozen set": frozenset("abcd"),
        "array": np.arange(3),
        "array of another shape": np.arange(3)[None],
        "array of another type": np.arange(3.0),
        "array of objects": np.array(["a", None], dtype=object),
        "tensor": torch.arange(3),
        "half": torch.arange(3).half(),
        "bfloat16": torch.arange(3).bfloat16(),
        "lambda": lambda p: "a",
        "other lambda": lambda p: "b",
        "default": lambda p, a=1: "a",
        "other default": lambda p, a=2: "a",
        "keyword default": lambda p, *, a=1: "a",
        "set in a constant": lambda p: p in {"a", "b", "c"},
        "closure": enclosing("x"),
        "other closure": enclosing("y"),
        "closure with an array": enclosing(np.arange(3)),
        "closure with another array": enclosing(np.arange(3) + 1),
        "recursive": recursive,
        "mutual": mutual,
        "partial": functools.partial(reference_solution, closing=""),
        "other partial": functools.partial(reference_solution, closing="x"),
        "cached": functools.cache(enclosing(7)),
        "object": Plain(),
        "object with another text": Plain("x"),
        "bound method": Plain().__call__,
        "bound to another": Plain("x").__call__,
        "slots": Slotted(1),
        "other slots": Slotted(2),
        "path": Path("a/b"),
        "pattern": re.compile("a"),
        "flagged pattern": re.compile("a", re.IGNORECASE),
        "class": Plain,
        "built in": len,
        "method of a text": "abc".join,
        "numpy": np.exp,
        "torch": torch.exp,
        "objective": OPSD(),
        "reverse": OPSD(reverse_kl),
        "jsd": OPSD(jsd(0.5)),
        "other jsd": OPSD(jsd(0.4)),
        "own objective": Weighted(),
        "own objective, weighted": Weighted(weight=2.0),
        "SFT": SFT(),
        "problems": PROBLEMS,
        "fewer problems": PROBLEMS[:-1],
        "half of the solution": partial_solution(0.5),
        "others' solutions": other_problem(PROBLEMS),
        "fewer others' solutions": other_problem(PROBLEMS[:4]),
        "rewards": AnswerReward(Grader()),
        "impatient rewards": AnswerReward(Grader(seconds=1.0)),
        "policy": tiny_policy(),
        "other policy": tiny_policy(seed=1),
    }


def digests() -> dict[str, str]:
    return {name: digest(value, name) for name, value in everything().items()}


@pytest.fixture(scope="module")
def known() -> dict[str, str]:
    return digests()


def test_different_contents_have_different_digests(known):
    owners: dict[str, list[str]] = {}
    for name, found in known.items():
        owners.setdefault(found, []).append(name)
    assert [names for names in owners.values() if len(names) > 1] == []


def reads_the_process(problem):
    return f"{sorted(sys.modules)} {os.environ.get('HOME')}"


def test_what_a_process_has_loaded_or_set_does_not_count(monkeypatch):
    recipes = {key: digest(METHODS[key].make()) for key in METHODS}
    before = digest(reads_the_process)
    monkeypatch.setitem(sys.modules, "something_new", types.ModuleType("something_new"))
    monkeypatch.setenv("HOME", "elsewhere")
    assert digest(reads_the_process) == before
    assert {key: digest(METHODS[key].make()) for key in METHODS} == recipes


def test_another_process_with_another_hash_seed_finds_the_same_digests(known):
    code = f"import json; from {__name__} import digests; print(json.dumps(digests()))"  # a class counts by its module's name too
    paths = os.pathsep.join([os.getcwd(), str(Path(__file__).parent)])
    environment = os.environ | {"PYTHONHASHSEED": "12345", "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == known


def test_order_names_places_and_caches_do_not_count():
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) and digest({3, 1, 2}) == digest({2, 3, 1})
    one, two = lambda p: p + 1, lambda p: p + 1
    assert digest(one) == digest(two)
    used = Plain()
    assert used.length == len(CLOSING) and digest(used) == digest(Plain())
    assert digest(torch.arange(6).reshape(2, 3).T) == digest(torch.arange(6).reshape(2, 3).T.contiguous())
    functions = {"r": recursive, "m": mutual}
    assert digest(functions) == digest(dict(reversed(functions.items())))


def test_a_global_that_code_names_counts_and_one_that_it_does_not_name_does_not(monkeypatch):
    view = Plain()
    before = digest(view)
    monkeypatch.setattr(sys.modules[__name__], "PROBLEMS", [])
    assert digest(view) == before
    monkeypatch.setattr(sys.modules[__name__], "TABLE", TABLE + 1)
    assert digest(view) != before
    here = lambda p: Plain.__call__(p, CLOSING)  # noqa: E731
    before = digest(here)
    monkeypatch.setattr(Plain, "__call__", lambda self, problem: "")
    assert digest(here) != before


def test_what_a_library_function_of_this_package_calls_counts(monkeypatch):
    before = digest(OPSD(forward_kl))
    monkeypatch.setattr("opsd_lab.objectives.opsd.compare", lambda *args, **options: None)
    assert digest(OPSD(forward_kl)) != before


def cycle() -> list:
    found: list = [1]
    found.append(found)
    return found


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda: Plain(file=sys.__stdin__ or open(os.devnull)), r"view\.file cannot be identified: .*TextIOWrapper.*identity_data"),  # noqa: SIM115
        (lambda: {"a": [1, (i for i in ())]}, r"view\['a'\]\[1\] cannot be identified: .*generator"),
        (lambda: enclosing(object()), r"view, closure variable 'value' cannot be identified: .*object"),
        (lambda: functools.partial(len, threading.Lock()), r"view\.args\[0\] cannot be identified: .*lock"),
        (cycle, r"view\[1\] cannot be identified: it contains itself"),
        (lambda: torch.empty(2, device="meta"), "view cannot be identified: a tensor on meta"),
        (lambda: iter([1]), "view cannot be identified"),
    ],
    ids=["file", "generator", "bare object", "lock", "cycle", "meta tensor", "iterator"],
)
def test_what_nobody_could_tell_apart_is_refused_with_its_place(value, message):
    with pytest.raises(TypeError, match=message):
        digest(value(), "view")


def test_an_object_may_say_what_stands_for_it():
    class Held(Plain):
        def identity_data(self):
            return self.closing

    assert digest(Held(lock=threading.Lock())) == digest(Held(other=threading.Lock())) != digest(Held("x"))


def test_weights_count_by_content_even_where_their_sums_agree():
    policy = tiny_policy()
    before = policy_parts(policy)
    weight = policy.model.model.layers[0].mlp.up_proj.weight
    weight.data.copy_(weight.flip(0))
    assert differences(before, policy_parts(policy)) == "model's weights"


def test_a_policy_is_the_same_wherever_it_was_loaded_from_and_differs_in_each_named_part():
    def parts(policy):
        return policy_parts(policy)

    lora = {"rank": 4, "alpha": 8}
    same = parts(add_lora(tiny_policy(), **lora))
    assert parts(replace(add_lora(tiny_policy(), **lora), name="elsewhere")) == same
    assert (
        differences(same, parts(add_lora(tiny_policy(), rank=4, alpha=16)))
        == "model's LoRA alpha (8 there, 16 here), model's adapter"
    )
    assert "model's LoRA rank (4 there, 2 here)" in differences(same, parts(add_lora(tiny_policy(), rank=2, alpha=8)))
    assert differences(same, parts(add_lora(tiny_policy(), seed=1, **lora))) == "model's adapter"
    assert "model's weights" in differences(same, parts(add_lora(tiny_policy(seed=1), **lora)))
    other = add_lora(tiny_policy(), **lora)
    other.tokenizer.chat_template += " "
    assert differences(same, parts(other)) == "model's tokenizer"
    off = add_lora(tiny_policy(), **lora)
    with off.model.disable_adapter():
        assert "model's adapter" in differences(same, parts(off))
    half = add_lora(tiny_policy(), **lora)
    half.causal_lm.to(torch.bfloat16)
    assert "model's precision (float32 there, bfloat16 here)" in differences(same, parts(half))


def test_what_differs_is_named_with_both_values_where_they_can_be_shown():
    saved = parts_of("sampling", SamplingParams(5)) | parts_of("objective", OPSD()) | versions() | {"gone": "1"}
    present = parts_of("sampling", SamplingParams(6)) | parts_of("objective", OPSD(reverse_kl)) | versions()
    present["version of torch"] = "0.1"
    told = differences(saved, present)
    assert "sampling.max_new_tokens (5 there, 6 here)" in told and "objective.divergence (ForwardKL there, ReverseKL here)" in told
    assert (
        f"version of torch ({torch.__version__.partition('+')[0]} there, 0.1 here)" in told and "gone (1 there, nothing here)" in told
    )
    assert differences(saved, saved) == ""


def test_a_teachers_settings_count_and_what_training_changes_of_it_can_be_left_out():
    policy = add_lora(tiny_policy(), rank=4, alpha=8)
    teacher = AveragedTeacher(policy, 0.5)
    known = {p.data_ptr() for p in [*policy.model.parameters(), *teacher.state().values()]}
    before, whole = parts_of("teacher", teacher, known), parts_of("teacher", teacher)
    next(iter(teacher.state().values())).add_(1.0)
    assert parts_of("teacher", teacher, known) == before and parts_of("teacher", teacher) != whole
    teacher.decay = 0.4
    assert differences(before, parts_of("teacher", teacher, known)) == "teacher.decay (0.5 there, 0.4 here)"
