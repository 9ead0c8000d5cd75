"""OPSD on a model of half a billion parameters: Qwen2.5-Coder-0.5B-Instruct with problems like those of GSM8K, and its controls."""

from opsd_lab.contexts import ChatFormat, other_problem, reference_solution
from opsd_lab.divergences import forward_kl
from opsd_lab.objectives import OPSD, SFT
from opsd_lab.policies.policy import Policy, add_lora, load_policy
from opsd_lab.problems.problem import Problem
from opsd_lab.problems.reasoning_gym import reasoning_gym_problems
from opsd_lab.rollouts import SamplingParams, Texts
from opsd_lab.studies.study import Study
from opsd_lab.training.recipes import Recipe
from opsd_lab.training.records import TrainingParams

MODEL, TASK, OTHER = "coder-0.5b", "gsm_symbolic", "chain_sum"
RATE = 1e-4  # of every arm; nothing was searched


def coder_policy(seed: int) -> Policy:
    """Return the model in float32, whatever the machine, with a fresh LoRA."""
    return add_lora(load_policy(MODEL, dtype="float32"), seed=seed)


def worked(problem: Problem) -> str:
    """Return the reference solution, which ends with the answer in a box."""
    return problem.solution


def coder_study() -> Study:
    """Return the study of OPSD, SFT on the same solutions, and OPSD with another problem's solution, all with the same steps.

    Test problems are drawn with another seed than those of training; forgetting is measured on sums. The final answer is judged,
    greedily.

    Raises:
        ModuleNotFoundError: when reasoning-gym is not installed.
    """
    training, test = {"learning_rate": RATE}, reasoning_gym_problems(TASK, 192, seed=1)
    asked = {problem.question for problem in test}  # the task draws some questions with more than one seed
    return Study(
        name="coder",
        policy=coder_policy,
        train=[problem for problem in reasoning_gym_problems(TASK, 512, seed=2) if problem.question not in asked],
        splits={"test": test, OTHER: reasoning_gym_problems(OTHER, 96, seed=1)},
        arms={
            "base": None,
            "OPSD": Recipe(OPSD(forward_kl), reference_solution, training=training),
            "SFT on references": Recipe(SFT(), source=Texts(worked), training=training),
            "control: another problem's solution": Recipe(OPSD(forward_kl), other_problem(), training=training),
        },
        chat=ChatFormat(),
        sampling=SamplingParams(320, temperature=1.0),
        evaluation=SamplingParams(320, temperature=0.0),
        params=TrainingParams(token_budget=2048),
        rollouts=16,
        checkpoints=(20,),
        trace=("loss", "gap", "completion_length", "truncated"),
    )
