"""Every recipe trains, is billed for what it asks, stays short, and is data."""

import ast
import inspect
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from opsd_lab.contexts import ChatFormat, ContextBuilder
from opsd_lab.contexts.views import OtherProblem
from opsd_lab.evaluation.rewards import AnswerReward
from opsd_lab.grading import Grader
from opsd_lab.identity.digest import digest
from opsd_lab.methods import GRADES, GROUPS, METHODS, method, recipe_from_toml, recipe_text, recipe_to_toml
from opsd_lab.methods.lesson import lesson
from opsd_lab.methods.page import methods_page
from opsd_lab.policies.policy import add_lora
from opsd_lab.problems import Problem
from opsd_lab.rollouts import HFSampler, SamplingParams, StudentWrites, sample_rollouts
from opsd_lab.training import Recipe, TrainingParams
from opsd_lab.training.later import LaterCheckpoint
from tests.conftest import tiny_policy

PROBLEMS = [
    Problem(f"p{i}", f"What is {i} + {i + 1}?", str(2 * i + 1), f"{i} + {i + 1} = {2 * i + 1}. So {2 * i + 1}.", ("Add.",))
    for i in range(3, 11)
]


class Parity(AnswerReward):
    """Rewards that differ among the rollouts of a random model."""

    def check(self, problems):
        pass

    def __call__(self, rollouts, problems):
        return [float(sum(rollout.completion_ids) % 2) for rollout in rollouts]


def trainer_of(recipe, grader, *, new=12, rollouts=16):
    policy = add_lora(tiny_policy(context=1024), rank=4, alpha=8)
    shortened = {**recipe.sampling, **({"max_new_tokens": new} if "max_new_tokens" in recipe.sampling else {})}
    own = replace(recipe, sampling=shortened)
    texts = any(type(source).__name__ == "Texts" for source in getattr(recipe.source, "sources", ()))
    params = TrainingParams(learning_rate=1e-2, token_budget=4096)
    sampling = SamplingParams(64 if texts else new, temperature=1.0)
    sampler = HFSampler(policy, progress=False)
    return own.trainer(policy, PROBLEMS, ChatFormat(), sampler, sampling, params, Parity(grader), rollouts)


@pytest.fixture(scope="module")
def grader():
    with Grader() as found:
        yield found


@pytest.mark.parametrize("key", METHODS)
def test_a_recipe_trains(key, grader):
    trainer = trainer_of(METHODS[key].make(), grader)
    before = [p.detach().clone() for p in trainer.trainable]
    records = list(trainer.train(2, progress=False))
    assert [record.step for record in records] == [1, 2]
    learnt = [record for record in records if not math.isnan(record.loss)]
    assert learnt or key in ("u_opsd", "ttpo", "sort"), "no rollout counted in two steps"
    if learnt:
        assert any(not bool((p == old).all()) for p, old in zip(trainer.trainable, before, strict=True))
        assert records[-1].ledger.flops_train > 0


def test_rollouts_of_a_later_checkpoint_are_those_of_a_run_by_hand_and_the_policy_goes_back(grader):
    recipe = replace(METHODS["npo"].make(), source=LaterCheckpoint(steps=2, problems=5))
    ahead = trainer_of(replace(recipe, source=StudentWrites()), grader)
    for _ in ahead.train(2, progress=False):
        pass
    trainer = trainer_of(recipe, grader)
    met = list(dict.fromkeys(i for step in (1, 2, 3) for i in trainer.params.problems_of_step(step, len(PROBLEMS))))[:5]
    chosen = [PROBLEMS[i] for i in met]
    drawn = sample_rollouts(ahead.sampler, ahead.contexts, chosen, replace(ahead.sampling, n=1, seed=0))
    kept = [r for r, reward in zip(drawn, Parity(grader)(drawn, chosen), strict=True) if reward]
    assert kept and list(trainer.source.rollouts) == kept
    fresh = trainer_of(replace(recipe, source=StudentWrites()), grader)
    assert all(bool((p == q).all()) for p, q in zip(trainer.trainable, fresh.trainable, strict=True))
    assert trainer.ledger.tokens_generated == ahead.ledger.tokens_generated + sum(len(r.completion_ids) for r in drawn)
    assert trainer.ledger.flops > ahead.ledger.flops > 0


def test_a_later_checkpoint_that_writes_nothing_right_is_an_error_that_says_what_to_change(grader):
    class Never(Parity):
        def __call__(self, rollouts, problems):
            return [0.0] * len(rollouts)

    recipe = replace(METHODS["npo"].make(), source=LaterCheckpoint(steps=1, problems=3), rewards=lambda rewards: Never(grader))
    with pytest.raises(ValueError, match="after 1 steps none of 3 rollouts is right; take more of both"):
        trainer_of(recipe, grader)


def test_the_committed_page_is_what_the_command_makes_now():
    page = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
    assert methods_page() == page, "run `python -m opsd_lab methods` and commit docs/methods.md"
    assert all(f"`{key}`" in page for key in METHODS)


def source_of(entry):
    return ast.parse(inspect.getsource(entry.make)).body[0]


@pytest.mark.parametrize("key", METHODS)
def test_a_recipe_takes_15_lines_or_fewer_and_says_its_formula_and_how_it_is_confirmed(key):
    entry = METHODS[key]
    body = source_of(entry).body[1:]
    assert sum(node.end_lineno - node.lineno + 1 for node in body) + 2 <= 15
    assert entry.grade in GRADES and entry.group in GROUPS and entry.formula.strip()
    assert entry.arxiv == "none" or (len(entry.arxiv) == 10 and entry.arxiv[4] == ".")
    if entry.grade == "abstract":
        assert any("Unconfirmed" in note for note in entry.notes), "what only an abstract says is unconfirmed"


@pytest.mark.parametrize("key", METHODS)
def test_a_recipe_comes_back_from_toml_equal_and_with_the_same_digest(key):
    recipe = METHODS[key].make()
    text = recipe_to_toml(recipe)
    again = recipe_from_toml(text)
    assert recipe_to_toml(again) == text and digest(again) == digest(recipe)
    assert "lambda" not in repr(recipe) and " at 0x" not in text


def own_view(problem):
    return "look"


def test_a_recipe_with_peoples_own_function_needs_it_to_be_known():
    recipe = Recipe(view=own_view)
    with pytest.raises(TypeError, match=r"recipe.view: own_view is none of the library's pieces; give it as one of `known`"):
        recipe_to_toml(recipe)
    text = recipe_to_toml(recipe, known=[own_view])
    assert recipe_from_toml(text, known=[own_view]) == recipe
    with pytest.raises(ValueError, match=r"recipe.view: there is no piece 'own_view'; known are"):
        recipe_from_toml(text)
    with pytest.raises(TypeError, match=r"<lambda>"):
        recipe_to_toml(Recipe(view=lambda problem: ""))


def test_a_recipe_told_to_people_names_every_function_and_stands_for_long_data_by_its_digest():
    text = recipe_text(Recipe(view=OtherProblem(tuple(PROBLEMS)), weights=own_view, problems=lambda policy, problems: problems))
    assert 'piece = "own_view"' in text and "<lambda>" in text and PROBLEMS[0].question not in text
    assert re.search(r'\[view.donors\]\ndigest = "[0-9a-f]{64}"', text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("n = ", "this is no recipe"),
        ("m = 3", r"recipe: Recipe does not take m, but objective, view"),
        ("n = 0", "Recipe: n"),
        ('view = {piece = "os.system"}', "there is no piece 'os.system'"),
        ('objective = {piece = "OPSD", divergence = {piece = "JSD", beta = 2.0}}', "beta"),
        ('objective = {piece = "OPSD", clip = 2.0}', r"recipe.objective: OPSD does not take clip"),
        ("[[objective]]\nn = 1", "Recipe: objective"),
        ('view = {piece = ["x"]}', "there is no piece"),
    ],
)
def test_a_text_that_describes_no_recipe_is_refused_with_its_place(text, told):
    with pytest.raises((TypeError, ValueError), match=told):
        recipe_from_toml(text)


def test_a_method_is_entered_once_and_with_a_known_grade():
    with pytest.raises(ValueError, match="the grade of X is 'rumour'"):
        method("X", "none", "rumour")
    with pytest.raises(ValueError, match="there are two methods opsd"):
        method("X", "none", "paper")(METHODS["opsd"].make)


def test_a_lesson_is_what_the_first_step_would_do_and_leaves_the_policy_as_it_is(grader):
    policy = add_lora(tiny_policy(context=1024), rank=4, alpha=8)
    contexts, drawing = ContextBuilder(policy.tokenizer), SamplingParams(12, n=8)
    rollouts = sample_rollouts(HFSampler(policy, progress=False), contexts, PROBLEMS[:2], drawing)
    before = [p.detach().clone() for p in policy.trainable().values()]
    taught = {}
    for key, entry in METHODS.items():
        if isinstance(entry.make().source, StudentWrites) and key != "rock_tokens":
            try:
                taught[key] = lesson(entry.make(), policy, PROBLEMS[:2], rollouts, ChatFormat(), Parity(grader)).frame
            except ValueError as error:
                assert key in ("u_opsd", "ttpo") and "none of the rollouts counts" in str(error)
    assert len(taught) > 40
    for frame in taught.values():
        assert frame["push"].abs().mean() == pytest.approx(1.0) and frame["rollout"].is_monotonic_increasing
        shown = frame.groupby("rollout")["token_id"].apply(tuple)
        assert all(rollouts[number].completion_ids[: len(ids)] == ids for number, ids in shown.items())
    frame = taught["opsd_sampled_token"]
    push = frame["gap"] * (1 - np.exp(frame["student_logprob"]))
    np.testing.assert_allclose(frame["push"], push / push.abs().mean(), rtol=1e-4, atol=1e-5)
    assert all(bool((p == old).all()) for p, old in zip(policy.trainable().values(), before, strict=True))
    with pytest.raises(ValueError, match="learns from Together, not from the student's rollouts"):
        lesson(METHODS["brts"].make(), policy, PROBLEMS[:2], rollouts, ChatFormat(), Parity(grader))


def test_views_passes_and_what_the_teacher_writes_are_billed(grader):
    def ledger(key, **arguments):
        trainer = trainer_of(METHODS[key].make(**arguments), grader)
        (record,) = trainer.train(1, progress=False)
        return record.ledger

    one, three, two_passes = ledger("opsd"), ledger("purified_opsd"), ledger("tip")
    assert three.tokens_scored == 3 * one.tokens_scored
    assert two_passes.tokens_scored == 2 * two_passes.tokens_trained
    written, plain = ledger("reason_first", max_new_tokens=5), ledger("opsd_clipped")
    assert plain.tokens_generated < written.tokens_generated <= plain.tokens_generated + 16 * 5
    stored = trainer_of(METHODS["lightning_opd"].make(), grader)
    assert stored.ledger.tokens_generated > 0 and stored.ledger.flops_score > 0
    assert next(stored.train(1, progress=False)).ledger.tokens_generated == stored.ledger.tokens_generated
    rocks = trainer_of(METHODS["rock_tokens"].make(problems=4, count=2, first=1), grader)
    assert rocks.ledger.tokens_scored > 0 and len(rocks.weights.ids) == 2
