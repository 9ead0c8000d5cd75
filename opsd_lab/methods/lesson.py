"""What a method would teach on given rollouts: one step of it, without taking it."""

from collections.abc import Sequence
from dataclasses import replace

from opsd_lab.contexts import ChatFormat
from opsd_lab.objectives import Pushed
from opsd_lab.policies.policy import Policy
from opsd_lab.problems.problem import Problem
from opsd_lab.rollouts import HFSampler, Rollout, SamplingParams, Stored, StudentWrites
from opsd_lab.rollouts.gates import Rewards
from opsd_lab.tokens.table import TokenTable
from opsd_lab.training.recipes import Recipe
from opsd_lab.training.records import TrainingParams


def lesson(
    recipe: Recipe,
    policy: Policy,
    problems: Sequence[Problem],
    rollouts: Sequence[Rollout],
    chat: ChatFormat,
    rewards: Rewards,
    *,
    token_budget: int = 8192,
) -> TokenTable:
    """Return the token table that a recipe's first step would have on rollouts; its column `push` says what the step does.

    The table's rollout i is rollout i of those given; one that does not count may be left out.

    `push` is a token's weight times minus the derivative of its loss by its own logit, divided by the mean size over all tokens: 1 is
    as large as that of the average token of this method, a negative one makes the token less likely. The policy does not change.

    Args:
        recipe: the method; its source is left out for the rollouts.
        policy: the student that wrote them.
        problems: theirs.
        rollouts: several of each problem, where the recipe compares them.
        chat: the format of both sides.
        rewards: what judges the rollouts.
        token_budget: that of `TrainingParams`.

    Raises:
        ValueError: for a recipe that is not about the student's own rollouts, or of which no rollout counts.
    """
    if not isinstance(recipe.source, StudentWrites):
        raise ValueError(f"lesson: the recipe learns from {type(recipe.source).__name__}, not from the student's rollouts")
    longest = max(len(rollout.completion_ids) for rollout in rollouts)
    sampling = {name: value for name, value in recipe.sampling.items() if name != "max_new_tokens"}
    training = {**recipe.training, "learning_rate": 0.0, "passes": 1}
    own = replace(recipe, source=Stored(tuple(rollouts)), objective=Pushed(recipe.objective), sampling=sampling, training=training)
    params = TrainingParams(token_budget=token_budget, weight_decay=0.0)
    sampler, drawing = HFSampler(policy, progress=False), SamplingParams(longest)
    trainer = own.trainer(policy, problems, chat, sampler, drawing, params, rewards, own.n * len(problems))
    (record,) = trainer.train(1, progress=False)
    if not len(record.table):
        raise ValueError("lesson: none of the rollouts counts for this recipe")
    numbers = {id(rollout): number for number, rollout in enumerate(rollouts)}
    own_numbers = [numbers[id(rollout)] for rollout in record.rollouts]
    frame = record.table.frame
    frame = frame.assign(rollout=[own_numbers[number] for number in frame["rollout"]]).sort_values(["rollout", "position"])
    push = frame["push"] * frame["weight"]
    return TokenTable(frame.assign(push=push / max(float(push.abs().mean()), 1e-30)).reset_index(drop=True))
