"""How good a sampler is on held-out problems: avg@k, pass@k and maj@k, each with an interval. Knows no models."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from opsd_lab.evaluation.estimate import Estimate
from opsd_lab.evaluation.outcomes import By, check_references, grade_rollouts
from opsd_lab.evaluation.paired import paired_interval
from opsd_lab.evaluation.statistics import avg_at_k, maj_at_k, pass_at_k
from opsd_lab.grading import VERDICTS, Grader
from opsd_lab.problems.problem import Problem, check_unique
from opsd_lab.rollouts.base import Rollout, Sampler, SamplingParams
from opsd_lab.rollouts.sampling import check_room, continue_prompts

COLUMNS = ("problem_id", "sample", "final", "boxed", "last_number", "answer", "truncated", "tokens", "text")


@dataclass(frozen=True)
class Evaluation:
    """Every graded rollout of one model or condition.

    `rows` holds the columns of `COLUMNS`, in that order, one row per rollout, problem by problem, samples from 0:
    `final`, `boxed` and `last_number` are verdicts, `answer` is the text that `final` is about (None if missing),
    `tokens` the completion's length. Only "correct" counts as correct; see `counts` for what else there was.

    Raises:
        ValueError: when there are no rows, columns are missing, or problems do not each have samples 0 to k - 1.
    """

    name: str
    rows: pd.DataFrame

    def __post_init__(self) -> None:
        if missing := [column for column in COLUMNS if column not in self.rows]:
            raise ValueError(f"Evaluation {self.name!r}: missing columns {missing}")
        rows = self.rows[list(COLUMNS)].reset_index(drop=True)
        k = int((rows["sample"] == 0).cumsum().eq(1).sum())
        ids = rows["problem_id"].to_numpy().reshape(-1, k) if k and len(rows) % k == 0 else None
        samples = np.tile(np.arange(k), len(rows) // k if k else 0)
        if ids is None or (ids != ids[:, :1]).any() or len(set(ids[:, 0])) < len(ids) or (rows["sample"] != samples).any():
            raise ValueError(f"Evaluation {self.name!r}: rows are not problem by problem with the same samples for each")
        object.__setattr__(self, "rows", rows)

    @property
    def k(self) -> int:
        """Samples per problem."""
        return int(self.rows["sample"].max()) + 1

    @property
    def problem_ids(self) -> list[str]:
        """The problems' ids, in order."""
        return self.rows["problem_id"].tolist()[:: self.k]

    def correct(self, by: By = "final") -> np.ndarray:
        """Return the correctness [P, k] by one of the verdicts."""
        return self.rows[by].eq("correct").to_numpy(dtype=bool).reshape(-1, self.k)

    def accuracy(self, by: By = "final") -> Estimate:
        """Return avg@k by one of the verdicts."""
        return avg_at_k(self.correct(by))

    def pass_at_k(self, k: int, by: By = "final") -> Estimate:
        """Return pass@k by one of the verdicts."""
        return pass_at_k(self.correct(by), k)

    def maj_at_k(self) -> Estimate:
        """Return the accuracy of the majority vote of the final answers."""
        answers = [None if pd.isna(answer) else answer for answer in self.rows["answer"]]
        rows = [answers[start : start + self.k] for start in range(0, len(answers), self.k)]
        return maj_at_k(rows, self.correct())

    def counts(self) -> pd.DataFrame:
        """Return how many rollouts got each verdict: one row per verdict, one column per way of judging."""
        ways = ["final", "boxed", "last_number"]
        return pd.DataFrame({by: self.rows[by].value_counts() for by in ways}, index=list(VERDICTS)).fillna(0).astype(int)

    @property
    def truncation_rate(self) -> float:
        """The fraction of rollouts that the length limit cut."""
        return float(self.rows["truncated"].mean())

    @property
    def mean_length(self) -> float:
        """Tokens per completion, the end of sequence included."""
        return float(self.rows["tokens"].mean())


def evaluate(
    sampler: Sampler,
    problems: Sequence[Problem],
    build_prompt: Callable[[Problem], list[int]],
    params: SamplingParams,
    grader: Grader,
    *,
    name: str = "model",
) -> Evaluation:
    """Sample `params.n` completions for each problem and grade them by their own text.

    `sampler` writes, with the weights that it has. `build_prompt` returns the token ids of a problem's prompt, to which a response
    prefix belongs, such as `ContextBuilder.student_prompt`. `params` says how tokens are drawn; temperature 0 evaluates greedy
    decoding. `grader` judges the answers. `name` is what the evaluation is called.

    Raises:
        ValueError: when there are no problems, ids repeat, greedy decoding is asked for several equal samples, or a prompt with
            `max_new_tokens` exceeds the context; the last names the problem.
        UnreadableAnswersError: before anything is sampled, when reference answers cannot be read; it lists all of them.
        RuntimeError: when the sampler does not return n rollouts for each prompt.
    """
    if not problems:
        raise ValueError("evaluate: there are no problems")
    check_unique(problems)
    if params.temperature == 0 and params.n > 1:
        raise ValueError(f"evaluate: greedy decoding writes the same {params.n} times; set n=1 or a temperature")
    check_references(grader, problems)
    prompts = [build_prompt(problem) for problem in problems]
    check_room(getattr(sampler, "policy", None), "student", problems, prompts, params)
    rollouts = continue_prompts(sampler, problems, prompts, params)
    return graded(rollouts, problems, grader, name=name)


def graded(rollouts: Sequence[Rollout], problems: Sequence[Problem], grader: Grader, *, name: str = "model") -> Evaluation:
    """Return the evaluation of rollouts that are written, each graded by its own text.

    `rollouts` stand problem by problem, as many of each of the `problems`. `grader` judges their answers, and `name` is what the
    evaluation is called.

    Raises:
        ValueError: when there is not the same number of rollouts of each problem, or one is of none of them.
        UnreadableAnswersError: when reference answers cannot be read; it lists all of them.
    """
    if not problems or len(rollouts) % len(problems):
        raise ValueError(f"graded: {len(rollouts)} rollouts of {len(problems)} problems; give the same number of each problem")
    grades = grade_rollouts(grader, rollouts, problems)
    columns = {
        "problem_id": [rollout.problem_id for rollout in rollouts],
        "sample": list(range(len(rollouts) // len(problems))) * len(problems),
        "final": [grade.final for grade in grades],
        "boxed": [grade.boxed for grade in grades],
        "last_number": [grade.last_number for grade in grades],
        "answer": [grade.final_answer for grade in grades],
        "truncated": [rollout.truncated for rollout in rollouts],
        "tokens": [len(rollout.completion_ids) for rollout in rollouts],
        "text": [rollout.text for rollout in rollouts],
    }
    return Evaluation(name, pd.DataFrame(columns))


def paired_difference(before: Evaluation, after: Evaluation, by: By = "final") -> Estimate:
    """Return by how much accuracy rose from `before` to `after`, with its interval over problems (`paired_interval`).

    Each problem is compared with itself, which removes the spread between easy and hard problems.

    Raises:
        ValueError: when the two were not evaluated on the same problems; the message names some that differ.
    """
    if differing := sorted(set(before.problem_ids) ^ set(after.problem_ids)):
        raise ValueError(
            f"{before.name!r} and {after.name!r} were evaluated on different problems; "
            f"{len(differing)} are in only one of them, such as {differing[:5]}"
        )
    rates = [pd.Series(e.correct(by).mean(axis=1), index=e.problem_ids) for e in (before, after)]
    units = len(rates[0]) * min(before.k, after.k)
    return paired_interval(rates[0].to_numpy(), rates[1][before.problem_ids].to_numpy(), units)
