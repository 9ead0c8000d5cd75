"""A run's folder: what stands in it, what is refused, what damage does, and how a run is gone on with."""

import errno
import json
import os
import random
import signal
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

from opsd_lab.basics.files import is_locked
from opsd_lab.basics.schedules import Linear
from opsd_lab.contexts import answer_only
from opsd_lab.contexts.views import PartialSolution
from opsd_lab.diagnostics import top_k_overlap
from opsd_lab.grading import Grade, Grader
from opsd_lab.objectives import GRPO, OPSD, SFT
from opsd_lab.objectives.targets import TheView
from opsd_lab.policies.policy import add_lora
from opsd_lab.policies.products import choices
from opsd_lab.problems.problem import Problem
from opsd_lab.rollouts import SamplingParams
from opsd_lab.rollouts.gates import correct_only
from opsd_lab.runs import Alarms, Keep, Probe, Run, Stop, train, writer
from opsd_lab.runs.building import apart
from opsd_lab.runs.lines import append_line, read_lines
from tests.conftest import PROBLEMS, tiny_policy
from tests.runs.killed import ByLength
from tests.test_checkpoints import LORA, PARAMS, build

pytestmark = pytest.mark.filterwarnings("ignore:every rollout was cut")
KEEP = Keep(checkpoint_every=2, checkpoints=3)


def parity(rollouts, problems):
    return [float(sum(rollout.completion_ids) % 2) for rollout in rollouts]


def run(folder, steps=6, trainer=None, **options):
    trainer = trainer or build()
    records = list(train(folder, trainer, steps, **({"keep": KEEP, "progress": False} | options)))
    return trainer, records


def numbers(folder):
    steps = Run.open(folder).steps
    return steps[[name for name in steps if not name.startswith("seconds")]]


def assert_same_run(folder, other):
    pd.testing.assert_frame_equal(numbers(folder), numbers(other), check_exact=True)
    for what in ("rollouts", "tokens"):
        assert list(Run(folder).kept(what)) == list(Run(other).kept(what))
        assert all(path.read_bytes() == Run(other).path(what, step).read_bytes() for step, path in Run(folder).kept(what).items())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run(folder)
    return folder


def cut(folder, steps=5, **options):
    """Leave a run after some steps, as Ctrl-C does."""
    for record in train(folder, build(), 6, **({"keep": KEEP, "progress": False} | options)):
        if record.step == steps:
            break


def test_a_folder_has_what_each_step_did_and_what_the_run_is(tmp_path):
    trainer = build(rewards=parity, gate=correct_only, view=answer_only)
    _, records = run(tmp_path / "a", 3, trainer, about={"recipe": "n = 1\n"})
    found = Run.open(tmp_path / "a")
    for record, row in zip(records, found.steps.to_dict("records"), strict=True):
        known = record.as_row()
        assert {name: row[name] for name in known} == pytest.approx(known, nan_ok=True, rel=0, abs=0)
        assert tuple(row["rewards"]) == record.drawn.rewards and tuple(row["weights"]) == record.drawn.weights
        rollouts = found.rollouts(record.step)
        assert len(rollouts) == PARAMS.batch_size and tuple(rollouts) == record.drawn.rollouts
        tokens = found.tokens(record.step).frame
        kept = [i for i, weight in enumerate(row["weights"]) if weight]
        assert tokens["rollout"].unique().tolist() == kept and set(tokens["problem_id"]) <= {r.problem_id for r in record.rollouts}
        assert tokens["token_id"].tolist() == [i for number in kept for i in rollouts[number].completion_ids]
    about = found.about
    assert about["recipe"] == "n = 1\n" and about["problems"] == len(PROBLEMS) and about["experiment"]["objective"].startswith("OPSD")
    assert PROBLEMS[0].question in about["prompts"]["student"] and PROBLEMS[0].answer in about["prompts"]["teachers"]["teacher"]
    assert found.events["kind"].tolist()[0] == "started" and found.events["kind"].tolist()[-1] == "finished"
    assert not found.is_running


def test_a_run_that_was_left_goes_on_as_if_it_had_not_been(whole, tmp_path):
    cut(tmp_path / "a")
    trainer, records = run(tmp_path / "a")
    assert [record.step for record in records] == [6]
    assert_same_run(tmp_path / "a", whole)
    again, records = run(tmp_path / "a")
    assert not records and all(torch.equal(a, b) for a, b in zip(trainer.trainable, again.trainable, strict=True))
    longer, records = run(tmp_path / "a", 7, again)
    assert [record.step for record in records] == [7] and longer is again


CHANGES = {
    "objective": ({"objective": SFT()}, "objective"),
    "view": ({"view": answer_only}, "the teacher's prompts"),
    "problems": ({"problems": PROBLEMS[:8]}, "problems"),
    "sampling": ({"sampling": SamplingParams(5)}, "sampling.max_new_tokens (4 there, 5 here)"),
    "model": ({"make": lambda: add_lora(tiny_policy(seed=1), **LORA)}, "the model's weights"),
    "rate": ({"params": replace(PARAMS, learning_rate=1e-3)}, "training.learning_rate (0.01 there, 0.001 here)"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_another_run_in_the_folder_is_an_error_that_names_what_differs(whole, name):
    changes, told = CHANGES[name]
    before = sorted(path.read_bytes() for path in whole.glob("*.json*"))
    with pytest.raises(ValueError, match="holds another run") as error:
        run(whole, trainer=build(**changes))
    assert told in str(error.value) and sorted(path.read_bytes() for path in whole.glob("*.json*")) == before


def test_another_probe_is_another_run(whole):
    with ByLength() as grader, pytest.raises(ValueError, match="holds another run: probe"):
        run(whole, probe=Probe(PROBLEMS[:2], grader, SamplingParams(3)))


def test_a_folder_with_other_things_in_it_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"is not empty and holds no run \(notes.txt\); name another folder"):
        run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(FileNotFoundError, match="holds no run"):
        Run.open(tmp_path)


def test_a_trainer_that_has_trained_elsewhere_is_refused(tmp_path):
    trainer = build()
    list(trainer.train(2, progress=False))
    with pytest.raises(ValueError, match=r"the trainer has taken 2 steps, and .* has no checkpoint to go back to; build it anew"):
        run(tmp_path / "a", trainer=trainer)


def test_two_processes_do_not_write_one_folder(tmp_path):
    for _ in train(tmp_path / "a", build(), 2, progress=False):
        assert is_locked(tmp_path / "a") and Run.open(tmp_path / "a").is_running
        with pytest.raises(BlockingIOError, match="another process is writing there; wait for it, or name another folder"):
            run(tmp_path / "a")
    assert not is_locked(tmp_path / "a")


def damaged(content, chance):
    """Yield a checkpoint's bytes with different kinds of damage."""
    header = int.from_bytes(content[:8], "little") + 8
    yield b""
    yield from (content[: chance.randrange(1, len(content))] for _ in range(20))
    for low, high in ((0, 8), (8, header), (header, len(content))):
        for _ in range(4):
            place = chance.randrange(low * 8, high * 8)
            yield bytes(b ^ (1 << place % 8 if i == place // 8 else 0) for i, b in enumerate(content))


def test_whatever_damage_a_checkpoint_has_it_is_told_and_the_one_before_is_used(whole, tmp_path):
    cut(tmp_path / "a", 4)
    last = Run(tmp_path / "a").path("checkpoints", 4)
    content, rest = last.read_bytes(), {path: path.read_bytes() for path in (tmp_path / "a").rglob("*.*") if path.is_file()}
    trainer = build()
    for bad in damaged(content, random.Random(0)):
        for path in Run(tmp_path / "a").kept("checkpoints").values():
            path.unlink()
        for path, held in rest.items():
            path.write_bytes(held)
        last.write_bytes(bad)
        with pytest.warns(UserWarning, match=r"step-000004\.safetensors is damaged.*; the one before it is used"):
            assert next(train(tmp_path / "a", trainer, 6, keep=KEEP, progress=False)).step == 3
    run(tmp_path / "a")
    assert_same_run(tmp_path / "a", whole)


def test_another_runs_checkpoint_is_told_and_the_one_before_is_used(whole, tmp_path):
    cut(tmp_path / "a", 4)
    run(tmp_path / "b", 4, build(objective=SFT()))
    Run(tmp_path / "a").path("checkpoints", 4).write_bytes(Run(tmp_path / "b").path("checkpoints", 4).read_bytes())
    with pytest.warns(UserWarning, match=r"another experiment: objective \(SFT there, OPSD here\).*the one before it is used"):
        run(tmp_path / "a")
    assert_same_run(tmp_path / "a", whole)


def test_every_flipped_bit_and_every_cut_of_run_json_is_found(whole):
    path, chance = whole / "run.json", random.Random(0)
    content = path.read_bytes()
    try:
        for place in [chance.randrange(len(content) * 8) for _ in range(60)]:
            path.write_bytes(bytes(b ^ (1 << place % 8 if i == place // 8 else 0) for i, b in enumerate(content)))
            with pytest.raises(ValueError, match=r"run\.json (is damaged|has format)"):
                Run.open(whole)
        for size in (0, 1, len(content) // 2, len(content) - 3):
            path.write_bytes(content[:size])
            with pytest.raises(ValueError, match=r"run\.json is damaged"):
                run(whole) if size else Run.open(whole)
    finally:
        path.write_bytes(content)


def test_a_damaged_line_is_told_and_what_follows_it_is_taken_again(whole, tmp_path):
    cut(tmp_path / "a", 6)
    flip_a_bit_of_line(tmp_path / "a" / "steps.jsonl", 4)
    with pytest.raises(ValueError, match=r"line 4 of .*steps\.jsonl is damaged; train into the folder again"):
        _ = Run.open(tmp_path / "a").steps
    with pytest.warns(UserWarning, match=r"line 4 of .*steps\.jsonl is damaged; what follows it is taken again"):
        run(tmp_path / "a")
    assert_same_run(tmp_path / "a", whole)


def flip_a_bit_of_line(path, number):
    lines = path.read_bytes().split(b"\n")
    place = random.Random(1).randrange(len(lines[number - 1]) * 8)
    flipped = bytes(b ^ (1 << place % 8 if i == place // 8 else 0) for i, b in enumerate(lines[number - 1]))
    path.write_bytes(b"\n".join([*lines[: number - 1], flipped, *lines[number:]]))


def test_whole_checkpoints_are_not_thrown_away_for_a_line_before_all_of_them(tmp_path):
    cut(tmp_path / "a", 6)
    path = tmp_path / "a" / "steps.jsonl"
    content, kept = path.read_bytes(), list(Run(tmp_path / "a").kept("checkpoints"))
    flip_a_bit_of_line(path, 2)
    with pytest.warns(UserWarning, match="line 2"), pytest.raises(ValueError, match="are whole up to step 1 only; put them back"):
        run(tmp_path / "a")
    assert list(Run(tmp_path / "a").kept("checkpoints")) == kept
    path.write_bytes(content)
    run(tmp_path / "a")


def test_a_metric_that_no_step_has_is_told_once(tmp_path):
    with pytest.warns(UserWarning, match="keep.best is 'acuracy', which no step has; there are step, loss") as told:
        run(tmp_path / "a", keep=Keep(checkpoint_every=2, best="acuracy"))
    assert len([warning for warning in told if "acuracy" in str(warning.message)]) == 1


def test_what_a_measurement_cannot_ask_is_said_before_any_step(tmp_path):
    unsolved = Problem("u", "1 + 1?", "2")
    with ByLength() as grader, pytest.raises(ValueError, match="problem 'u' has no solution"):
        run(tmp_path / "a", probe=Probe((unsolved,), grader, SamplingParams(3, temperature=0.0), every=4))
    assert not (tmp_path / "a" / "steps.jsonl").exists()


def test_a_view_that_changes_from_step_to_step_is_described_as_it_begins(tmp_path):
    run(tmp_path / "a", 2, build(view=PartialSolution(Linear(1.0, 0.5, 2))))
    assert PROBLEMS[0].solution in Run.open(tmp_path / "a").about["prompts"]["teachers"]["teacher"]


def test_a_torn_last_line_gives_way_to_the_next(tmp_path):
    path = tmp_path / "a.jsonl"
    append_line(path, {"a": 1})
    with path.open("ab") as file:
        file.write(b'{"a": 2, "cr')
    append_line(path, {"a": 3})
    assert read_lines(path) == ([{"a": 1}, {"a": 3}], "")


def test_a_question_that_is_held_out_is_not_trained_on():
    twice = [replace(PROBLEMS[0], id="again"), *PROBLEMS]
    for seed in range(20):
        kept, held = apart(twice, 3, seed)
        assert not {problem.question for problem in kept} & {problem.question for problem in held} and len(held) == 3


def test_lines_keep_every_number_and_a_torn_last_one_is_left_out(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [{"a": 0.1, "b": float("inf"), "c": -float("inf"), "d": [1.0, float("nan")], "e": "é\n"}, {}, {"a": 5e-324}]
    for row in rows:
        append_line(path, row)
    found, wrong = read_lines(path)
    assert not wrong and found[0] | {"d": 0} == rows[0] | {"d": 0} and found[1:] == rows[1:] and np.isnan(found[0]["d"][1])
    whole_file = path.read_bytes()
    for size in range(len(whole_file)):
        path.write_bytes(whole_file[:size])
        found, wrong = read_lines(path)
        assert not wrong and len(found) == whole_file[:size].count(b"\n")


@pytest.mark.parametrize("number", [2, 3, 5, 8, 13, 21, 34])
def test_a_full_disk_ends_the_run_with_one_line_and_leaves_what_can_be_gone_on_with(whole, tmp_path, number, monkeypatch):
    calls, real = 0, os.fsync

    def fsync(handle):
        nonlocal calls
        calls += 1
        if calls >= number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(handle)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        with pytest.raises(OSError, match=r"No space left on device; .*: free some space on that disk, or write elsewhere"):
            run(tmp_path / "a")
    run(tmp_path / "a")
    assert_same_run(tmp_path / "a", whole)


def test_a_last_checkpoint_that_cannot_be_written_is_an_error_and_the_run_goes_on_from_the_one_before(whole, tmp_path, monkeypatch):
    real = writer.save_checkpoint

    def save(trainer, path, *rest):
        if trainer.step == 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(trainer, path, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(writer, "save_checkpoint", save)
        with pytest.raises(OSError, match="No space left on device"):
            run(tmp_path / "a", keep=Keep(checkpoint_every=4))
    assert list(Run.open(tmp_path / "a").kept("checkpoints")) == [4]
    run(tmp_path / "a", keep=Keep(checkpoint_every=4))
    assert list(Run.open(tmp_path / "a").kept("checkpoints"))[-1] == 6
    assert_same_run(tmp_path / "a", whole)


def test_a_run_measures_both_sides_stops_early_and_keeps_the_best(tmp_path):
    class Scripted(Grader):
        """The first answers get better, then worse."""

        def __init__(self):
            super().__init__()
            self.shares = iter([0.25, 0.5, 0.25, 0.25, 0.75])

        def identity_data(self):
            return "scripted"

        def check(self, names, answers):
            pass

        def grade(self, texts, answers):
            right = round(next(self.shares) * len(texts))
            return [Grade("missing", "correct" if i < right else "incorrect", None, text) for i, text in enumerate(texts)]

    with Scripted() as grader:
        probe = Probe(PROBLEMS[:4], grader, SamplingParams(3, temperature=0.0), every=1, teacher=False)
        keep = Keep(checkpoint_every=1, checkpoints=1, best="accuracy")
        run(tmp_path / "a", 10, keep=keep, probe=probe, stop=Stop(patience=2))
    found = Run.open(tmp_path / "a")
    assert found.steps["accuracy"].tolist() == [0.25, 0.5, 0.25, 0.25] and list(found.kept("checkpoints")) == [2, 4]
    assert found.events["kind"].tolist()[-1] == "stopped early"


def test_a_run_that_ended_between_a_checkpoint_and_the_removal_of_an_older_one_removes_it_afterwards(tmp_path, monkeypatch):
    def killed(path, *args, **options):
        raise KeyboardInterrupt

    keep = Keep(checkpoint_every=2, checkpoints=1)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(type(tmp_path), "unlink", killed)
        run(tmp_path / "a", 4, keep=keep)
    assert list(Run(tmp_path / "a").kept("checkpoints")) == [2, 4]
    run(tmp_path / "a", 4, keep=keep)
    assert list(Run(tmp_path / "a").kept("checkpoints")) == [4]


def test_ctrl_c_while_accuracy_is_measured_loses_no_step(whole, tmp_path):
    class Interrupting(ByLength):
        def __init__(self):
            super().__init__()
            self.pressed = False

        def grade(self, texts, answers):
            if not self.pressed:
                self.pressed = True
                signal.raise_signal(signal.SIGINT)
            return super().grade(texts, answers)

        def identity_data(self):
            return "judge"

    sampling = SamplingParams(3, temperature=0.0)
    with Interrupting() as grader:
        probe = Probe(PROBLEMS[:4], grader, sampling, every=3)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "a", probe=probe)
        assert Run(tmp_path / "a").steps["step"].tolist() == [1, 2, 3]
        _, records = run(tmp_path / "a", probe=probe)
        assert [record.step for record in records] == [4, 5, 6]
        run(tmp_path / "b", probe=probe)
    assert_same_run(tmp_path / "a", tmp_path / "b")
    assert Run(tmp_path / "a").steps["accuracy"].notna().tolist() == [False, False, True] * 2


def test_the_teachers_accuracy_is_that_under_its_view(tmp_path):
    class ByPrompt(ByLength):
        def __init__(self):
            super().__init__()
            self.asked = []

        def grade(self, texts, answers):
            self.asked.append(len(texts))
            return super().grade(texts, answers)

    with ByPrompt() as grader:
        trainer, _ = run(tmp_path / "a", 1, build(view={"one": answer_only, "none": nothing}, objective=OPSD(target=TheView("one"))))
        found = Probe(PROBLEMS[:4], grader, SamplingParams(3, temperature=0.0)).measure(trainer)
    assert {"accuracy", "accuracy_low", "accuracy_high", "teacher_accuracy_one", "truncated_answers", "answer_length"} < set(found)
    assert "teacher_accuracy_none" not in found and grader.asked == [4, 4]


def test_grpo_has_no_teacher_to_measure(tmp_path):
    with ByLength() as grader:
        trainer = build(objective=GRPO(), rewards=parity, sampling=SamplingParams(4, temperature=1.0, n=2))
        found = Probe(PROBLEMS[:4], grader, SamplingParams(3, temperature=0.0)).measure(trainer)
    assert "accuracy" in found and not any("teacher" in name for name in found)


def nothing(problem):
    return None


def row(**changed):
    plain = {"truncated": 0.1, "student_entropy": 1.0, "completion_length": 20.0, "grad_norm": 1.0}
    measured = {"accuracy": 0.5, "teacher_accuracy": 0.8, "teacher_accuracy_high": 0.9}
    return plain | measured | changed


FAULTS = {
    "every rollout was cut": {"truncated": 1.0},
    "entropy fell from 1 to 0.1 nats": {"student_entropy": 0.1},
    "rollouts have 41 tokens where they had 20": {"completion_length": 41.0},
    "norm is 1e-08, which is rounding": {"grad_norm": 1e-8},
    "teacher is right in 20%, the student in 50%": {"teacher_accuracy": 0.2, "teacher_accuracy_high": 0.4, "accuracy": 0.5},
    "points away from the teacher": {"clip_cosine": -0.3},
}


@pytest.mark.parametrize("told", FAULTS)
def test_what_goes_wrong_is_said_once_until_it_is_over(told):
    alarms = Alarms()
    assert not [text for _ in range(6) for text in alarms.look(row())]
    (text,) = alarms.look(row(**FAULTS[told]))
    assert told in text and ": " in text
    assert not alarms.look(row(**FAULTS[told])) and not alarms.look(row()) and alarms.look(row(**FAULTS[told])) == [text]


def test_a_step_that_was_not_measured_does_not_end_what_was_said_of_the_teacher():
    alarms, worse = Alarms(), row(teacher_accuracy=0.2, teacher_accuracy_high=0.4)
    unmeasured = {name: value for name, value in row().items() if "accuracy" not in name}
    assert alarms.look(worse) and not alarms.look(unmeasured) and not alarms.look(worse)


def test_run_json_is_plain_json_with_the_versions(whole):
    about = json.loads((whole / "run.json").read_text())
    assert about["products"] == choices()  # in which form each product was computed on this machine
    assert (
        about["experiment"]["version of torch"] == torch.__version__.partition("+")[0] and about["machine"]["cores"] == os.cpu_count()
    )


def test_trackers_get_each_steps_numbers_and_only_those_that_are_named(tmp_path, monkeypatch):
    told = []

    class Tracker(GeneralTracker):
        name, requires_logging_directory = "own", True

        def __init__(self, run, folder):
            super().__init__()
            told.append((run, folder))

        def start(self):
            told.append("started")

        @property
        def tracker(self):
            return self

        def store_init_configuration(self, values):
            pass

        def log(self, values, step=None, **options):
            told.append((step, values["loss"], all(isinstance(value, int | float) for value in values.values())))

        def finish(self):
            told.append("finished")

    _, records = run(tmp_path / "silent", 2)
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "json", Tracker)  # a name that is installed
    run(tmp_path / "a", 2, trackers=["json"])
    steps = [(record.step, record.loss, True) for record in records]
    assert told == [("a", str(tmp_path / "a" / "trackers")), "started", *steps, "finished"]
    with pytest.raises(ValueError, match="there is no tracker 'x'; there are aim"):
        run(tmp_path / "b", 2, trackers=["x"])
    with pytest.raises(ImportError, match="the tracker 'comet_ml' is not installed: pip install comet_ml"):
        run(tmp_path / "b", 2, trackers=["comet_ml"])


def test_the_overlap_of_the_most_probable_tokens_is_that_of_the_diagnostic(tmp_path):
    trainer = build(view=answer_only, params=replace(PARAMS, top_k=3))
    _, records = run(tmp_path / "a", 2, trainer)
    for record in records:
        found = top_k_overlap(record.table, 3, 1)
        counts = record.table.frame.groupby("problem_id").size()
        assert len(set(counts)) == 1  # so that the mean over problems is that over tokens
        expected = found[(found["measure"] == "overlap") & (found["position"] == "all")]["mean"].item()
        assert 0 < expected < 1 and record.metrics["top_overlap"] == pytest.approx(expected, abs=1e-6)
