import dataclasses
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from accelerate import PartialState

from opsd_lab.basics.schedules import Linear
from opsd_lab.contexts import ContextBuilder, no_privilege
from opsd_lab.divergences import jsd, reverse_kl
from opsd_lab.evaluation.rewards import AnswerReward
from opsd_lab.grading import Grader, UnreadableAnswersError
from opsd_lab.objectives import GRPO, OPSD, SampledTokenOPSD, Scaled, of_the_step
from opsd_lab.policies.policy import add_lora
from opsd_lab.policies.teachers import ema_teacher, live_teacher
from opsd_lab.rollouts import HFSampler, Rollout, SamplingParams
from opsd_lab.runs import Run, train
from opsd_lab.training.checkpoints import load_checkpoint, save_checkpoint
from opsd_lab.training.trainer import NonFiniteError, Trainer, TrainingParams
from tests.conftest import PROBLEMS, tiny_policy
from tests.divergences import Made

PARAMS = TrainingParams(batch_size=4, learning_rate=1e-2, token_budget=10_000)
SAMPLING = SamplingParams(6, temperature=1.0)


def build(policy=None, *, view=None, params=PARAMS, sampling=SAMPLING, teacher=None, objective=None, problems=PROBLEMS) -> Trainer:
    policy = policy or add_lora(tiny_policy(), rank=4, alpha=8)
    contexts = ContextBuilder(policy.tokenizer, **({"view": view} if view else {}))
    sampler = HFSampler(policy, progress=False)
    return Trainer(
        policy, problems, contexts, sampler, sampling, params=params, teacher=teacher and teacher(policy), objective=objective
    )


def run(trainer: Trainer, steps: int) -> list:
    return list(trainer.train(steps, progress=False))


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trainer.policy.trainable().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], atol: float = 0.0) -> bool:
    return all(torch.allclose(a[name], b[name], atol=atol, rtol=0) for name in a)


def test_no_privilege_with_the_fixed_teacher_has_no_loss_and_no_gradient_at_the_first_step():
    (record,) = run(build(view=no_privilege), 1)
    assert abs(record.loss) < 1e-7 and record.metrics["grad_norm"] < 1e-6
    assert record.table.frame["gap"].abs().max() < 1e-6


@pytest.mark.parametrize(
    "objective",
    [OPSD(), OPSD(reverse_kl, temperature=1.1), OPSD(jsd(0.5), vocab_top_k=5), OPSD(pointwise_clip=0.02), SampledTokenOPSD()],
    ids=["forward", "reverse", "jsd", "clip", "sampled"],
)
def test_the_loss_is_the_weighted_sum_of_the_tables_tokens(objective):
    for normalisation in ("token", "sequence"):
        (record,) = run(build(objective=objective, params=dataclasses.replace(PARAMS, normalisation=normalisation)), 1)
        frame = record.table.frame
        assert record.loss == pytest.approx((frame["loss"] * frame["weight"]).sum() / frame["weight"].sum(), abs=1e-6)
        assert len(frame) == sum(len(r.completion_ids) for r in record.rollouts)


def test_sequence_normalisation_is_the_mean_over_rollouts_of_their_token_means():
    (record,) = run(build(params=dataclasses.replace(PARAMS, normalisation="sequence")), 1)
    assert record.loss == pytest.approx(record.table.frame.groupby("rollout")["loss"].mean().mean(), abs=1e-6)


def test_training_brings_the_student_towards_its_teacher():
    trainer = build(params=dataclasses.replace(PARAMS, batch_size=12))
    records = run(trainer, 12)
    assert records[-1].loss < 0.7 * records[0].loss


@pytest.mark.parametrize("normalisation", ["token", "sequence"])
def test_four_micro_batches_give_the_step_of_one_batch(normalisation):
    params = dataclasses.replace(PARAMS, normalisation=normalisation)
    whole, parts = build(params=params), build(params=dataclasses.replace(params, token_budget=1))
    a, b = run(whole, 1), run(parts, 1)
    assert a[0].rollouts == b[0].rollouts
    assert a[0].loss == pytest.approx(b[0].loss, abs=1e-6)
    assert a[0].metrics["grad_norm"] == pytest.approx(b[0].metrics["grad_norm"], rel=1e-4)
    torch.testing.assert_close(a[0].table.frame["loss"].to_numpy(), b[0].table.frame["loss"].to_numpy(), atol=1e-5, rtol=0)


def test_the_same_seed_gives_the_same_run_and_another_seed_another():
    first, again, other = build(), build(), build(params=dataclasses.replace(PARAMS, seed=1))
    a, b, c = run(first, 3), run(again, 3), run(other, 3)
    assert [r.loss for r in a] == [r.loss for r in b] != [r.loss for r in c]
    assert same(weights(first), weights(again))


class Failing:
    """A controller that cannot use what it sees."""

    def see(self, state, record):
        raise KeyError("no metric is called so")


def test_what_goes_wrong_once_the_weights_have_changed_is_raised_after_the_steps_record(monkeypatch):
    def fail():
        raise ValueError("the average cannot follow")

    one, other = build(), build()
    monkeypatch.setattr(one.teacher, "update", fail, raising=False)
    other.states[Failing()] = 0
    for trainer, error in ((one, ValueError), (other, KeyError)):
        before, steps = weights(trainer), trainer.train(3, progress=False)
        record = next(steps)
        assert record.step == trainer.step == 1 and not same(before, weights(trainer))
        taken = weights(trainer)
        with pytest.raises(error):
            next(steps)
        assert trainer.step == 1 and same(taken, weights(trainer))


@dataclasses.dataclass(frozen=True)
class Fading:
    """A solution that some problems lack once `share` has fallen."""

    share: float | Linear = 1.0

    def __call__(self, problem):
        return None if self.share < 0.5 and problem in PROBLEMS[::2] else problem.solution


def test_tokens_that_lose_their_view_at_a_later_step_are_divided_out_of_the_loss_there():
    first, second = run(build(view=Fading(Linear(1.0, 0.0, steps=2))), 2)
    every_other = {problem.id for problem in PROBLEMS[::2]}
    for record, lacking in ((first, set()), (second, every_other)):
        frame = record.table.frame
        counted = ~frame["problem_id"].isin(lacking)
        assert record.loss == pytest.approx(frame["loss"].sum() / counted.sum(), abs=1e-6)
    assert 0 < counted.mean() < 1


@pytest.mark.parametrize("name", ["weight", "gap", "loss", "position", "student_entropy"])
def test_a_mark_or_signal_cannot_take_the_name_of_a_column_that_every_step_has(name):
    policy = add_lora(tiny_policy(), rank=4, alpha=8)
    pieces = policy, PROBLEMS, ContextBuilder(policy.tokenizer), HFSampler(policy, progress=False), SAMPLING
    for given in ({"marks": {name: len}}, {"signals": {name: len}}):
        with pytest.raises(ValueError, match=f"every step has a column '{name}' of its own; give the mark or signal another name"):
            Trainer(*pieces, **given)
    with pytest.raises(ValueError, match="'mine' is a mark and a signal"):
        Trainer(*pieces, marks={"mine": len}, signals={"mine": len})


def test_every_problem_comes_once_before_any_comes_again():
    seen = [r.problem_id for record in run(build(), 6) for r in record.rollouts]
    assert sorted(seen[:12]) == sorted(seen[12:]) == sorted(p.id for p in PROBLEMS)
    assert seen[:12] != seen[12:]


def test_the_samplers_and_the_trainers_log_probabilities_are_compared_each_step():
    for record in run(build(), 3):
        assert record.metrics["mismatch_max"] < 1e-4
        assert abs(record.metrics["mismatch_kl"]) <= record.metrics["mismatch_mean"] <= record.metrics["mismatch_max"]


def test_importance_weights_are_the_capped_ratio_of_the_trainers_to_the_samplers_probability():
    trainer = build(params=dataclasses.replace(PARAMS, importance_cap=1.1))
    sample = trainer.sampler.sample
    shifts = torch.linspace(-0.5, 0.5, 4)

    def mistaken(prompts, params):
        """An engine whose log-probabilities are off by as much as a rollout's number says."""
        rollouts = sample(prompts, params)
        return [
            dataclasses.replace(r, logprobs=tuple(x + float(shift) for x in r.logprobs))
            for r, shift in zip(rollouts, shifts, strict=True)
        ]

    trainer.sampler.sample = mistaken
    (record,) = run(trainer, 1)
    frame = record.table.frame
    expected = torch.exp(-shifts).clamp(max=1.1)[frame["rollout"].to_numpy()]
    torch.testing.assert_close(torch.tensor(frame["weight"].to_numpy()).float(), expected, atol=1e-5, rtol=0)
    assert record.loss == pytest.approx((frame["loss"] * frame["weight"]).sum() / len(frame), abs=1e-6)


def test_the_gradient_reaches_the_student_only():
    trainer = build()
    frozen = {n: p.detach().clone() for n, p in trainer.policy.model.named_parameters() if not p.requires_grad}
    run(trainer, 2)
    now = dict(trainer.policy.model.named_parameters())
    assert all(torch.equal(value, now[name]) and now[name].grad is None for name, value in frozen.items())


def test_the_sampled_token_objective_has_the_policy_gradient():
    trainer = build(objective=SampledTokenOPSD(), params=dataclasses.replace(PARAMS, max_grad_norm=1e9))
    (record,) = run(trainer, 1)
    ours = {n: p.grad.clone() for n, p in trainer.policy.trainable().items()}
    fresh = build()
    total = len(record.table.frame)
    fresh.optimizer.zero_grad()
    for i, rollout in enumerate(record.rollouts):
        ids = torch.tensor([rollout.prompt_ids + rollout.completion_ids], device=fresh.policy.device)
        logits = fresh.policy.model(input_ids=ids).logits.cpu()[0, len(rollout.prompt_ids) - 1 : -1]
        logprobs = logits.log_softmax(-1).gather(-1, torch.tensor(rollout.completion_ids)[:, None])[:, 0]
        advantage = torch.tensor(record.table.rollout(i).frame["gap"].to_numpy(), dtype=torch.float32)
        (-(advantage * logprobs).sum() / total).backward()
    for name, p in fresh.policy.trainable().items():
        torch.testing.assert_close(ours[name], p.grad, atol=1e-5, rtol=1e-3)


def test_truncated_rollouts_are_counted_and_treated_as_asked():
    sampling = SamplingParams(3, temperature=1.0)
    kept, shorter = (
        run(build(sampling=sampling, params=dataclasses.replace(PARAMS, truncated=t)), 1)[0]
        for t in ("keep", "keep_without_last_token")
    )
    assert kept.metrics["truncated"] == 1.0 and len(kept.table) == 12 and len(shorter.table) == 8
    assert kept.ledger.tokens_generated == shorter.ledger.tokens_generated == 12
    assert (kept.ledger.tokens_trained, shorter.ledger.tokens_trained) == (12, 8)
    with pytest.raises(RuntimeError, match=r"step 1: every rollout was cut at 3 tokens and dropped; raise\s+max_new_tokens"):
        run(build(sampling=sampling, params=dataclasses.replace(PARAMS, truncated="drop")), 1)


def test_the_ledger_counts_tokens_as_another_count_does():
    records = run(build(), 3)
    generated = sum(len(r.completion_ids) for record in records for r in record.rollouts)
    assert records[-1].ledger.tokens_generated == records[-1].ledger.tokens_scored == generated
    assert records[-1].ledger.tokens_trained == sum(len(record.table) for record in records)


def test_a_loss_that_is_no_number_stops_names_the_step_and_keeps_the_last_good_weights():
    def broken(logits):
        return logits.mean(-1) * (float("nan") if trainer.step == 2 else 1)

    trainer = build(objective=OPSD(Made(broken)))
    with pytest.raises(NonFiniteError, match=r"step 3: .* in the rollouts of problems \['p"):
        for record in trainer.train(5, progress=False):  # noqa: B007 - looked at after the loop
            good = weights(trainer)
    assert trainer.step == record.step == 2
    assert same(weights(trainer), good)


def test_a_gradient_that_is_no_number_stops_before_the_weights_change():
    class Explode(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * float("inf")

    trainer = build(objective=OPSD(Made(lambda logits: Explode.apply(logits).mean(-1))))
    before = weights(trainer)
    with pytest.raises(NonFiniteError, match="step 1: the gradient's norm is"):
        run(trainer, 1)
    assert same(weights(trainer), before) and trainer.step == 0


class InterruptingSampler(HFSampler):
    """Presses Ctrl-C, for real, while the third step is being sampled."""

    calls = 0

    def sample(self, prompts, params):
        self.calls += 1
        if self.calls == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return super().sample(prompts, params)


def test_an_interrupt_leaves_a_usable_trainer_that_goes_on_as_if_nothing_had_happened():
    undisturbed = build()
    losses = [r.loss for r in run(undisturbed, 4)]
    trainer = build()
    trainer.sampler = InterruptingSampler(trainer.policy, progress=False)
    seen = []
    with pytest.raises(KeyboardInterrupt):
        seen += [r.loss for r in trainer.train(4, progress=False) if not seen.append(r.loss)]
    assert trainer.step == 2
    seen += [r.loss for r in run(trainer, 2)]
    assert seen == losses and same(weights(trainer), weights(undisturbed))


def test_an_interrupt_during_the_update_waits_for_its_end():
    trainer = build()
    take_step = trainer.optimizer.step

    def interrupted_step():
        os.kill(os.getpid(), signal.SIGINT)
        take_step()

    trainer.optimizer.step = interrupted_step
    before = weights(trainer)
    with pytest.raises(KeyboardInterrupt):
        run(trainer, 1)
    assert trainer.step == 1 and not same(weights(trainer), before)


@pytest.mark.parametrize("teacher", [None, lambda p: ema_teacher(p, 0.9), lambda p: live_teacher()], ids=["fixed", "ema", "live"])
def test_resuming_from_a_checkpoint_is_exact(tmp_path, teacher):
    whole = build(teacher=teacher)
    losses = [r.loss for r in run(whole, 5)]
    first = build(teacher=teacher)
    run(first, 3)
    save_checkpoint(first, tmp_path / "c.safetensors")
    second = build(teacher=teacher)
    load_checkpoint(second, tmp_path / "c.safetensors")
    assert second.step == 3 and second.ledger.tokens_generated == first.ledger.tokens_generated
    assert [r.loss for r in run(second, 2)] == losses[3:]
    assert same(weights(second), weights(whole))
    assert all(torch.equal(a, second.teacher.state()[n]) for n, a in whole.teacher.state().items())


def test_full_training_without_a_lora_keeps_the_initial_policy_as_teacher():
    trainer = build(tiny_policy(), params=dataclasses.replace(PARAMS, learning_rate=1e-3))
    records = run(trainer, 3)
    assert all(r.loss > 0 for r in records) and trainer.teacher.state()


def lora_with_head():
    return add_lora(tiny_policy(), rank=4, alpha=8, targets=["q_proj", "v_proj", "lm_head"])


@pytest.mark.parametrize("make", [tiny_policy, lora_with_head], ids=["full", "lora on the head"])
def test_the_fixed_teachers_head_is_the_initial_one_even_where_the_head_trains(make):
    trainer = build(make(), params=dataclasses.replace(PARAMS, learning_rate=1e-2))
    record = run(trainer, 3)[-1]
    initial, pairs = tiny_policy(), {p.id: pair for p, pair in zip(trainer.problems, trainer.prompts, strict=True)}
    for i, rollout in enumerate(record.rollouts):
        prompt = pairs[rollout.problem_id].teacher_ids
        with torch.no_grad():
            ids = torch.tensor([prompt + rollout.completion_ids], device=initial.device)
            logits = initial.model(input_ids=ids).logits.cpu()[0, len(prompt) - 1 : -1]
        expected = logits.log_softmax(-1).gather(-1, torch.tensor(rollout.completion_ids)[:, None])[:, 0]
        seen = torch.tensor(record.table.rollout(i).frame["teacher_logprob"].to_numpy(), dtype=torch.float32)
        torch.testing.assert_close(seen, expected, atol=1e-4, rtol=0)


def test_the_learning_rate_warms_up_and_then_stays():
    records = run(build(params=dataclasses.replace(PARAMS, warmup_steps=3)), 5)
    assert [r.metrics["learning_rate"] for r in records] == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01])


def test_no_problems_and_prompts_longer_than_the_context_are_reported_before_any_work():
    with pytest.raises(ValueError, match="no problems"):
        build(problems=[])
    with pytest.raises(ValueError, match=r"problem 'p3': the (student|teacher)'s prompt has \d+ tokens"):
        build(add_lora(tiny_policy(context=64)))


def test_a_batch_that_cannot_be_shared_by_the_processes_is_refused(monkeypatch):
    PartialState(cpu=True)  # where no trainer was made before, there is nothing yet to change and to restore
    monkeypatch.setitem(PartialState._shared_state, "num_processes", 5)
    with pytest.raises(ValueError, match="a batch of 4 problems cannot be shared by 5 processes"):
        build()


def test_an_empty_completion_from_a_sampler_cannot_reach_the_loss():
    with pytest.raises(ValueError, match="the completion has no tokens"):
        Rollout("p", (1,), (), (), "stop", "")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch_size", 0),
        ("learning_rate", -1),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("weight_decay", float("nan")),
        ("max_grad_norm", 0),
        ("token_budget", 0),
        ("truncated", "maybe"),
        ("normalisation", "batch"),
        ("importance_cap", 0.0),
        ("importance_cap", -2.0),
        ("passes", 0),
    ],
)
def test_a_training_parameter_out_of_range_is_named(field, value):
    with pytest.raises(ValueError, match=rf"TrainingParams\.{field} is out of range"):
        TrainingParams(**{field: value})


@pytest.mark.parametrize(
    ("make", "field", "value"),
    [
        (TrainingParams, "batch_size", "16"),
        (TrainingParams, "batch_size", 4.0),
        (TrainingParams, "learning_rate", "1e-3"),
        (TrainingParams, "passes", True),
        (TrainingParams, "seed", None),
        (TrainingParams, "measure_clip", 1),
        (SamplingParams, "n", True),
        (SamplingParams, "max_new_tokens", "64"),
        (SamplingParams, "max_new_tokens", 64.0),
        (SamplingParams, "temperature", "1"),
        (SamplingParams, "top_p", None),
    ],
)
def test_a_parameter_of_another_kind_is_named(make, field, value):
    needed = {"max_new_tokens": 5} if make is SamplingParams else {}
    with pytest.raises(TypeError, match=rf"{make.__name__}\.{field}"):
        make(**(needed | {field: value}))


def test_numpys_numbers_are_taken_as_pythons():
    params = TrainingParams(batch_size=np.int64(4), learning_rate=np.float32(0.5), max_grad_norm=float("inf"))
    assert params == TrainingParams(batch_size=4, learning_rate=0.5, max_grad_norm=float("inf"))
    assert type(params.batch_size) is int and type(SamplingParams(np.int32(3)).max_new_tokens) is int


@pytest.mark.parametrize("value", [float("nan"), -0.1])
def test_a_sampling_temperature_out_of_range_is_named(value):
    with pytest.raises(ValueError, match=r"SamplingParams\.temperature is out of range"):
        SamplingParams(5, temperature=value)


@pytest.mark.parametrize(("steps", "error"), [("10", TypeError), (2.0, TypeError), (True, TypeError), (-1, ValueError)])
def test_a_number_of_steps_that_is_none_is_refused_before_the_first(steps, error):
    with pytest.raises(error, match="train: steps"):
        build().train(steps)


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        ({"sampling": TrainingParams()}, r"sampling is TrainingParams.*not a SamplingParams; .*`params` takes TrainingParams"),
        ({"params": SamplingParams(5)}, r"params is SamplingParams.*not a TrainingParams; .*`sampling` takes SamplingParams"),
        ({"objective": OPSD}, r"objective is the class OPSD itself, not a Objective; write OPSD\(forward_kl\)"),
        ({"objective": reverse_kl}, "objective is ReverseKL"),
        ({"teacher": lambda p: ema_teacher}, r"teacher is ema_teacher \(function\), not a teacher, such as fixed_teacher\(policy\)"),
        ({"problems": ["What is 2 + 3?"]}, r"problems\[0\] is 'What is 2 \+ 3\?' \(str\), not a Problem"),
    ],
    ids=["sampling", "params", "class", "divergence", "teacher's maker", "texts"],
)
def test_a_piece_in_anothers_place_is_refused_with_the_remedy(pieces, words):
    with pytest.raises(TypeError, match=f"Trainer: {words}"):
        build(**pieces)


def test_a_completion_longer_than_the_context_is_refused_in_these_words():
    told = "max_new_tokens = 600 leaves no room for a prompt: this model's context holds 512 tokens"
    with pytest.raises(ValueError, match=told):
        build(sampling=SamplingParams(600))
    policy = tiny_policy()
    with pytest.raises(ValueError, match=told):
        HFSampler(policy, progress=False).sample([[1, 2]], SamplingParams(600))


def test_a_policy_of_which_nothing_trains_is_refused():
    policy = tiny_policy()
    policy.model.requires_grad_(False)
    with pytest.raises(ValueError, match="tiny has nothing to train: all its weights are frozen; add_lora"):
        build(policy)


@pytest.mark.parametrize("setting", [("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "8"), ("ACCELERATE_MIXED_PRECISION", "bf16")])
def test_the_gradient_does_not_depend_on_accelerates_environment(monkeypatch, setting):
    (plain,) = run(build(), 1)
    monkeypatch.setenv(*setting)
    (told,) = run(build(), 1)
    assert told.metrics["grad_norm"] == plain.metrics["grad_norm"] > 0


TWO_PROCESSES = """
import sys, torch
from opsd_lab.runs import Keep, train
from tests.test_trainer import KINDS, build, run, weights
for kind, change in KINDS.items():
    trainer = build()
    change(trainer, trainer.processes.is_main_process)
    records = run(trainer, 2)
    torch.save({"loss": [r.loss for r in records], "weights": weights(trainer), "n": trainer.processes.num_processes,
                "tokens": records[-1].ledger.tokens_trained, "metrics": [r.metrics for r in records],
                "rows": len(records[-1].table.frame)}, f"{sys.argv[1]}/{kind}{trainer.processes.process_index}")
for steps in (3, 4):
    trainer = build()
    for _ in train(f"{sys.argv[1]}/run", trainer, steps, keep=Keep(checkpoint_every=2, checkpoints=1), progress=False):
        pass
torch.save(weights(trainer), f"{sys.argv[1]}/run{trainer.processes.process_index}")
"""


@of_the_step
def uncertain(columns):
    return (columns["student_entropy"] >= columns["student_entropy"].quantile(0.6)).float()


def gated(trainer: Trainer, gate) -> Trainer:
    trainer.rewards, trainer.gate = (lambda rollouts, problems: [0.0] * len(rollouts)), gate
    return trainer


def signalled(trainer: Trainer) -> None:
    """Scale each loss by how far its token's gap is from the step's mean."""
    trainer.signals = {"far": lambda columns: (columns["gap"] - columns["gap"].mean()).abs()}
    trainer.objective = Scaled(trainer.objective, "far")


def with_problems(trainer: Trainer, count: int) -> None:
    """Let it draw the few first problems again and again in each step."""
    trainer.problems, trainer.prompts = trainer.problems[:count], trainer.prompts[:count]


KINDS = {
    "plain": lambda trainer, mine: None,
    "weighed": lambda trainer, mine: setattr(trainer, "weights", uncertain),
    "signalled": lambda trainer, mine: signalled(trainer),
    "repeated": lambda trainer, mine: with_problems(trainer, 3),
    "alone": lambda trainer, mine: with_problems(trainer, 1),
    "gated": lambda trainer, mine: gated(trainer, lambda rewards, owners: owners == owners if mine else owners != owners),
}


@pytest.fixture(scope="module")
def in_two_processes(tmp_path_factory):
    """What each of two processes found, by what was changed in the trainer; launched once for all."""
    folder = tmp_path_factory.mktemp("two")
    script = folder / "train.py"
    script.write_text(textwrap.dedent(TWO_PROCESSES))
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1", "OPSD_LAB_TEST_DEVICE": "cpu"}  # two share no GPU
    command = [sys.executable, *launch, str(script), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = {kind: [torch.load(folder / f"{kind}{rank}", weights_only=True) for rank in (0, 1)] for kind in (*KINDS, "run")}
    return found | {"folder": folder / "run"}


@pytest.mark.parametrize("kind", ["plain", "weighed", "signalled", "repeated", "alone"])
def test_two_processes_take_the_step_of_one(in_two_processes, kind):
    two, other = in_two_processes[kind]
    one = build()
    KINDS[kind](one, True)
    records = run(one, 2)
    for found, record in zip(two["metrics"], records, strict=True):
        known = {name: value for name, value in record.metrics.items() if name != "padding"}  # other rows are padded together
        assert {name: found[name] for name in known} == pytest.approx(known, abs=1e-5, nan_ok=True)
    assert repr(two["metrics"]) == repr(other["metrics"])  # what a controller sees is the same everywhere
    assert two["n"] == 2 and two["tokens"] == records[-1].ledger.tokens_trained
    assert two["loss"] == pytest.approx([r.loss for r in records], abs=1e-5)


def test_two_processes_keep_one_run_and_go_on_with_it(in_two_processes, tmp_path):
    kept = Run.open(in_two_processes["folder"])
    one = build()
    records = list(train(tmp_path / "one", one, 4, progress=False))
    alone = Run.open(tmp_path / "one")
    assert kept.steps["loss"].tolist() == pytest.approx(alone.steps["loss"].tolist(), abs=1e-5)
    assert list(kept.kept("checkpoints")) == [4]
    told = [kind for kind in kept.events["kind"] if kind != "warning"]
    assert told == ["started", "finished", "resumed", "finished"]
    for record in records:
        rollouts, tokens = kept.rollouts(record.step), kept.tokens(record.step).frame
        assert sorted(r.completion_ids for r in rollouts) == sorted(r.completion_ids for r in record.drawn.rollouts)
        assert len(tokens) == len(record.table.frame)
        assert all(rollouts[number].problem_id == name for number, name in zip(tokens["rollout"], tokens["problem_id"], strict=True))
    first, second = in_two_processes["run"]
    assert same(first, second)


def test_a_process_whose_rollouts_were_all_dropped_takes_the_others_step(in_two_processes):
    kept, dropped = in_two_processes["gated"]
    assert kept["rows"] and not dropped["rows"]
    assert kept["metrics"][-1]["dropped"] == dropped["metrics"][-1]["dropped"] == PARAMS.batch_size / 2
    assert kept["loss"] == dropped["loss"] and same(kept["weights"], dropped["weights"])
    one = gated(build(), lambda rewards, owners: np.arange(len(owners)) % 2 == 0)
    assert kept["loss"] == pytest.approx([r.loss for r in run(one, 2)], abs=1e-5)


def test_references_that_the_reward_cannot_read_are_listed_when_the_trainer_is_made():
    policy = add_lora(tiny_policy())
    problems = [*PROBLEMS, dataclasses.replace(PROBLEMS[0], id="bad", answer="2 +")]
    with Grader() as grader, pytest.raises(UnreadableAnswersError, match=r"problem 'bad': '2 \+'"):
        rewards, sampling = AnswerReward(grader), dataclasses.replace(SAMPLING, n=2)
        Trainer(policy, problems, ContextBuilder(policy.tokenizer), HFSampler(policy), sampling, objective=GRPO(), rewards=rewards)
