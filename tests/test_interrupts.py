"""Ctrl-C, pressed for real at many moments: what is left is what an uninterrupted run leaves.

All moments are tried with OPSD_LAB_INTERRUPTS=all; without it, a share of them.
"""

import contextlib
import dataclasses
import os
import signal
import sys
import threading
import time

import numpy as np
import pytest
import torch

from opsd_lab.basics.interrupts import deferred_interrupts, interruptible, interruption_point
from opsd_lab.contexts import ContextBuilder
from opsd_lab.objectives import GRPO
from opsd_lab.policies.policy import add_lora
from opsd_lab.policies.teachers import ema_teacher, fixed_teacher, refreshed_teacher
from opsd_lab.policies.weight_swaps import swapped
from opsd_lab.rollouts import HFSampler, SamplingParams
from opsd_lab.rollouts.sources import StudentWrites
from opsd_lab.rollouts.teacher_writes import TeacherWrites
from opsd_lab.supervision.views import build_examples, score_rollouts
from opsd_lab.training.records import StepRecord, TrainingParams
from opsd_lab.training.trainer import Trainer
from tests.conftest import PROBLEMS, tiny_policy

MOMENTS = 200 if os.environ.get("OPSD_LAB_INTERRUPTS") == "all" else 16
STEPS = 3
PARAMS = TrainingParams(batch_size=2, learning_rate=1e-2, token_budget=200)


def by_parity(rollouts, problems):
    return [float(sum(r.completion_ids) % 2) for r in rollouts]


def build(kind: str) -> Trainer:
    lora = kind in ("LoRA, initial teacher", "GRPO, two passes", "the teacher writes")
    policy = add_lora(tiny_policy(), rank=4, alpha=8) if lora else tiny_policy()
    teacher = {"all weights, EMA": lambda: ema_teacher(policy, 0.9), "refreshed": lambda: refreshed_teacher(policy, 2)}
    grpo = kind == "GRPO, two passes"
    return Trainer(
        policy,
        PROBLEMS[:4],
        ContextBuilder(policy.tokenizer),
        HFSampler(policy, progress=False),
        SamplingParams(4, n=2 if grpo else 1),
        objective=GRPO(kl=0.05) if grpo else None,
        rewards=by_parity if grpo else None,
        teacher=teacher.get(kind, lambda: fixed_teacher(policy))(),
        params=dataclasses.replace(PARAMS, passes=2 if grpo else 1),
        source=TeacherWrites() if kind == "the teacher writes" else StudentWrites(),
    )


@pytest.fixture(autouse=True)
def finalisers(monkeypatch):
    """Let nobody collect what an interrupt leaves of a finaliser: pytest would, and is itself interrupted in it now and then."""
    monkeypatch.setattr(sys, "unraisablehook", lambda told: None)


KINDS = ["LoRA, initial teacher", "all weights, EMA", "refreshed", "GRPO, two passes", "the teacher writes"]


def state(trainer: Trainer, records: list[StepRecord]) -> dict:
    """All that an interrupt may not change, as plain bytes and numbers."""
    ledgers = [{k: v for k, v in dataclasses.asdict(x.ledger).items() if not k.startswith("seconds")} for x in [*records, trainer]]
    return {
        "weights": {name: p.detach().cpu().numpy().tobytes() for name, p in trainer.policy.model.named_parameters()},
        "trains": sorted(trainer.policy.trainable()),
        "teacher": {name: value.cpu().numpy().tobytes() for name, value in trainer.teacher.state().items()},
        "moments": [x.cpu().numpy().tobytes() for of in trainer.optimizer.state.values() for x in of.values()],
        "records": [(r.step, repr(r.loss), repr(r.metrics), r.table.frame.to_csv(), r.rollouts) for r in records],
        "ledgers": ledgers,
    }


UNDISTURBED: dict[str, tuple[dict, float]] = {}


def undisturbed(kind: str) -> tuple[dict, float]:
    """The state that a run without interrupts leaves, and how long it takes (s)."""
    if kind not in UNDISTURBED:
        list(build(kind).train(1, progress=False))  # what is slow once
        trainer, start = build(kind), time.perf_counter()
        records = list(trainer.train(STEPS, progress=False))
        seconds = time.perf_counter() - start
        UNDISTURBED[kind] = state(trainer, records), seconds
    return UNDISTURBED[kind]


def run_through(trainer: Trainer) -> tuple[list[StepRecord], int]:
    """Train to the end, going on after each interrupt; return the records and how many interrupts came."""
    records, interrupts = [], 0
    while trainer.step < STEPS:
        try:
            for record in trainer.train(STEPS - trainer.step, progress=False):
                records.append(record)
        except KeyboardInterrupt:
            interrupts += 1
    return records, interrupts


@contextlib.contextmanager
def pressed(*delays: float):
    """Press Ctrl-C from another thread after each delay (s); the thread has ended when the block has."""
    main, stop = threading.main_thread().ident, threading.Event()

    def press():
        for delay in delays:
            if stop.wait(delay):
                return
            signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        while thread.is_alive():
            with contextlib.suppress(KeyboardInterrupt):
                thread.join()


def assert_same(found: dict, expected: dict) -> None:
    for part in expected:
        assert found[part] == expected[part], f"{part} differ from an uninterrupted run's"


@pytest.mark.parametrize("number", range(MOMENTS * 3 // 4))
def test_an_interrupt_at_any_moment_changes_nothing(number):
    kind = KINDS[number % len(KINDS)]
    expected, seconds = undisturbed(kind)
    rng = np.random.default_rng(number)
    delays = [rng.uniform(0, seconds), *(rng.choice([0.0, 1e-4, 1e-3]) for _ in range(int(rng.integers(3))))]
    trainer = build(kind)
    with pressed(*delays):
        records, _ = run_through(trainer)
    assert_same(state(trainer, records), expected)


SWAPS = {"weight_swaps.py", "policies.py", "teachers.py", "tuners_utils.py", "peft_model.py", "interrupts.py", "contextlib.py"}
BETWEEN = {"trainer.py", "gradients.py"}


class Presser:
    """Presses Ctrl-C, and twice more, when the `at`-th line of the named files is about to run."""

    def __init__(self, files: set[str], at: int = -1) -> None:
        self.files, self.at, self.lines = files, at, 0

    def __call__(self, frame, event, _):
        if os.path.basename(frame.f_code.co_filename) not in self.files:
            return None
        if event == "line":
            self.lines += 1
            if self.at <= self.lines < self.at + 3 and self.at > 0:
                signal.raise_signal(signal.SIGINT)
        return self

    def __enter__(self):
        sys.settrace(self)
        return self

    def __exit__(self, *_):
        sys.settrace(None)


LINES: dict[tuple[str, bool], int] = {}


@pytest.mark.parametrize("number", range(MOMENTS // 4))
def test_an_interrupt_inside_a_swap_or_between_two_passes_changes_nothing(number):
    between = number % 5 == 4
    kind = "GRPO, two passes" if between else KINDS[number % 4]
    files = BETWEEN if between else SWAPS
    expected, _ = undisturbed(kind)
    if (kind, between) not in LINES:
        trainer = build(kind)
        with Presser(files) as counter:
            run_through(trainer)
        LINES[kind, between] = counter.lines
    trainer = build(kind)
    at = int(np.random.default_rng(number).integers(1, LINES[kind, between]))
    with Presser(files, at):
        records, interrupts = run_through(trainer)
    assert interrupts
    assert_same(state(trainer, records), expected)


def test_scoring_that_was_interrupted_leaves_the_weights_and_goes_on():
    trainer = build("all weights, EMA")
    (record,) = trainer.train(1, progress=False)
    contexts = ContextBuilder(trainer.policy.tokenizer)
    examples = build_examples(contexts, trainer.problems, record.rollouts)

    def score():
        return score_rollouts(trainer.policy, trainer.teacher, trainer.objective, examples, token_budget=1, progress=False)

    before, expected = state(trainer, [record]), score()
    with Presser(SWAPS) as counter:
        score()
    for at in np.random.default_rng(0).integers(1, counter.lines, 8):
        with pytest.raises(KeyboardInterrupt), Presser(SWAPS, int(at)):
            score()
        assert_same(state(trainer, [record]), before)
    assert score().frame.equals(expected.frame)


def test_a_record_is_handed_out_before_the_interrupt_that_came_with_its_step():
    trainer = build("all weights, EMA")
    take_step, records = trainer.optimizer.step, []

    def pressed_twice():
        signal.raise_signal(signal.SIGINT)
        take_step()
        signal.raise_signal(signal.SIGINT)

    trainer.optimizer.step = pressed_twice
    with pytest.raises(KeyboardInterrupt):
        for record in trainer.train(STEPS, progress=False):
            records.append(record)
    assert [r.step for r in records] == [1] == [trainer.step]


def test_an_interrupt_is_not_lost_when_the_loop_is_left_at_the_record():
    trainer = build("all weights, EMA")
    take_step = trainer.optimizer.step
    trainer.optimizer.step = lambda: (signal.raise_signal(signal.SIGINT), take_step())
    with pytest.raises(KeyboardInterrupt):
        for _ in trainer.train(STEPS, progress=False):
            break
        time.sleep(5)
    assert trainer.step == 1


def test_a_loop_that_was_left_goes_on_where_it_was():
    trainer, records = build("refreshed"), []
    while trainer.step < STEPS:
        for record in trainer.train(STEPS, progress=False):
            records.append(record)
            break
    assert_same(state(trainer, records), undisturbed("refreshed")[0])


class FailingSampler(HFSampler):
    """Fails the first time that it is given weights."""

    updates = 0

    def update(self, policy):
        self.updates += 1
        if self.updates == 1:
            raise OSError("the disk is full")
        super().update(policy)


def test_a_sampler_that_could_not_take_the_weights_is_given_them_again_and_no_record_is_lost():
    trainer, records = build("refreshed"), []
    trainer.sampler = FailingSampler(trainer.policy, progress=False)
    with pytest.raises(OSError, match="the disk is full"):
        for record in trainer.train(STEPS, progress=False):
            records.append(record)
    assert trainer.step == len(records) == 1
    records += trainer.train(STEPS - 1, progress=False)
    assert trainer.sampler.updates == STEPS + 1
    assert_same(state(trainer, records), undisturbed("refreshed")[0])


def press() -> None:
    signal.raise_signal(signal.SIGINT)


def test_blocks_hold_interrupts_back_until_the_outermost_has_ended():
    reached = []
    with pytest.raises(KeyboardInterrupt), deferred_interrupts():
        press()
        with deferred_interrupts():
            press()
        reached.append(True)
    assert reached and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interruption_point_lets_through_what_was_held_back_once_and_only_where_points_are_allowed():
    interruption_point()
    with deferred_interrupts():
        press()
        with deferred_interrupts(points=False):
            interruption_point()
            with deferred_interrupts():
                interruption_point()
        with pytest.raises(KeyboardInterrupt):
            interruption_point()
    interruption_point()


def test_what_waits_is_interrupted_at_once_and_what_encloses_it_is_not():
    unwound = []
    with pytest.raises(KeyboardInterrupt), deferred_interrupts(points=False):
        try:
            with interruptible():
                with deferred_interrupts():
                    press()
                    unwound.append("held inside")
                unwound.append("never")
        except KeyboardInterrupt:
            press()
            unwound.append("held outside")
    assert unwound == ["held inside", "held outside"]


def test_a_handler_of_ones_own_is_called_once_the_block_has_ended():
    calls, previous = [], signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, lambda number, frame: calls.append(number))
        with deferred_interrupts():
            press()
            assert not calls
        assert calls == [signal.SIGINT]
        trainer = build("refreshed")
        take_step = trainer.optimizer.step
        trainer.optimizer.step = lambda: (press(), take_step())
        seen = [len(calls) for _ in trainer.train(2, progress=False)]
        assert seen == [2, 3]
    finally:
        signal.signal(signal.SIGINT, previous)


def test_an_ignored_interrupt_stays_ignored_and_other_threads_are_left_alone():
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with deferred_interrupts():
            press()
    finally:
        signal.signal(signal.SIGINT, previous)
    records = []
    thread = threading.Thread(target=lambda: records.extend(build("refreshed").train(1, progress=False)))
    thread.start()
    thread.join()
    assert len(records) == 1


def test_swapped_weights_are_the_very_ones_afterwards_and_a_foreign_swap_is_noticed():
    layer = torch.nn.Linear(2, 2)
    parameters = dict(layer.named_parameters())
    own = {name: (p.data_ptr(), p.data.clone()) for name, p in parameters.items()}
    other = {name: torch.zeros_like(p) for name, p in parameters.items()}
    with swapped(parameters, other):
        assert not layer(torch.ones(2)).any() and layer.weight.data_ptr() == other["weight"].data_ptr()
    with pytest.raises(RuntimeError, match=r"1 weights were replaced.*bias"), swapped(parameters, other):
        layer.bias.data = torch.ones(2)
    assert all(p.data_ptr() == own[n][0] and torch.equal(p.data, own[n][1]) for n, p in parameters.items())
    with (
        pytest.raises(ValueError, match=r"weight is torch\.float32"),
        swapped(parameters, {**other, "weight": torch.ones(3)}),
    ):
        pass
    with pytest.raises(ValueError, match="the names differ"), swapped(parameters, {}):
        pass
