"""Marks of reasoning steps: one number for each token of a rollout, from where its text's steps lie."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from opsd_lab.problems.problem import Problem
from opsd_lab.rollouts.base import Rollout
from opsd_lab.steps.arithmetic import arithmetic_steps
from opsd_lab.steps.segmentation import Cut, segments
from opsd_lab.steps.tokens import error_phases, token_steps

VERDICTS = {"correct": 1.0, "incorrect": -1.0}


@dataclass(frozen=True)
class SegmentNumbers:
    """Numbers the segments of a rollout from 0; what lies between two belongs to the first of them.

    A token that covers several is of the last of them, and a segment without a token of its own has no number.
    """

    by: Cut = "sentences"

    def __call__(self, problem: Problem, rollout: Rollout) -> Sequence[float]:
        """Return each token's number.

        Raises:
            ValueError: for a rollout whose sampler does not know its tokens' texts.
        """
        tokens = texts_of(rollout)
        starts = [segment.start for segment in segments("".join(tokens), self.by)][1:]
        found = [sum(start < end for start in starts) for end in accumulate(map(len, tokens))]
        number = {segment: float(i) for i, segment in enumerate(dict.fromkeys(found))}
        return [number[segment] for segment in found]


def equation_verdicts(problem: Problem, rollout: Rollout) -> Sequence[float]:
    """Return 1 for the tokens of equations that hold, -1 for those that do not, 0 for all others.

    Raises:
        ValueError: for a rollout whose sampler does not know its tokens' texts.
    """
    tokens = texts_of(rollout)
    _, labels = token_steps(tokens, arithmetic_steps("".join(tokens)))
    return [VERDICTS.get(label, 0.0) for label in labels]


def first_error_tokens(problem: Problem, rollout: Rollout) -> Sequence[float]:
    """Return 1 for the tokens of the first equation that does not hold, 0 for all others.

    Raises:
        ValueError: for a rollout whose sampler does not know its tokens' texts.
    """
    tokens = texts_of(rollout)
    return [float(phase == "first_error") for phase in error_phases(tokens, arithmetic_steps("".join(tokens)))]


def texts_of(rollout: Rollout) -> tuple[str, ...]:
    """Return the texts of a rollout's tokens.

    Raises:
        ValueError: when its sampler does not know them.
    """
    if not rollout.tokens:
        raise ValueError(f"a rollout of problem {rollout.problem_id!r} has no texts of its tokens; its sampler does not give them")
    return rollout.tokens
