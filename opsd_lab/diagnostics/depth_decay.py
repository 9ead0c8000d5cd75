"""Whether the teacher can still rescue a rollout: both sides continue it from a given depth, and the answers are graded."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from opsd_lab.diagnostics.estimates import Estimates, Units
from opsd_lab.grading import Grader
from opsd_lab.problems.problem import Problem
from opsd_lab.rollouts.base import Rollout, Sampler, SamplingParams
from opsd_lab.rollouts.sampling import continue_prompts, problems_of

SIDES = ("student", "teacher")


def depth_decay(
    rollouts: Sequence[Rollout],
    problems: Sequence[Problem],
    teacher_prompt: Callable[[Problem], list[int]],
    sampler: Sampler,
    params: SamplingParams,
    grader: Grader,
    depths: Sequence[float] = (0, 0.25, 0.5, 0.75),
) -> pd.DataFrame:
    """Return the accuracy of rollouts that are cut at a depth and continued, by the student and by the teacher.

    At depth d the first floor(d * n) of a rollout's n tokens stay. The student continues them behind the rollout's own prompt, the
    teacher behind `teacher_prompt` of the problem, both with the weights that `sampler` has, `params.n` times each; `grader` judges
    the final answer of the kept text with its continuation. `problems` are those that the `rollouts` belong to. Each continuation may
    have `params.max_new_tokens` tokens at every depth, so a whole may be longer than the rollout was allowed to be. A rollout that
    ended by itself and stays whole (depth 1) has nothing to continue: its own answer counts for both sides. An unverifiable or
    missing answer is not correct, as in every accuracy.

    `who` is "student", "teacher" or their paired difference "teacher - student"; `n_rollouts` counts rollouts, whatever `params.n`.

    Raises:
        ValueError: when there are no rollouts or depths, a depth is outside [0, 1] or repeats, greedy decoding is asked for several
            equal samples, a rollout's problem is not among the problems or it has no token texts; and as the sampler does,
            such as for a prompt that with its kept tokens leaves no room in the model's context.
        RuntimeError: when the sampler does not return n rollouts for each prompt.
    """
    _check(rollouts, params, depths)
    owners = problems_of(rollouts, problems)
    # One call for all depths and both sides, so that the sampler can batch prompts of similar length.
    jobs = [(depth, who, i) for depth in depths for who in SIDES for i in range(len(rollouts))]
    kept = {(depth, i): int(depth * len(r.completion_ids) + 1e-9) for depth in depths for i, r in enumerate(rollouts)}
    prompts = {problem.id: teacher_prompt(problem) for problem in {owner.id: owner for owner in owners}.values()}
    open_jobs = [job for job in jobs if not _is_whole(rollouts[job[2]], kept[job[0], job[2]])]
    asked = []
    for depth, who, i in open_jobs:
        prompt = rollouts[i].prompt_ids if who == "student" else prompts[owners[i].id]
        asked.append([*prompt, *rollouts[i].completion_ids[: kept[depth, i]]])
    written = continue_prompts(sampler, [owners[i] for _, _, i in open_jobs], asked, params) if asked else []
    continuations = {job: written[params.n * j : params.n * (j + 1)] for j, job in enumerate(open_jobs)}
    texts = []
    for depth, who, i in jobs:
        start = "".join(rollouts[i].tokens[: kept[depth, i]])
        ends = [r.text for r in continuations[depth, who, i]] if (depth, who, i) in continuations else None
        texts.append([rollouts[i].text] if ends is None else [start + end for end in ends])
    answers = [owners[i].answer for _, _, i in jobs]
    grades = iter(
        grader.grade([t for of_job in texts for t in of_job], [a for a, of_job in zip(answers, texts, strict=True) for _ in of_job])
    )
    accuracy = {job: np.mean([next(grades).final == "correct" for _ in of_job]) for job, of_job in zip(jobs, texts, strict=True)}

    numbers = np.arange(len(rollouts))
    problem = pd.factorize(np.array([r.problem_id for r in rollouts], dtype=object), sort=True)[0]
    units = Units(problem, numbers, np.full(len(rollouts), -1), np.array([len(r.completion_ids) for r in rollouts]))
    estimates = Estimates(["depth", "who"], ["n_rollouts"])
    for depth in depths:
        for who in SIDES:
            values = np.array([accuracy[depth, who, i] for i in numbers])
            estimates.add((float(depth), who), units, values, np.ones(len(rollouts), dtype=bool), share=True)
        estimates.subtract((float(depth), "teacher - student"), (float(depth), "teacher"), (float(depth), "student"))
    return estimates.frame()


def _is_whole(rollout: Rollout, kept: int) -> bool:
    return kept == len(rollout.completion_ids) and not rollout.truncated


def _check(rollouts: Sequence[Rollout], params: SamplingParams, depths: Sequence[float]) -> None:
    if not rollouts or not depths:
        raise ValueError("depth_decay: there are no rollouts to continue, or no depths to cut them at")
    if not all(0 <= depth <= 1 for depth in depths) or len(set(depths)) < len(depths):
        raise ValueError(f"depth_decay: depths is {list(depths)}; each is a fraction of a rollout in [0, 1], and none repeats")
    if params.temperature == 0 and params.n > 1:
        raise ValueError(f"depth_decay: greedy decoding writes the same {params.n} times; set n=1 or a temperature")
    for i, rollout in enumerate(rollouts):
        if not rollout.tokens:
            raise ValueError(
                f"depth_decay: rollout {i} has no token texts, so the text of its first tokens is unknown; sample it with them"
            )
