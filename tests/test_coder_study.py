"""The study of the larger model, with a tiny one in its place."""

from dataclasses import replace

import pytest

from opsd_lab.experiments.coder_study import coder_study
from opsd_lab.policies.policy import add_lora
from opsd_lab.rollouts import SamplingParams
from opsd_lab.studies.study import run_cell
from tests.conftest import tiny_policy

pytest.importorskip("reasoning_gym")


@pytest.fixture(scope="module")
def study():
    made = coder_study()
    short = {name: problems[:2] for name, problems in made.splits.items()}
    size = {"rollouts": 2, "checkpoints": (1,), "splits": short, "evaluation": SamplingParams(6), "sampling": SamplingParams(6)}
    arms = made.arms | {"SFT on references": replace(made.arms["SFT on references"], sampling={"max_new_tokens": 600})}
    return replace(made, policy=lambda seed: add_lora(tiny_policy(context=2048), rank=4, alpha=8), arms=arms, **size)


@pytest.mark.parametrize("arm", coder_study().arms)
def test_every_arm_trains(study, arm):
    rows = run_cell(study, arm, 0)
    assert (rows["error"] == "").all() and rows["split"].tolist() == ["test", "chain_sum"]


def test_no_problem_of_the_test_is_trained_on():
    made = coder_study()
    assert {problem.question for problem in made.splits["test"]}.isdisjoint(problem.question for problem in made.train)
    assert len(made.train) > 500
