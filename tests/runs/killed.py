"""Trains into folders in processes that are killed at random moments, until each folder is finished; run by test_kills.py.

The parent process imports everything and computes nothing, so that a child that it forks begins at once.
"""

import json
import os
import random
import signal
import sys
import time
import traceback
import warnings
from functools import partial
from pathlib import Path

from opsd_lab.contexts import ChatFormat
from opsd_lab.grading import Grade, Grader
from opsd_lab.methods import METHODS
from opsd_lab.objectives import GRPO
from opsd_lab.policies.policy import add_lora
from opsd_lab.policies.teachers import ema_teacher, fixed_teacher, refreshed_teacher
from opsd_lab.rollouts import HFSampler, SamplingParams
from opsd_lab.runs import Keep, Probe, train
from opsd_lab.training import Recipe, TrainingParams
from tests.conftest import PROBLEMS, tiny_policy
from tests.methods.test_recipes import Parity

STEPS = 8
RECIPES = {
    "initial": lambda: Recipe(teacher=fixed_teacher),
    "average": lambda: Recipe(teacher=lambda policy: ema_teacher(policy, 0.9)),
    "refreshed": lambda: Recipe(teacher=lambda policy: refreshed_teacher(policy, 3)),
    "GRPO": lambda: Recipe(GRPO(), n=4),
    "controller": lambda: METHODS["antisd"].make(),
}


class ByLength(Grader):
    """Verdicts that differ among the texts of a random model, made in this process."""

    def check(self, names, answers):
        pass

    def grade(self, texts, answers):
        verdicts = ["correct" if len(text) % 2 else "incorrect" for text in texts]
        return [Grade(verdict, verdict, text, text) for verdict, text in zip(verdicts, texts, strict=True)]


def run(folder, name, moments=None):
    """Train to the end; the process ends itself at the moment `moments` says, counted in the calls that change files or weights."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    warnings.simplefilter("ignore")
    calls = 0

    def counted(function):
        def call(*args, **options):
            nonlocal calls
            calls += 1
            if calls == moments:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **options)

        return call

    for owner, called in ((os, "fsync"), (os, "replace"), (os, "truncate"), (Path, "unlink"), (Path, "open")):
        setattr(owner, called, counted(getattr(owner, called)))
    policy = add_lora(tiny_policy(context=1024), rank=4, alpha=8)
    policy.model.forward = counted(policy.model.forward)
    with ByLength() as grader:
        recipe, sampling = RECIPES[name](), SamplingParams(6, temperature=1.0)
        params, sampler = TrainingParams(learning_rate=1e-2), HFSampler(policy, progress=False)
        trainer = recipe.trainer(policy, PROBLEMS, ChatFormat(), sampler, sampling, params, Parity(grader), 8)
        probe = Probe(PROBLEMS[:3], grader, SamplingParams(4, temperature=0.0), every=2)
        for _ in train(folder, trainer, STEPS, keep=Keep(3, best="accuracy"), probe=probe, progress=False):
            pass
    return calls


def child(work):
    """Do some work in a process of its own, and return its number."""
    if number := os.fork():
        return number
    try:
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(3)


def main(folder, name, kills, seed):
    """Run once without a kill, then again and again with them; write how many there were, and when."""
    chance, done, told = random.Random(seed), 0, []
    started = time.time()
    ended = os.waitpid(child(lambda: (folder / "calls").write_text(str(run(folder / "whole", name)))), 0)[1]
    assert ended == 0, ended
    longest, calls, number = time.time() - started, int((folder / "calls").read_text()), 0
    while done < kills:
        number += 1
        finished = False
        while not finished:
            by_call = chance.random() < 0.7
            moment = chance.randrange(1, calls) if by_call and done < kills else None
            process = child(partial(run, folder / f"killed-{number}", name, moment))
            if not by_call and done < kills:
                time.sleep(chance.random() * longest)
                os.kill(process, signal.SIGKILL)
            ended = os.waitpid(process, 0)[1]
            assert ended in (0, signal.SIGKILL), ended
            finished = ended == 0
            if not finished:
                done += 1
                told.append([number, "call" if by_call else "time", moment])
    (folder / "kills.json").write_text(json.dumps(told))


if __name__ == "__main__":
    for seed, chosen in enumerate(RECIPES):
        place = Path(sys.argv[1]) / chosen
        place.mkdir()
        main(place, chosen, int(sys.argv[2]), seed)
