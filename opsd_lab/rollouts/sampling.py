"""Problems in, rollouts that know their problem out; and back from rollouts to their problems."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from opsd_lab.basics.options import one_of
from opsd_lab.contexts import ContextBuilder
from opsd_lab.policies.policy import Policy
from opsd_lab.policies.teacher_checks import check_lengths
from opsd_lab.problems.problem import Problem, check_unique
from opsd_lab.rollouts.base import Rollout, Sampler, SamplingParams

Side = Literal["student", "teacher"]


def sample_rollouts(
    sampler: Sampler, contexts: ContextBuilder, problems: Sequence[Problem], params: SamplingParams, *, side: Side = "student"
) -> list[Rollout]:
    """Return `params.n` rollouts of each problem, problem by problem; each has its problem's id.

    `sampler` writes, with the weights that it has. `contexts` builds a prompt for each of `problems`: the student's, or with `side`
    "teacher" the teacher's. `params` says how tokens are drawn, and how many.

    Raises:
        ValueError: before anything is sampled, for two problems with the same id, another `side`, or a prompt that cannot be built or
            with `max_new_tokens` exceeds the context; it names the problem.
        RuntimeError: when the sampler does not return n rollouts for each prompt.
    """
    one_of("sample_rollouts: side", side, ("student", "teacher"))
    check_unique(problems)
    prompts = [contexts.prompt(problem, side).ids for problem in problems]
    check_room(getattr(sampler, "policy", None), side, problems, prompts, params)
    return continue_prompts(sampler, problems, prompts, params)


def continue_prompts(
    sampler: Sampler, problems: Sequence[Problem], prompts: Sequence[Sequence[int]], params: SamplingParams
) -> list[Rollout]:
    """Return `params.n` rollouts that continue each prompt, prompt by prompt; each has its problem's id.

    `sampler` writes. `problems` says whose each of `prompts` is; a problem may come more than once. `params` says how tokens are
    drawn, and how many.

    Raises:
        ValueError: when the two differ in number; and as the sampler does.
        RuntimeError: when the sampler does not return n rollouts for each prompt.
    """
    if len(problems) != len(prompts):
        raise ValueError(f"continue_prompts: {len(prompts)} prompts of {len(problems)} problems; give the problem of each prompt")
    owners = [problem for problem in problems for _ in range(params.n)]
    rollouts = sampler.sample([list(prompt) for prompt in prompts], params)
    if [rollout.prompt_ids for rollout in rollouts] != [tuple(prompt) for prompt in prompts for _ in range(params.n)]:
        raise RuntimeError(f"{type(sampler).__name__} did not return {params.n} rollouts per prompt, prompt by prompt")
    return [replace(rollout, problem_id=problem.id) for rollout, problem in zip(rollouts, owners, strict=True)]


def check_room(
    policy: Policy | None, side: Side, problems: Sequence[Problem], prompts: Sequence[Sequence[int]], params: SamplingParams
) -> None:
    """Make sure that prompts leave room for `max_new_tokens` in the context of the policy that reads them.

    `policy` None stands for the weights of a sampler that does not name its policy: then nothing is known to check. `side` says for
    the message whose prompts they are. `problems` says whose each of `prompts` is. `params` limits the completions.

    Raises:
        ValueError: for the first that leaves none; it names the problem.
    """
    if isinstance(policy, Policy):
        named = zip(problems, prompts, strict=True)
        lengths = [(f"problem {problem.id!r}", len(prompt), params.max_new_tokens) for problem, prompt in named]
        check_lengths(policy, side, lengths)


def problems_of(rollouts: Sequence[Rollout], problems: Sequence[Problem]) -> list[Problem]:
    """Return the problem of each rollout, found by its id; a problem may come more than once.

    Raises:
        ValueError: for a rollout that has no problem or one that is not among those given; for two problems with the same id.
    """
    known: dict[str, Problem] = {}
    for problem in problems:
        if (other := known.setdefault(problem.id, problem)) is not problem and other != problem:
            raise ValueError(f"two problems have the id {problem.id!r}; give each one of its own")
    for i, rollout in enumerate(rollouts):
        if rollout.problem_id not in known:
            if not rollout.problem_id:
                raise ValueError(f"rollout {i} does not know its problem; draw rollouts with sample_rollouts, which names it")
            raise ValueError(f"rollout {i} is of problem {rollout.problem_id!r}, which is not among the problems given; add it")
    return [known[rollout.problem_id] for rollout in rollouts]
