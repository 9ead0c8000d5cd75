"""The pieces that the family shares, each on its own."""

import math
from collections import Counter
from dataclasses import dataclass, replace
from itertools import permutations
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from opsd_lab.basics.controllers import BetaBandit, Hysteresis, RunningMean
from opsd_lab.basics.schedules import Cosine, Linear
from opsd_lab.contexts import ContextBuilder, Shown, WrittenView, reference_solution
from opsd_lab.contexts.peers import FailedPeer, FirstOf, MixedPeers, ShortestPeer, SuccessfulPeer
from opsd_lab.contexts.views import OtherProblem, PartialSolution, needs_rollout
from opsd_lab.divergences import Renyi, Side, SkewedKL, forward_kl, jsd, reverse_kl
from opsd_lab.evaluation.rewards import MajorityReward
from opsd_lab.experiments.family import RATES, family_recipes, family_search, family_study, searched_rates
from opsd_lab.experiments.family_pieces import collapses, marginal_effects, pieces_of
from opsd_lab.grading import Grader
from opsd_lab.methods import METHODS
from opsd_lab.methods.contexts import WorkedExample, own_attempt, reason_first, resd
from opsd_lab.methods.gaps import OtherQuestion
from opsd_lab.methods.gates import PassRateGate, RightThenProbable, all_wrong
from opsd_lab.methods.spans import BeforeTheDrop
from opsd_lab.methods.token_weights import LeaveOut, RockTokens
from opsd_lab.objectives import (
    OPSD,
    MarkError,
    Route,
    SampledTokenOPSD,
    Scaled,
    Sum,
    Teachers,
    Tokens,
    compute_losses,
    not_divided_out,
)
from opsd_lab.objectives.marks import StoredNumbers, marks_of, signal_of
from opsd_lab.policies.policy import add_lora
from opsd_lab.policies.teachers import ema_teacher, live_teacher
from opsd_lab.problems.problem import Problem
from opsd_lab.rollouts import (
    HFSampler,
    PerProblem,
    Rollout,
    SamplingParams,
    Stored,
    StudentWrites,
    TeacherRewrites,
    TeacherWrites,
    Texts,
    Together,
    sample_rollouts,
)
from opsd_lab.rollouts.group import Group
from opsd_lab.rollouts.sources import Order
from opsd_lab.sandbox import CHAT, load_sandbox, worksheets
from opsd_lab.steps.marks import SegmentNumbers, equation_verdicts, first_error_tokens
from opsd_lab.supervision import build_examples, score_rollouts
from opsd_lab.training import Trainer, TrainingParams, load_checkpoint, save_checkpoint
from opsd_lab.training.start import Start, begun
from tests.conftest import PROBLEMS, byte_tokenizer, tiny_policy

PARAMS = TrainingParams(batch_size=4, learning_rate=1e-2, token_budget=4096)


def build(*, n=1, params=PARAMS, view=reference_solution, new=6, **options):
    policy = add_lora(tiny_policy(), rank=4, alpha=8)
    contexts = ContextBuilder(policy.tokenizer, view)
    return Trainer(policy, PROBLEMS, contexts, HFSampler(policy, progress=False), SamplingParams(new, n=n), params=params, **options)


def run(trainer, steps=1):
    return list(trainer.train(steps, progress=False))


def rollout(text, problem="p", logprob=-1.0):
    tokens = tuple(text)
    return Rollout(problem, (1,), tuple(range(2, 2 + len(tokens))), (logprob,) * len(tokens), "stop", text, tokens)


def group(*texts, rewards):
    problem = PROBLEMS[0]
    return problem, Group(problem, tuple(rollout(text, problem.id) for text in texts), tuple(rewards))


# Views


def test_a_view_may_show_another_question_or_none():
    contexts = ContextBuilder(tiny_policy().tokenizer, {"none": lambda p: Shown("S", ""), "other": lambda p: Shown("S", "Why?")})
    problem = PROBLEMS[0]
    none, other = (contexts.text(problem, "teacher", name) for name in ("none", "other"))
    assert problem.question not in none + other and "Why?" in other and "S" in none
    assert problem.question in contexts.text(problem, "student")


def test_views_of_peers_never_show_the_rollout_itself():
    problem, found = group("aa", "b", "c", "dddd", rewards=[1, 1, 0, 0])
    first, last = found.rollouts[0], found.rollouts[3]
    assert SuccessfulPeer(intro="I")(problem, first, found) == "I\nb" and SuccessfulPeer(1)(problem, first, found) is None
    assert SuccessfulPeer(1, "I")(problem, last, found) == "I\nb" and FailedPeer(0, "I")(problem, last, found) == "I\nc"
    assert ShortestPeer("I")(problem, last, found) == "I\nb"
    mixed = MixedPeers(2, 1)(problem, last, found)
    assert mixed.index("aa") < mixed.index("b") < mixed.index("wrong") < mixed.index("c") and "dddd" not in mixed
    assert MixedPeers()(problem, *((g := group("a", "b", rewards=[0, 0])[1]).rollouts[0], g)) is None
    view = FirstOf((SuccessfulPeer(5), reference_solution))
    assert view(problem, first, found) == reference_solution(problem)
    with pytest.raises(ValueError, match="there are no views"):
        FirstOf(())


def test_a_schedule_in_a_view_changes_what_is_shown_and_a_resumed_run_goes_on_alike(tmp_path):
    def made():
        return build(view=PartialSolution(Linear(1.0, 0.2, 4)))

    trainer = made()
    shown = [record.ledger.flops_score for record in run(trainer, 2)]
    save_checkpoint(trainer, tmp_path / "c")
    rest = run(trainer, 2)
    again = made()
    load_checkpoint(again, tmp_path / "c")
    assert [r.loss for r in run(again, 2)] == [r.loss for r in rest]
    assert shown[1] - shown[0] != shown[0], "another part of the solution has another length"
    lengths = [len(trainer.at(step).contexts.build(PROBLEMS[0]).teacher_ids) for step in (1, 3, 9)]
    assert lengths == sorted(lengths, reverse=True) and lengths[0] > lengths[-1]
    with pytest.raises(ValueError, match="belongs to another experiment: views"):
        load_checkpoint(build(view=PartialSolution(Linear(1.0, 0.3, 4))), tmp_path / "c")


def test_a_written_view_is_written_once_for_all_that_ask_alike_and_shown():
    asked = []

    def show(problem, text):
        asked.append((problem.id, text))
        return f"W: {text}"

    trainer = build(n=2, view=WrittenView(reference_solution, show, 5), rewards=lambda r, p: [1.0] * len(r))
    (record,) = run(trainer)
    assert len(asked) == 8 and len(set(asked)) == 4, "two rollouts of a problem ask for one text"
    assert record.ledger.tokens_generated > sum(len(r.completion_ids) for r in record.rollouts)
    prompts = [trainer.contexts.with_rollout(trainer.prompts[0], PROBLEMS[0], None, None, {"teacher": "xyz"}).teacher_ids]
    assert "W: xyz" in trainer.policy.tokenizer.decode(prompts[0])
    with pytest.raises(ValueError, match="nothing else can ask it"):
        WrittenView(reference_solution, show, 5)(PROBLEMS[0])


@pytest.mark.parametrize("view", [reason_first().view, resd().view], ids=["analysis", "reflection"])
def test_what_the_teacher_is_asked_to_write_does_not_ask_for_the_answer_too_and_what_it_then_sees_does(view):
    contexts, attempt = ContextBuilder(byte_tokenizer(), reference_solution), rollout("wrong")
    seen = (attempt, Group(PROBLEMS[0], (attempt,), (0.0,))) if view.ask is own_attempt else ()
    asked = contexts.teacher_prompt(PROBLEMS[0], view.ask, *seen)
    texts = [byte_tokenizer().decode(ids) for ids in (asked, contexts.teacher_prompt(PROBLEMS[0], reference_solution))]
    assert contexts.teacher.instruction not in texts[0] and PROBLEMS[0].solution in texts[0]
    assert contexts.teacher.instruction in texts[1]
    shown = view.show(PROBLEMS[0], "a text")
    assert isinstance(shown, str) or shown.instruction is None


def test_a_written_view_cannot_stand_among_others():
    with pytest.raises(ValueError, match="a WrittenView is written by the teacher, and cannot stand among others"):
        FirstOf((WrittenView(reference_solution, lambda problem, text: text, 5),))


def test_a_worked_example_and_another_question_end_with_the_sentence_that_they_are_given():
    for closing in ("Now solve the problem above.", "", "Go on."):
        assert WorkedExample(PROBLEMS, closing)(PROBLEMS[0]).endswith(closing or WorkedExample(PROBLEMS).donor(PROBLEMS[0]).solution)
        shown = OtherQuestion(OtherProblem(PROBLEMS, closing))(PROBLEMS[0])
        assert shown.text.endswith(closing or PROBLEMS[0].solution) and shown.question != PROBLEMS[0].question


@pytest.mark.parametrize("key", ["cepo", "rlcsd"])
def test_a_contrast_shows_right_and_wrong_under_the_same_words(key):
    views, right, wrong = METHODS[key].make().view, rollout("6 = 6"), rollout("6 = 7")
    together = Group(PROBLEMS[0], (right, wrong), (1.0, 0.0))
    against = views.get("wrong", views.get("wrong 0"))(PROBLEMS[0], right, together)
    alone = Group(PROBLEMS[0], (wrong, rollout("6 = 8")), (0.0, 0.0))
    kept = views["right"]
    shown = kept(PROBLEMS[0], wrong, alone) if needs_rollout(kept) else kept(PROBLEMS[0])  # no attempt is right
    assert shown.replace(PROBLEMS[0].solution, "") == against.replace(wrong.text, "")


def test_a_written_view_with_nothing_to_ask_is_no_view():
    view = WrittenView(lambda problem, rollout, group: None, lambda problem, text: text, 5)
    (record,) = run(build(view=view, rewards=lambda r, p: [1.0] * len(r)))
    assert math.isnan(record.loss) and set(record.metrics) == set(run(build())[0].metrics) | {"reward", "reward_square"}


def test_other_problem_takes_the_runs_problems_as_donors_where_it_has_none():
    start = Start(None, PROBLEMS, None, None, None, None)
    view = begun({"a": (FirstOf((OtherProblem(closing=""),)),)}, start)["a"][0].views[0]
    assert view.donors == tuple(PROBLEMS) and view(PROBLEMS[0]) == OtherProblem(PROBLEMS, "")(PROBLEMS[0])
    own = OtherProblem(PROBLEMS[:2])
    assert begun(own, start) is own


# Several views, some missing


def test_the_mean_over_views_is_that_of_those_a_token_has():
    sides = {name: Side(torch.full((3, 4), value)) for name, value in (("a", 1.0), ("b", 3.0))}
    seen = {"a": torch.tensor([True, True, False]), "b": torch.tensor([True, False, False])}
    found = Teachers(sides, seen).mean(lambda side: side.logits, ("a", "b"))
    assert found[:, 0].tolist() == [2.0, 1.0, 0.0]
    assert Teachers(sides, seen).rows(torch.tensor([1])).mean(lambda side: side.logits[:, 0], ("a",)).tolist() == [1.0]


def test_a_token_counts_where_it_has_the_views_that_are_needed():
    tokens = Tokens(torch.zeros(2, dtype=torch.long), seen={"a": torch.tensor([True, True]), "b": torch.tensor([True, False])})
    assert OPSD().counts(tokens).tolist() == [True, False]
    assert OPSD(needed_views=("a",)).counts(tokens).tolist() == [True, True]


# Marks, signals and weights


def test_marks_and_signals_reach_objective_weights_and_table():
    marks = {"place": lambda problem, rollout: range(len(rollout.completion_ids))}
    signals = {"late": lambda columns: (columns["place"] > columns["place"].float().mean()).float()}
    options = {"marks": marks, "signals": signals, "rewards": lambda r, p: [1.0] * len(r)}
    trainer = build(objective=Scaled(OPSD(), "late"), **options)
    (record,) = run(trainer)
    frame = record.table.frame
    assert frame["place"].tolist() == frame["position"].tolist()
    assert frame["late"].tolist() == (frame["place"] > frame["place"].mean()).astype(float).tolist()
    assert frame.loc[frame["late"] == 0, "loss"].eq(0).all() and frame.loc[frame["late"] == 1, "loss"].gt(0).all()
    assert record.ledger.tokens_scored == 2 * record.ledger.tokens_trained, "the first pass is billed"
    assert record.loss == pytest.approx(frame["loss"].mean(), abs=1e-6)


def test_what_marks_and_signals_return_is_checked():
    with pytest.raises(ValueError, match=r"Scaled and the other pieces do not go together: the tokens have no number 'late'"):
        build(objective=Scaled(OPSD(), "late"))
    with pytest.raises(MarkError, match="but none; give the Trainer a mark or a signal"):
        Tokens(torch.zeros(1, dtype=torch.long))["x"]
    one = rollout("ab")
    with pytest.raises(ValueError, match="the mark 'm' returned 1 numbers for the 2 tokens of a rollout of problem 'p3'"):
        marks_of({"m": lambda problem, rollout: [1.0]}, PROBLEMS[0], one)
    with pytest.raises(ValueError, match="the mark 'm'"):
        marks_of({"m": lambda problem, rollout: [1.0, math.nan]}, PROBLEMS[0], one)
    columns = {"loss": torch.zeros(3)}
    with pytest.raises(TypeError, match="the signal 's' returned a tensor"):
        signal_of(lambda columns: torch.zeros(2), "s", columns)
    with pytest.raises(TypeError, match="the signal 's' returned list"):
        signal_of(lambda columns: [0.0], "s", columns)
    with pytest.raises(ValueError, match="a signal is a finite number"):
        signal_of(lambda columns: torch.full((3,), math.inf), "s", columns)
    with pytest.raises(ValueError, match="no stored numbers of a rollout of problem 'p3'"):
        StoredNumbers({})(PROBLEMS[0], one)


def test_weights_that_are_not_divided_out_make_the_loss_smaller():
    @not_divided_out
    def half(columns):
        return torch.full_like(columns["loss"], 0.5)

    rewards = {"rewards": lambda r, p: [1.0] * len(r)}
    (plain,), (halved,) = run(build()), run(build(weights=half, **rewards))
    assert halved.loss == pytest.approx(plain.loss / 2, rel=1e-5)
    assert halved.metrics["grad_norm"] == pytest.approx(plain.metrics["grad_norm"] / 2, rel=1e-4)


def test_a_step_in_which_every_token_weighs_0_is_idle_and_has_every_metric():
    trainer = build(weights=lambda columns: torch.zeros_like(columns["loss"]), rewards=lambda r, p: [1.0] * len(r))
    (record,) = run(trainer)
    assert math.isnan(record.loss) and math.isnan(record.metrics["divergence"]) and record.metrics["grad_norm"] == 0


def test_marks_of_steps_lie_on_their_tokens():
    one = rollout("1+1=2\n2+2=5\n3+3=6")
    assert SegmentNumbers("lines")(PROBLEMS[0], one) == [0.0] * 6 + [1.0] * 6 + [2.0] * 5
    wide = replace(one, completion_ids=(1, 2, 3), logprobs=(0.0,) * 3, tokens=("1 = 1\n2 = 2\n3", " = ", "3"))
    assert SegmentNumbers("lines")(PROBLEMS[0], wide) == [0.0] * 3  # the first two lines have no token of their own
    verdicts = equation_verdicts(PROBLEMS[0], one)
    assert verdicts[:5] == [1.0] * 5 and verdicts[6:11] == [-1.0] * 5 and verdicts[12:] == [1.0] * 5
    assert [i for i, value in enumerate(first_error_tokens(PROBLEMS[0], one)) if value] == [6, 7, 8, 9, 10]
    with pytest.raises(ValueError, match="has no texts of its tokens"):
        equation_verdicts(PROBLEMS[0], replace(one, tokens=()))


# Sources, rewards and gates


def order(problems, n=1, new=6):
    policy = add_lora(tiny_policy(), rank=4, alpha=8)
    contexts = ContextBuilder(policy.tokenizer, reference_solution)
    prompts = [contexts.build(problem) for problem in problems]
    return Order(HFSampler(policy, progress=False), ema_teacher(policy), problems, prompts, SamplingParams(new, n=n), contexts)


def test_sources_that_write_together_number_their_rollouts():
    asked = order(PROBLEMS[:3], n=2, new=64)
    written = Together((StudentWrites(), Texts(lambda problem: problem.solution), TeacherWrites())).write(asked)
    assert written.sources == (0,) * 6 + (1,) * 3 + (2,) * 6 and len(written.by_student) == len(written.by_teacher) == 6
    assert not Together((StudentWrites(), Texts(str))).samples and Together((StudentWrites(),)).samples
    with pytest.raises(ValueError, match="there are no sources"):
        Together(())


def test_a_teacher_rewrites_every_rollout_behind_the_students_prompt():
    asked = order(PROBLEMS[:3], n=2)
    seen = []

    def view(problem, rollout, group):
        seen.append(rollout)
        return f"Again: {rollout.text}" if len(seen) != 2 else None

    written = TeacherRewrites(view).write(asked)
    assert len(seen) == 6 and len(written.rollouts) == len(written.by_teacher) == 5 and len(written.by_student) == 6
    assert all(r.prompt_ids == asked.prompts[i].student_ids for r, i in zip(written.rollouts, (0, 1, 1, 2, 2), strict=True))
    assert TeacherRewrites(lambda problem: None).write(asked).rollouts == ()


def test_stored_rollouts_may_be_of_some_problems_only():
    asked = order(PROBLEMS[:2])
    kept = StudentWrites().write(asked).rollouts[:1]
    assert Stored(kept, some=True).write(asked).rollouts == kept
    with pytest.raises(ValueError, match="has no rollout"):
        Stored(kept).write(asked)


def test_the_majority_is_the_answer_that_at_least_half_of_a_problems_rollouts_give():
    texts = ["The answer is 7.", r"\boxed{7}", "It is 8.", "7.0", "1", "2", "3", "3"]
    problems = [PROBLEMS[0]] * 4 + [PROBLEMS[1]] * 4
    with Grader() as grader:
        rewards = MajorityReward(grader)
        found = rewards([rollout(t, p.id) for t, p in zip(texts, problems, strict=True)], problems)
        silent = rewards([rollout("?", PROBLEMS[0].id)] * 2, [PROBLEMS[0]] * 2)
    assert found == [1, 1, 0, 1, 0, 0, 1, 1] and silent == [0, 0]


def test_a_gate_may_see_the_rollouts():
    given = replace(rollout("gold", "b"), logprobs=(math.nan,) * 4)
    rollouts = (rollout("x", "a"), replace(rollout("gold", "a"), logprobs=(math.nan,) * 4), rollout("y", "b"), given)
    rewards, groups = np.array([1.0, 1.0, 0.0, 1.0]), np.array(["a", "a", "b", "b"])
    assert all_wrong(rewards, groups, rollouts).tolist() == [False, False, False, True]
    assert PassRateGate()(np.array([1.0, 0.0, 0.0, 0.0, 1.0]), np.array(list("aaaab"))).tolist() == [0.1875] * 4 + [0.0]
    seen = []
    gate = lambda rewards, groups, rollouts: seen.extend(rollouts) or np.ones(len(rollouts))  # noqa: E731
    (record,) = run(build(gate=gate, rewards=lambda r, p: [1.0] * len(r)))
    assert tuple(seen) == record.rollouts


def test_of_a_teachers_rollouts_a_right_one_is_kept_then_the_most_probable():
    found = [rollout("a", logprob=-1.0), rollout("b", logprob=-3.0), rollout("c", logprob=-2.0)]
    choice = RightThenProbable(lambda rollouts, problems: [0.0, 1.0, 1.0])
    assert choice(PROBLEMS[0], found) == [found[2]]
    assert RightThenProbable(lambda rollouts, problems: [0.0] * 3)(PROBLEMS[0], found) == [found[0]]


# Divergences


def test_renyi_goes_to_forward_kl_and_skewed_kl_begins_with_it():
    generator = torch.Generator().manual_seed(0)
    s, t = torch.randn(2, 6, 9, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(Renyi(1 - 1e-6)(s, t), forward_kl(s, t), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(Renyi(0.5)(s, t), Renyi(0.5)(t, s))
    torch.testing.assert_close(SkewedKL(0.0)(s, t), forward_kl(s, t))
    p, q = t.softmax(-1), s.softmax(-1)
    torch.testing.assert_close(SkewedKL(0.3)(s, t), (p * (p / (0.3 * p + 0.7 * q)).log()).sum(-1))
    with pytest.raises(ValueError, match="alpha 1 is the forward KL"):
        Renyi(1.0)
    with pytest.raises(TypeError, match="is none; leave it out"):
        OPSD(Renyi(0.5), pointwise_clip=0.1)


@pytest.mark.parametrize("divergence", [forward_kl, reverse_kl, jsd(0.3)])
def test_a_token_above_its_clip_has_no_slope_and_the_others_keep_theirs(divergence):
    generator = torch.Generator().manual_seed(1)
    student, teacher = Side(torch.randn(8, 9, generator=generator).double()), Side(torch.randn(8, 9, generator=generator).double())
    tokens = Tokens(torch.zeros(8, dtype=torch.long))
    whole = compute_losses(OPSD(divergence), student, Teachers(teacher=teacher), tokens.of_views(()), slope=True)
    clip = float(whole.loss.median())
    found = compute_losses(OPSD(divergence, token_clip=clip), student, Teachers(teacher=teacher), tokens, slope=True)
    over = whole.loss > clip
    torch.testing.assert_close(found.loss, whole.loss.clamp(max=clip))
    torch.testing.assert_close(found.slope, whole.slope.masked_fill(over[:, None], 0.0))
    torch.testing.assert_close(tokens.recorded["clipped"], (whole.loss - clip).clamp(min=0))


# Sums


SUMMED = {
    "a divergence": OPSD(reverse_kl),
    "another": OPSD(forward_kl),
    "the sampled token": SampledTokenOPSD(),
    "a route": Route(lambda tokens: tokens.ids > 4, OPSD(jsd(0.5)), SampledTokenOPSD(temperature=2.0)),
}


@pytest.mark.parametrize(("first", "second"), list(permutations(SUMMED, 2)))
def test_a_sum_has_the_losses_and_slopes_of_its_parts_and_the_columns_of_the_first(first, second):
    generator = torch.Generator().manual_seed(2)
    student, teacher = (Side(torch.randn(9, 9, generator=generator).double()) for _ in range(2))
    teachers = Teachers(teacher=teacher)

    def found(objective):
        tokens = Tokens(torch.arange(9))
        return compute_losses(objective, student, teachers, tokens, slope=True), tokens.recorded

    (one, recorded), (two, _) = found(SUMMED[first]), found(SUMMED[second])
    whole, columns = found(Sum((SUMMED[first], SUMMED[second]), (1.0, 0.5)))
    torch.testing.assert_close(whole.loss, one.loss + 0.5 * two.loss)
    torch.testing.assert_close(whole.slope, one.slope + 0.5 * two.slope)
    leaf = student.logits.clone().requires_grad_()
    Sum((SUMMED[first], SUMMED[second]), (1.0, 0.5)).loss(Side(leaf), teachers, Tokens(torch.arange(9))).sum().backward()
    torch.testing.assert_close(whole.slope, leaf.grad)
    for name, values in recorded.items():
        torch.testing.assert_close(columns[name], values)


# Controllers


def see(controller, *values, name="m"):
    state, found = controller.start(), []
    for value in values:
        state = controller.see(state, SimpleNamespace(metrics={name: value}, loss=value))
        found.append(controller.value(state))
    return found


def test_controllers_follow_what_they_see():
    assert see(RunningMean("m"), 1.0, math.nan, 3.0) == [1.0, 1.0, 2.0]
    gate = Hysteresis("m", on=0.5, share=0.9, warm_steps=2)
    assert see(gate, 1.0, 3.0, 1.9, 1.7, 1.9, 2.0, math.nan, 1.85) == [0, 0.5, 0.5, 0, 0, 0.5, 0.5, 0.5]


def test_the_bandit_holds_a_share_and_moves_towards_those_under_which_the_loss_fell():
    bandit = BetaBandit(hold=2, rate=1.0, seed=3)
    found = see(bandit, *[5.0 - 0.1 * i for i in range(12)])
    assert all(a == b for a, b in zip(found[1::2][:-1], found[2::2], strict=True)) and len(set(found)) > 2
    assert all(bandit.least <= value < 1 for value in found)
    assert see(bandit, *[5.0 - 0.1 * i for i in range(12)]) == found

    state = bandit.start()
    for loss in (4.0, 1.0):
        state = bandit.see(state, SimpleNamespace(loss=loss, metrics={}))
    rewarded = bandit.start()["share"]
    a, b = math.exp(state["log_a"]), math.exp(state["log_b"])
    assert (a / (a + b) > 0.5) == (rewarded > 0.5)


# Methods' own pieces


def test_a_change_point_is_a_lasting_drop_and_nothing_else():
    cut = BeforeTheDrop().change_point
    assert cut(torch.tensor([1.0, 0.9, 1.1, 0.1, 0.0, 0.1])) == 3
    assert cut(torch.tensor([0.0, 0.1, 1.0, 1.0])) is None and cut(torch.tensor([0.5])) is None
    assert cut(torch.tensor([0.5, 0.5, 0.5, 0.5])) is None


def test_left_out_tokens_weigh_nothing():
    assert LeaveOut((3, 5))({"ids": torch.tensor([3, 4, 5, 6])}).tolist() == [0.0, 1.0, 0.0, 1.0]


@dataclass(frozen=True)
class Counted:
    made: tuple = ()

    def begin(self, start):
        return start.once("x", lambda: replace(self, made=(len(start.kept),)))


def test_a_piece_is_begun_once_where_several_ask_for_it():
    start = Start(None, PROBLEMS, None, None, None, None)
    first, second = begun((Counted(), Counted()), start)
    assert first is second and first.made == (0,)


def test_every_recipe_can_be_worded_for_the_sandbox():
    problem = worksheets("sheet", "train", 3)[0]
    tokenizer = load_sandbox().tokenizer
    start = Start(None, worksheets("sheet", "train", 3), None, None, None, None)
    other = worksheets("sheet", "train", 3)[1]
    writes = "\n".join(other.meta["lines"])
    for key, recipe in family_recipes().items():
        view = begun(recipe.view, start) if key not in ("rock_tokens", "lightning_opd") else recipe.view
        contexts = ContextBuilder(tokenizer, view, student=CHAT, teacher=CHAT).at(1)
        prompts = contexts.build(problem)
        texts = dict.fromkeys(contexts.written, writes)
        own = Rollout(problem.id, prompts.student_ids, (1,), (-1.0,), "stop", writes)
        peers = Group(problem, (own, replace(own), replace(own)), (0.0, 1.0, 0.0))
        shown = contexts.with_rollout(prompts, problem, own, peers, texts)
        assert any(ids for ids in shown.teachers.values()), key


def test_the_familys_study_has_every_method_at_equal_operations():
    study = family_study("chain", {"tip": 1e-3}, keys=["tip", "opsd"])
    assert set(study.arms) == {"base", "tip", "opsd"} and study.arms["tip"].training["learning_rate"] == 1e-3
    assert set(study.splits) == {"test", "sheet", "watched"} and study.during == ("watched",)
    assert study.operations == (0.4375e12, 0.875e12, 1.3125e12, 1.75e12)
    assert not {p.question for p in study.splits["watched"]} & {p.question for p in study.train}
    assert family_search(keys=["tip"]).operations == study.operations[-1:]
    with pytest.raises(ValueError, match="sheet and chain, not on 'x'"):
        family_study("x")
    assert set(family_recipes()) == {"grpo", *METHODS}


def test_the_regression_finds_what_a_piece_is_worth_and_what_is_worth_nothing():
    recipes = family_recipes()
    pieces = {key: pieces_of(recipe) for key, recipe in recipes.items()}
    assert pieces["purified_opsd"]["view"] == pieces["rlsd"]["view"] == "solution" and pieces["rlsd"]["teacher"] == "copy"
    assert pieces["opsd_clipped"]["clip"] and not pieces["pbsd"]["outcomes"] and pieces["trace"]["outcomes"]
    random = np.random.default_rng(0)
    noise = {key: 0.005 * random.standard_normal() for key in recipes}
    worth = {key: 0.3 + 0.2 * (found["signal"] == "forward KL") - 0.1 * found["several_views"] for key, found in pieces.items()}
    rows = [
        {"arm": key, "seed": seed, "accuracy": worth[key] + noise[key] + 0.01 * random.standard_normal()}
        for key in recipes
        for seed in range(3)
    ]
    found = marginal_effects(pd.DataFrame(rows), recipes).set_index(["piece", "value"])
    for key, value in {("signal", "forward KL"): 0.2, ("several views", "yes"): -0.1, ("token weights", "yes"): 0.0}.items():
        row = found.loc[key]
        assert row["mean"] == pytest.approx(value, abs=0.02) and row["low"] < row["mean"] < row["high"] < row["low"] + 0.1
    assert found["n"].ge(1).all() and set(found["unit"]) == {"methods"}
    assert found.loc[("signal", "gap"), "against"] == "reverse KL" and found.loc[("clip", "yes"), "against"] == ""


def test_a_collapse_is_found_at_its_first_evaluation_with_what_its_metrics_were():
    def row(arm, step, accuracy, trace=(), error="", split="test"):
        return {"arm": arm, "seed": 0, "step": step, "split": split, "accuracy": accuracy, "error": error, "trace_loss": list(trace)}

    table = pd.DataFrame(
        [
            row("base", 0, 0.4),
            row("good", 10, 0.1),
            row("good", 20, 0.5, range(20)),
            row("fallen", 10, 0.3),
            row("fallen", 20, 0.1),
            row("fallen", 30, 0.0, [1.0] * 25 + [3.0] * 5),
            row("broken", 10, 0.3),
            row("broken", 10, math.nan, [math.nan, 2.0], "NonFiniteError: x"),
        ]
    )
    found = collapses(table).set_index("arm")
    assert list(found.index) == ["fallen", "broken"]
    assert found.loc["fallen", ["step", "accuracy", "loss, first", "loss, last"]].tolist() == [20, 0.0, 1.0, 3.0]
    assert found.loc["broken", ["step", "error", "loss, first"]].tolist() == [10, "NonFiniteError: x", 2.0]
    with pytest.raises(ValueError, match="has no row on the split 'watched'"):
        collapses(table, watched="watched")
    more = [row("base", 0, 0.6, split="watched"), row("fallen", 5, 0.31, split="watched"), row("fallen", 15, 0.29, split="watched")]
    found = collapses(pd.concat([table, pd.DataFrame(more)]), watched="watched").set_index("arm")
    assert found.loc["fallen", ["step", "accuracy"]].tolist() == [15, 0.0] and found.loc["broken", "step"] == 10


def test_a_cosine_begins_and_ends_as_the_line_does_and_is_half_way_in_the_middle():
    line, curve = Linear(1.0, 0.0, 8, after=2), Cosine(1.0, 0.0, 8, after=2)
    for step in (1, 2, 6, 10, 99):
        assert curve.at(step) == pytest.approx(line.at(step))
    assert curve.at(4) == pytest.approx((1 + math.cos(math.pi / 4)) / 2) and curve.at(4) > line.at(4)
    with pytest.raises(ValueError, match="Cosine: steps is 0"):
        Cosine(1.0, 0.0, 0)


@pytest.mark.parametrize("wrote", ["<user>", "8\ufdd0"])
def test_what_a_model_wrote_and_no_prompt_can_hold_is_not_shown_and_does_not_end_a_run(wrote):
    policy, problem = load_sandbox(), worksheets("sheet", "train", 1)[0]
    contexts = ContextBuilder(policy.tokenizer, FailedPeer(), student=CHAT, teacher=CHAT)
    prompts = contexts.build(problem)
    own, peer = (Rollout(problem.id, prompts.student_ids, (1,), (-1.0,), "stop", text) for text in ("1", wrote))
    group = Group(problem, (own, peer), (1.0, 0.0))
    with pytest.warns(UserWarning, match=f"problem '{problem.id}', the teacher's prompt: its privileged text contains .*not"):
        assert contexts.with_rollout(prompts, problem, own, group).teachers == {"teacher": None}
    assert contexts.with_rollout(prompts, problem, peer, Group(problem, (peer, own), (1.0, 0.0))).teacher_ids
    view = WrittenView(reference_solution, lambda problem, text: text, 8)
    written = ContextBuilder(policy.tokenizer, view, student=CHAT, teacher=CHAT)
    with pytest.warns(UserWarning, match="the view has nothing to show of this rollout"):
        assert written.with_rollout(written.build(problem), problem, own, group, {"teacher": wrote}).teachers == {"teacher": None}
    with pytest.raises(ValueError, match="privileged text contains"):  # what people gave does
        ContextBuilder(policy.tokenizer, lambda problem: wrote, student=CHAT, teacher=CHAT).build(problem)
    amiss = ContextBuilder(policy.tokenizer, FailedPeer(), student=CHAT)  # the teacher's own instruction is at fault
    with pytest.raises(ValueError, match="its question, instruction"):
        amiss.with_rollout(amiss.build(problem), problem, own, group)


def test_a_searched_rate_is_the_best_of_the_searchs_table_and_a_missing_search_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"make it with `python.*study --name family-search --seeds 100 --out"):
        searched_rates("family_search", ["tip"], RATES, tmp_path)
    study = family_search(keys=["tip"])
    assert study.arms["base"] is None
    rows = [
        {"arm": arm, "method": study.methods[arm], "learning_rate": recipe.training["learning_rate"], "accuracy": accuracy}
        for (arm, recipe), accuracy in zip(list(study.arms.items())[1:], (0.1, 0.2, 0.4), strict=True)
    ]
    table = pd.DataFrame(rows).assign(seed=100, step=200, split="validation", error="")
    table.to_parquet(tmp_path / "family_search.parquet")
    assert searched_rates("family_search", ["tip"], RATES, tmp_path) == {"tip": 2e-4}
    for keys, part in ((["tip"], table[:2]), (["tip", "opsd"], table)):
        part.to_parquet(tmp_path / "family_search.parquet")
        with pytest.raises(ValueError, match=f"a search that has not ended: {keys[-1]} has not tried all rates; go on with `python"):
            searched_rates("family_search", keys, RATES, tmp_path)


def test_the_bandit_is_not_paid_for_what_a_new_share_does_to_the_loss():
    bandit = BetaBandit(hold=2)
    state = bandit.start()
    for loss in (3.0, 2.0):  # the first share: one fall, of 1, at its second step
        state = bandit.see(state, SimpleNamespace(loss=loss))
    assert state["draws"] == 1 and state["mean"] == pytest.approx(bandit.discount) and state["loss"] is None
    state = bandit.see(state, SimpleNamespace(loss=0.5))  # the next share's first loss is compared with nothing
    assert state["reward"] == 0.0


def test_a_source_can_write_another_number_of_rollouts_than_the_recipe_asks_for():
    trainer = build(source=Together((StudentWrites(), PerProblem(StudentWrites(), 3))), n=1)
    (record,) = run(trainer)
    assert sorted(Counter(r.problem_id for r in record.rollouts).values()) == [4] * 4
    with pytest.raises(ValueError, match="PerProblem: n is out of range: 0"):
        PerProblem(StudentWrites(), 0)


def test_a_donor_without_a_solution_is_named():
    with pytest.raises(ValueError, match="problem 'd', a donor, has no solution"):
        WorkedExample(donors=(Problem("d", "q?", "1"),))(PROBLEMS[0])


def test_rock_tokens_are_those_of_the_largest_frequency_times_mean_divergence_behind_the_most_frequent():
    plain = build(new=12)
    start = Start(plain.policy, PROBLEMS, plain.contexts, plain.sampler, plain.sampling, None)
    weights = RockTokens(problems=8, first=2, count=3).begin(start)
    rollouts = sample_rollouts(plain.sampler, plain.contexts, PROBLEMS[:8], replace(plain.sampling, n=1))
    examples = build_examples(plain.contexts, PROBLEMS[:8], rollouts)
    table = score_rollouts(plain.policy, live_teacher(), OPSD(reverse_kl), examples, progress=False).frame
    seen, total = Counter(), Counter()
    for token, divergence in zip(table["token_id"], table["divergence"], strict=True):
        seen[token] += 1
        total[token] += divergence
    least = sorted(seen.values())[-2]
    ranked = sorted((token for token in total), key=lambda token: -total[token])
    frequent = [token for token in seen if seen[token] > least] + [token for token in seen if seen[token] == least]
    assert weights.ids == tuple([token for token in ranked if token not in frequent[:2]][:3])
