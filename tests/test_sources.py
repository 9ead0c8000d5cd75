import dataclasses
import math

import numpy as np
import pytest
import torch

from opsd_lab.basics.schedules import Linear
from opsd_lab.contexts import ContextBuilder, reference_solution
from opsd_lab.divergences import reverse_kl
from opsd_lab.objectives import GRPO, OPSD, SFT
from opsd_lab.policies.policy import add_lora
from opsd_lab.policies.teachers import OtherTeacher, ema_teacher, refreshed_teacher
from opsd_lab.rollouts import HFSampler, SamplingParams
from opsd_lab.rollouts.gates import correct_only, incorrect_only, mixed_groups
from opsd_lab.rollouts.given_texts import Texts
from opsd_lab.rollouts.sources import BestOf, SourceMixture, StudentWrites
from opsd_lab.rollouts.teacher_writes import TeacherWrites
from opsd_lab.training.recipes import Recipe
from opsd_lab.training.trainer import NonFiniteError, Trainer, TrainingParams
from tests.conftest import PROBLEMS, byte_tokenizer, tiny_policy
from tests.divergences import Made

PARAMS = TrainingParams(batch_size=4, learning_rate=1e-2)


def build(policy=None, *, n=1, params=PARAMS, new=6, view=reference_solution, **options) -> Trainer:
    policy = policy or add_lora(tiny_policy(), rank=4, alpha=8)
    contexts = ContextBuilder(policy.tokenizer, view)
    return Trainer(policy, PROBLEMS, contexts, HFSampler(policy, progress=False), SamplingParams(new, n=n), params=params, **options)


def run(trainer, steps=1):
    return list(trainer.train(steps, progress=False))


def by_parity(rollouts, problems):
    """A reward that differs between the rollouts of a random model."""
    return [float(sum(r.completion_ids) % 2) for r in rollouts]


def test_given_texts_are_trained_on_token_by_token_with_the_end_of_sequence():
    policy = add_lora(tiny_policy(), rank=4, alpha=8)
    trainer = build(policy, source=Texts(lambda p: p.solution), objective=SFT(), new=64)
    (record,) = run(trainer)
    solutions = {p.id: p.solution for p in PROBLEMS}
    for rollout in record.rollouts:
        assert rollout.text == solutions[rollout.problem_id] and rollout.completion_ids[-1] == policy.tokenizer.eos_token_id
        assert bytes(byte_tokenizer().decode(rollout.completion_ids[:-1]), "utf8") == bytes(rollout.text, "utf8")
    frame = record.table.frame
    assert record.loss == pytest.approx(-frame["student_logprob"].mean(), abs=1e-6)
    assert math.isnan(record.metrics["mismatch_mean"]), "the student wrote none of them"
    assert record.ledger.tokens_generated == record.ledger.tokens_scored == record.ledger.flops_generate == 0
    assert record.ledger.tokens_trained == len(frame)


def test_maximum_likelihood_makes_the_texts_likelier():
    policy = add_lora(tiny_policy(), rank=4, alpha=8)
    params = dataclasses.replace(PARAMS, batch_size=12)
    records = run(build(policy, source=Texts(lambda p: p.solution), objective=SFT(), new=64, params=params), 8)
    assert records[-1].loss < records[0].loss - 0.1


def test_a_text_that_is_too_long_or_changed_by_the_tokenizer_is_named():
    policy = add_lora(tiny_policy(), rank=4, alpha=8)
    with pytest.raises(ValueError, match=r"problem 'p\d+': its text has \d+ tokens, more than max_new_tokens = 3"):
        run(build(policy, source=Texts(lambda p: p.solution), objective=SFT(), new=3))
    with pytest.raises(ValueError, match="no tokens"):
        run(build(policy, source=Texts(lambda p: ""), objective=SFT()))


def test_the_teacher_writes_under_its_own_weights_and_prompt_and_the_student_learns_behind_its_own():
    policy = add_lora(tiny_policy(), rank=4, alpha=8)
    trainer = build(policy, source=TeacherWrites())
    with torch.no_grad():
        for name, parameter in policy.trainable().items():  # the student is no longer the teacher
            if "lora_B" in name:
                parameter.normal_(0, 0.5)
    (record,) = run(trainer)
    pairs = {p.id: pair for p, pair in zip(trainer.problems, trainer.prompts, strict=True)}
    frame = record.table.frame
    for number, rollout in enumerate(record.rollouts):
        assert rollout.prompt_ids == pairs[rollout.problem_id].student_ids
        theirs = frame.loc[frame["rollout"] == number, "teacher_logprob"].to_numpy()
        np.testing.assert_allclose(rollout.logprobs, theirs, atol=1e-4)  # the teacher's own numbers
    assert np.abs(frame["gap"]).max() > 0.1


def test_the_student_writes_by_default():
    a, b = build(), build(source=StudentWrites())
    assert run(a)[0].rollouts == run(b)[0].rollouts


def test_gates_choose_rollouts_by_their_rewards():
    rewards, groups = np.array([1.0, 0.0, 1.0, 1.0, 0.0, 0.0]), np.array([5, 5, 2, 2, 9, 9])
    assert correct_only(rewards, groups).tolist() == [True, False, True, True, False, False]
    assert incorrect_only(rewards, groups).tolist() == [False, True, False, False, True, True]
    assert mixed_groups(rewards, groups).tolist() == [True, True, False, False, False, False]


def test_a_gated_step_trains_on_the_chosen_rollouts_and_counts_the_others():
    (record,) = run(build(n=4, rewards=by_parity, gate=correct_only))
    assert all(by_parity([r], None) == [1.0] for r in record.rollouts)
    assert record.metrics["dropped"] == 16 - len(record.rollouts) > 0
    assert record.metrics["reward"] == pytest.approx(len(record.rollouts) / 16)
    assert record.ledger.tokens_trained < record.ledger.tokens_generated


def test_a_step_whose_gate_lets_nothing_through_changes_no_weight_and_goes_on():
    trainer = build(rewards=lambda rollouts, problems: [0.0] * len(rollouts), gate=correct_only)
    before = {name: p.detach().clone() for name, p in trainer.policy.trainable().items()}
    records = run(trainer, 2)
    assert [r.step for r in records] == [1, 2] and all(math.isnan(r.loss) and len(r.table) == 0 for r in records)
    assert all(torch.equal(p, before[name]) for name, p in trainer.policy.trainable().items())
    assert records[1].ledger.tokens_generated > records[0].ledger.tokens_generated > 0 == records[1].ledger.tokens_trained


def test_groups_without_a_difference_in_reward_leave_the_weights_alone():
    trainer = build(n=4, rewards=lambda rollouts, problems: [1.0] * len(rollouts), objective=GRPO())
    before = {name: p.detach().clone() for name, p in trainer.policy.trainable().items()}
    (record,) = run(trainer)
    assert record.loss == 0 and record.metrics["grad_norm"] == 0
    assert all(torch.equal(p, before[name]) for name, p in trainer.policy.trainable().items())


def test_policy_gradients_make_rewarded_rollouts_likelier():
    def low_ids(rollouts, problems):
        return [float(np.mean([i < 100 for i in r.completion_ids])) for r in rollouts]

    params = dataclasses.replace(PARAMS, batch_size=6, learning_rate=2e-2)
    records = run(build(n=8, rewards=low_ids, objective=GRPO(), params=params), 12)
    rewards = [r.metrics["reward"] for r in records]
    assert np.mean(rewards[-4:]) > np.mean(rewards[:3]) + 0.1


def test_several_passes_meet_the_clip_and_one_pass_does_not():
    params = dataclasses.replace(PARAMS, learning_rate=5e-2)
    ratios = []
    for passes in (1, 4):
        seen = []

        class Watched(GRPO):
            def loss(self, student, teachers, tokens, seen=seen):
                found = super().loss(student, teachers, tokens)
                seen.append(float(tokens.recorded["clipped"].max()))
                return found

        trainer = build(n=4, rewards=by_parity, objective=Watched(), params=dataclasses.replace(params, passes=passes))
        (record,) = run(trainer)
        ratios.append(max(seen))
        assert record.ledger.tokens_trained == passes * len(record.table)
    assert ratios[0] == pytest.approx(0, abs=1e-4) and ratios[1] > 0.01


def test_another_policy_teaches_with_its_own_weights_and_head():
    student, other = tiny_policy(), tiny_policy(seed=5)
    trainer = build(student, teacher=OtherTeacher(other, student), objective=OPSD(reverse_kl), view=lambda problem: "")
    (record,) = run(trainer)
    rollout = record.rollouts[0]
    ids = torch.tensor([[*rollout.prompt_ids, *rollout.completion_ids]], device=other.device)
    logps = other.causal_lm(ids).logits[0].cpu().log_softmax(-1)[len(rollout.prompt_ids) - 1 : -1]
    expected = logps.gather(-1, torch.tensor(rollout.completion_ids)[:, None])[:, 0].detach().numpy()
    np.testing.assert_allclose(record.table.rollout(0).frame["teacher_logprob"], expected, atol=1e-4)


def test_a_teacher_with_another_vocabulary_is_refused():
    other = tiny_policy()
    other.tokenizer.add_tokens(["new"])
    with pytest.raises(ValueError, match="another vocabulary"):
        OtherTeacher(other, tiny_policy())


def test_a_refreshed_teacher_is_the_student_of_the_last_refresh():
    policy = add_lora(tiny_policy(), rank=4, alpha=8)
    teacher = refreshed_teacher(policy, every=2)
    trainer = build(policy, teacher=teacher)
    copies = []
    for _ in trainer.train(4, progress=False):
        copies.append({name: p.detach().clone() for name, p in policy.trainable().items()})
    name = next(name for name in copies[0] if "lora_B" in name)
    held = teacher.state()[name]
    assert torch.equal(held, copies[3][name]) and int(teacher.state()["teacher/steps"]) == 4
    run(trainer)
    assert torch.equal(teacher.state()[name], copies[3][name]) and not torch.equal(policy.trainable()[name], copies[3][name])


def test_an_averages_decay_may_follow_a_schedule_of_the_steps():
    policy = add_lora(tiny_policy(), rank=4, alpha=8)
    teacher = ema_teacher(policy, Linear(0.2, 0.8, steps=3))
    name = next(name for name in policy.trainable() if "lora_B" in name)
    expected = policy.trainable()[name].detach().double().clone()
    for step, _ in enumerate(build(policy, teacher=teacher).train(4, progress=False), 1):
        decay = min(0.2 + 0.2 * step, 0.8)
        expected = decay * expected + (1 - decay) * policy.trainable()[name].detach().double()
    torch.testing.assert_close(teacher.state()[name].double(), expected, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match=r"decay is 1.1 at step 1"):
        ema_teacher(policy, Linear(1.1, 0.5, steps=9, after=1))


def test_pieces_that_do_not_go_together_are_refused():
    policy = add_lora(tiny_policy(), rank=4, alpha=8)
    with pytest.raises(ValueError, match="need `rewards`"):
        build(policy, objective=GRPO())
    with pytest.raises(ValueError, match="need `rewards`"):
        build(policy, gate=correct_only)
    with pytest.raises(ValueError, match="given texts were not sampled"):
        build(policy, source=Texts(lambda p: p.solution), params=dataclasses.replace(PARAMS, importance_cap=2.0))
    given = Texts(lambda p: p.solution)
    for source in (SourceMixture((StudentWrites(), given), (0.5, 0.5)), BestOf(given, lambda problem, rollouts: rollouts)):
        with pytest.raises(ValueError, match="given texts were not sampled"):
            build(policy, source=source, params=dataclasses.replace(PARAMS, importance_cap=2.0))
    with pytest.raises(ValueError, match="OPSD does not look at rewards, and there is no gate that does"):
        build(policy, rewards=by_parity)


@pytest.mark.parametrize("piece", [{"objective": GRPO()}, {"gate": mixed_groups}], ids=["GRPO", "mixed_groups"])
def test_what_compares_the_rollouts_of_a_problem_needs_several(piece):
    with pytest.raises(ValueError, match=r"compares the rollouts of a problem.*set SamplingParams.n to 2 or more"):
        build(n=1, rewards=by_parity, **piece)
    with pytest.raises(ValueError, match=r"compares the rollouts of a problem.*set n to 2 or more"):
        Recipe(piece.get("objective", OPSD()), gate=piece.get("gate"))
    assert Recipe(piece.get("objective", OPSD()), gate=piece.get("gate"), n=2)


@pytest.mark.parametrize("other", [{"temperature": 0.7}, {"temperature": 0}, {"top_p": 0.9}, {"top_k": 5}], ids=str)
def test_policy_gradients_are_refused_where_rollouts_come_from_another_distribution_than_the_ratios(other):
    policy = add_lora(tiny_policy(), rank=4, alpha=8)
    with pytest.raises(ValueError, match=f"rollouts drawn with {next(iter(other))} = .* come from another distribution. Sample with"):
        Trainer(
            policy,
            PROBLEMS,
            ContextBuilder(policy.tokenizer),
            HFSampler(policy, progress=False),
            SamplingParams(6, n=2, **other),
            objective=GRPO(),
            rewards=by_parity,
        )


def test_a_recipe_refuses_the_other_kinds_parameters_by_name():
    with pytest.raises(ValueError, match=r"training takes .*learning_rate.*, not max_new_tokens"):
        Recipe(training={"max_new_tokens": 5})
    with pytest.raises(ValueError, match=r"sampling takes .*temperature.*, not learning_rate, n"):
        Recipe(sampling={"learning_rate": 1e-3, "n": 4})
    with pytest.raises(TypeError, match="Recipe: objective is the class OPSD itself"):
        Recipe(OPSD)


def test_a_step_that_trains_on_nothing_has_the_metrics_of_any_other_step():
    (idle,) = run(build(n=2, rewards=lambda rollouts, problems: [0.0] * len(rollouts), gate=correct_only))
    (usual,) = run(build(n=2, rewards=lambda rollouts, problems: [1.0] * len(rollouts), gate=correct_only))
    assert idle.metrics.keys() == usual.metrics.keys()
    nothing = {name for name, value in idle.metrics.items() if math.isnan(value)}
    assert nothing >= {"gap", "divergence", "student_entropy", "teacher_entropy", "clip_fraction", "mismatch_mean", "padding"}
    assert idle.metrics["reward"] == 0 and idle.metrics["learning_rate"] == usual.metrics["learning_rate"]
    assert not any(math.isnan(value) for value in usual.metrics.values())


def test_rollouts_that_a_gate_let_through_and_that_were_all_dropped_are_an_error_as_without_a_gate():
    params = dataclasses.replace(PARAMS, truncated="drop")
    rewards = {"rewards": lambda rollouts, problems: [1.0] * len(rollouts), "gate": correct_only}
    with pytest.raises(RuntimeError, match="step 1: every rollout that the gate let through was cut at 2 tokens and dropped"):
        run(build(new=2, params=params, **rewards))
    rewards["gate"] = incorrect_only
    (record,) = run(build(new=2, params=params, **rewards))
    assert math.isnan(record.loss)


def test_a_later_pass_that_finds_no_number_ends_the_step_and_the_record_is_handed_out_first():
    passes = []

    def rising(logits):
        passes.append(1)
        return logits.mean(-1) * (float("nan") if len(passes) > 1 else 1.0)

    trainer = build(objective=OPSD(Made(rising)), params=dataclasses.replace(PARAMS, passes=3, token_budget=10_000))
    passes.clear()  # the objective was tried on made-up tokens
    records = []
    with pytest.raises(NonFiniteError, match="step 1") as caught:
        for record in trainer.train(2, progress=False):
            records.append(record)
    assert [r.step for r in records] == [1] == [trainer.step]
    assert caught.value.__notes__ == ["This was pass 2 of step 1, which counts with the passes before."]
    assert records[0].ledger.tokens_trained == len(records[0].table)
