"""Checkpoints: whole, of this very experiment, or refused without a change to the trainer."""

import random
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from opsd_lab.contexts import ChatFormat, ContextBuilder, answer_only
from opsd_lab.objectives import OPSD, SFT
from opsd_lab.policies.policy import add_lora
from opsd_lab.policies.teachers import ema_teacher, live_teacher, refreshed_teacher
from opsd_lab.rollouts import HFSampler, SamplingParams
from opsd_lab.rollouts.gates import correct_only, incorrect_only
from opsd_lab.rollouts.teacher_writes import TeacherWrites
from opsd_lab.training.checkpoints import load_checkpoint, save_checkpoint
from opsd_lab.training.trainer import Trainer, TrainingParams
from tests.conftest import PROBLEMS, tiny_policy

PARAMS = TrainingParams(batch_size=4, learning_rate=1e-2)
SAMPLING = SamplingParams(4)
LORA = {"rank": 4, "alpha": 8}


def worth(rollouts, problems):
    return [1.0] * len(rollouts)


def build(make=lambda: add_lora(tiny_policy(), **LORA), *, problems=PROBLEMS, sampling=SAMPLING, view=None, teacher=None, **more):
    policy = make()
    contexts = more.pop("contexts", None) or ContextBuilder(policy.tokenizer, **({"view": view} if view else {}))
    options = {"params": PARAMS, "teacher": teacher and teacher(policy)} | more
    return Trainer(policy, problems, contexts, HFSampler(policy, progress=False), sampling, **options)


def state_of(trainer: Trainer) -> list:
    optimizer = [value.clone() for moments in trainer.optimizer.state_dict()["state"].values() for value in moments.values()]
    teacher = [value.clone() for value in trainer.teacher.state().values()]
    return [trainer.step, trainer.ledger, [p.detach().clone() for p in trainer.trainable], teacher, optimizer]


def unchanged(before: list, trainer: Trainer) -> bool:
    now = state_of(trainer)
    same = all(torch.equal(a, b) for one, two in zip(before[2:], now[2:], strict=True) for a, b in zip(one, two, strict=True))
    return before[:2] == now[:2] and same


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A checkpoint of every kind of tensor, and the way to build its trainer."""
    trainer = build(teacher=lambda p: ema_teacher(p, 0.9), rewards=worth, gate=correct_only)
    list(trainer.train(2, progress=False))
    path = tmp_path_factory.mktemp("checkpoint") / "c.safetensors"
    save_checkpoint(trainer, str(path))
    return path


def again(**changes):
    return build(**({"teacher": lambda p: ema_teacher(p, 0.9), "rewards": worth, "gate": correct_only} | changes))


def perturbed():
    policy = add_lora(tiny_policy(), **LORA)
    with torch.no_grad():
        policy.causal_lm.get_input_embeddings().weight[0, 0] += 1
    return policy


def halved():
    policy = add_lora(tiny_policy(), **LORA)
    policy.causal_lm.to(torch.bfloat16)
    return policy


CHANGES = {
    "problems": ({"problems": PROBLEMS[:8]}, "problems"),
    "order of problems": ({"problems": PROBLEMS[::-1]}, "problems"),
    "view": ({"view": answer_only}, "the teacher's prompts"),
    "chat": (
        {"contexts": ContextBuilder(tiny_policy().tokenizer, student=ChatFormat(instruction="Think."))},
        "the student's prompts",
    ),
    "objective": ({"objective": SFT()}, "objective (OPSD there, SFT here)"),
    "option": ({"objective": OPSD(temperature=2.0)}, "objective.temperature (1.0 there, 2.0 here)"),
    "sampling": ({"sampling": SamplingParams(4, temperature=0.5)}, "sampling.temperature (1.0 there, 0.5 here)"),
    "rollouts each": ({"sampling": SamplingParams(4, n=2)}, "sampling.n (1 there, 2 here)"),
    "training": ({"params": replace(PARAMS, seed=3)}, "training.seed (0 there, 3 here)"),
    "source": ({"source": TeacherWrites()}, "source (StudentWrites there, TeacherWrites here)"),
    "gate": ({"gate": incorrect_only}, "gate (correct_only there, incorrect_only here)"),
    "rewards": ({"rewards": lambda rollouts, problems: [2.0] * len(rollouts)}, "rewards"),
    "teacher": ({"teacher": lambda p: live_teacher()}, "teacher (AveragedTeacher there, LiveTeacher here)"),
    "decay": ({"teacher": lambda p: ema_teacher(p, 0.8)}, "teacher.decay (0.9 there, 0.8 here)"),
    "refreshed": ({"teacher": lambda p: refreshed_teacher(p, 3)}, "teacher.decay (0.9 there, CopyEvery here)"),
    "alpha": ({"make": lambda: add_lora(tiny_policy(), rank=4, alpha=16)}, "the model's LoRA alpha (8 there, 16 here)"),
    "rank": ({"make": lambda: add_lora(tiny_policy(), rank=2, alpha=8)}, "the model's LoRA rank (4 there, 2 here)"),
    "layers with a LoRA": ({"make": lambda: add_lora(tiny_policy(), **LORA, targets=["q_proj"])}, "the model's adapter"),
    "base weights": ({"make": perturbed}, "the model's weights"),
    "precision": ({"make": halved}, "the model's precision (float32 there, bfloat16 here)"),
    "initial LoRA": ({"make": lambda: add_lora(tiny_policy(), seed=1, **LORA)}, "the initial weights"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_checkpoint_of_another_experiment_is_refused_and_what_differs_is_named(saved, name):
    changes, told = CHANGES[name]
    trainer = again(**changes)
    before = state_of(trainer)
    with pytest.raises(ValueError, match="belongs to another experiment") as error:
        load_checkpoint(trainer, saved)
    assert told in str(error.value) and unchanged(before, trainer)


def test_another_initial_policy_is_refused_where_all_weights_train(tmp_path):
    save_checkpoint(build(tiny_policy), tmp_path / "c")
    with pytest.raises(ValueError, match="another experiment: the initial weights;"):
        load_checkpoint(build(lambda: tiny_policy(seed=1)), tmp_path / "c")


def test_a_refresh_period_counts(tmp_path):
    save_checkpoint(again(teacher=lambda p: refreshed_teacher(p, 3)), tmp_path / "c")
    with pytest.raises(ValueError, match=r"teacher\.decay; build the trainer as"):
        load_checkpoint(again(teacher=lambda p: refreshed_teacher(p, 4)), tmp_path / "c")


def test_the_same_experiment_built_anew_takes_it_from_a_path_given_as_text(saved):
    trainer = again()
    load_checkpoint(trainer, str(saved))
    assert trainer.step == 2 and [path.name for path in saved.parent.iterdir()] == [saved.name]
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        load_checkpoint(trainer, saved.with_name("missing"))


def test_every_flipped_bit_and_every_cut_is_found_and_changes_nothing(saved, tmp_path):
    trainer, whole, chance = again(), saved.read_bytes(), random.Random(0)
    before, header = state_of(trainer), int.from_bytes(whole[:8], "little") + 8
    path = tmp_path / "damaged.safetensors"
    places = [chance.randrange(len(whole) * 8) for _ in range(12)] + [chance.randrange(header * 8) for _ in range(28)]
    damaged = [bytes(b ^ (1 << place % 8 if i == place // 8 else 0) for i, b in enumerate(whole)) for place in places]
    damaged += [whole[:size] for size in (0, 4, 100, header, len(whole) // 2, len(whole) - 1)]
    damaged += [whole[:header] + bytes(4096) + whole[header + 4096 :]]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"damaged\.safetensors is damaged"):
            load_checkpoint(trainer, path)
    assert unchanged(before, trainer)


def test_a_file_of_other_tensors_is_no_checkpoint(saved, tmp_path):
    save_file(load_file(saved), tmp_path / "plain.safetensors")
    with pytest.raises(
        ValueError, match="no checkpoint of this version: its metadata lack content, experiment, ledger, states, step"
    ):
        load_checkpoint(again(), tmp_path / "plain.safetensors")


def test_where_loading_fails_half_way_the_trainer_is_as_before(saved):
    trainer = again()
    list(trainer.train(1, progress=False))
    before = state_of(trainer)
    failures = [RuntimeError("the engine is gone")]

    def update(policy):
        if failures:
            raise failures.pop()

    trainer.sampler.update = update
    with pytest.raises(RuntimeError, match="the engine is gone"):
        load_checkpoint(trainer, saved)
    assert unchanged(before, trainer)


def test_what_cannot_be_identified_is_refused_before_anything_is_written(tmp_path):
    held = iter(())
    trainer = again(gate=lambda rewards, groups: list(held) or rewards > 0)
    with pytest.raises(TypeError, match=r"gate, closure variable 'held' cannot be identified"):
        save_checkpoint(trainer, tmp_path / "c")
    assert list(tmp_path.iterdir()) == []
