"""Whether the pieces of a training run are of their kinds and go together."""

from typing import TYPE_CHECKING

import torch

from opsd_lab.basics.options import instance, name_of
from opsd_lab.contexts import ContextBuilder
from opsd_lab.divergences import Side
from opsd_lab.objectives import MarkError, Objective, Teachers, Tokens, ViewError
from opsd_lab.policies.architecture import note_auxiliary_loss
from opsd_lab.policies.head import check_head
from opsd_lab.policies.policy import Policy, check_trainable
from opsd_lab.policies.teacher_checks import check_lengths, check_teacher
from opsd_lab.problems.problem import Problem, check_unique
from opsd_lab.rollouts.base import SamplingParams
from opsd_lab.rollouts.gates import Gate
from opsd_lab.scoring.columns import RESERVED
from opsd_lab.scoring.pipeline import KNOWN
from opsd_lab.training.clipping import ClipMeasured
from opsd_lab.training.records import TrainingParams

if TYPE_CHECKING:
    from opsd_lab.training.trainer import Trainer


def check_pieces(trainer: "Trainer", teacher: object) -> None:
    """Make sure that a trainer's pieces are of their kinds and go together.

    Raises:
        TypeError: for a piece of another kind than its argument's; it names the argument and the remedy.
        ValueError: for no problems, or pieces that do not go together.
        NotImplementedError: for an architecture whose logits `LogitHead` does not know.
    """
    _check_kinds(trainer, teacher)
    settings = trainer.at(1)
    objective, sampling, params = settings.objective, settings.sampling, settings.params
    if taken := sorted((trainer.marks.keys() | trainer.signals.keys()) & (RESERVED | set(KNOWN))):
        raise ValueError(f"Trainer: every step has a column {taken[0]!r} of its own; give the mark or signal another name")
    if twice := sorted(trainer.marks.keys() & trainer.signals.keys()):
        raise ValueError(f"Trainer: {twice[0]!r} is a mark and a signal; give one of them another name")
    if not trainer.problems:
        raise ValueError("Trainer: there are no problems to train on")
    check_trainable(trainer.policy)
    if trainer.rewards is None and (trainer.gate or objective.needs_rewards):
        raise ValueError("Trainer: a gate, and an objective such as GRPO, need `rewards` to judge the rollouts")
    looked_at = trainer.gate or trainer.weights or trainer.signals or trainer.contexts.needs_rollout
    looked_at = looked_at or objective.needs_rewards or objective.sees_outcomes
    if trainer.rewards is not None and not looked_at:
        raise ValueError(
            f"Trainer: {type(objective).__name__} does not look at rewards, and there is no gate that does; leave `rewards` out, "
            "add a gate such as correct_only, or take GRPO. To follow accuracy, use `evaluate`"
        )
    if check := getattr(trainer.rewards, "check", None):  # what cannot be judged is found before anything is sampled
        check(trainer.problems)
    if not getattr(trainer.source, "samples", True) and (params.importance_cap or objective.needs_sampled_logprobs):
        raise ValueError("Trainer: given texts were not sampled, so there is no probability to correct or to reward them by")
    if params.measure_clip:
        ClipMeasured(objective)
    check_groups(objective, trainer.gate, sampling.n, "SamplingParams.n")
    if objective.needs_sampled_logprobs:
        check_whole_distribution(objective, sampling)
    check_unique(trainer.problems)
    _try_views(objective, trainer)
    check_head(trainer.policy)
    note_auxiliary_loss(trainer.policy.causal_lm)
    sampling.prompt_limit(trainer.policy.context_length)


def check_prompts(trainer: "Trainer") -> None:
    """Make sure that every prompt leaves room for a completion, and that the teacher fits the student.

    Raises:
        ValueError: when one does not; it names the problem, or both policies.
    """
    new = trainer.at(1).sampling.max_new_tokens

    def lengths(prompts: list[tuple[int, ...] | None]) -> list[tuple[str, int, int]]:
        return [(f"problem {p.id!r}", len(ids), new) for p, ids in zip(trainer.problems, prompts, strict=True) if ids is not None]

    check_lengths(trainer.policy, "student", lengths([prompts.student_ids for prompts in trainer.prompts]))
    with trainer.teacher.beside(trainer.policy) as theirs:
        check_teacher(trainer.policy, theirs)
        for view in trainer.contexts.views:
            check_lengths(theirs, "teacher", lengths([prompts.teachers[view] for prompts in trainer.prompts]))


def _try_views(objective: Objective, trainer: "Trainer") -> None:
    """Ask the objective about made-up tokens, so that one which looks for other views is found before any work."""
    if not objective.needs_teacher:
        return
    names, ids = list(trainer.contexts.views), torch.tensor([1, 2])
    known = {name: torch.zeros(2) for name in ("advantage", "outcome", "pass_rate", "sampled_logprob")}
    places = {"rollout": torch.zeros(2, dtype=torch.long), "position": torch.arange(2), "length": torch.full((2,), 2)}
    marked = {name: torch.zeros(2) for name in (*trainer.marks, *trainer.signals)}
    tokens = Tokens(ids, **places, **known, seen={name: torch.ones(2, dtype=torch.bool) for name in names}, marked=marked)
    sides = [Side(torch.linspace(-1, 1, 16).view(2, 8) * (i + 1)) for i in range(len(names) + 1)]
    try:
        objective.loss(sides[0], Teachers(zip(names, sides[1:], strict=True)), tokens)
    except (MarkError, ViewError) as error:
        raise ValueError(f"Trainer: {type(objective).__name__} and the other pieces do not go together: {error}") from error
    except Exception:  # made-up tokens prove nothing else
        return


def check_groups(objective: Objective, gate: Gate | None, n: int, name: str) -> None:
    """Make sure that what compares the rollouts of a problem with each other gets several of them.

    `objective` and `gate` are what may compare, None where there is no gate. `n` is the number of rollouts a problem gets, and `name`
    what the message calls it.

    Raises:
        ValueError: when there is one rollout a problem.
    """
    for piece in (objective, gate):
        if n < 2 and getattr(piece, "needs_groups", False):
            told = type(piece).__name__ if isinstance(piece, Objective) else name_of(piece)
            raise ValueError(
                f"{told} compares the rollouts of a problem with each other, so that with one rollout there is nothing to learn; set "
                f"{name} to 2 or more"
            )


def check_whole_distribution(objective: Objective, sampling: SamplingParams) -> None:
    """Make sure that rollouts are drawn from the distribution whose probabilities the objective compares.

    Raises:
        ValueError: at another temperature than 1, or with the distribution cut by top_p or top_k.
    """
    for name, plain in (("temperature", 1.0), ("top_p", 1.0), ("top_k", 0)):
        if (value := getattr(sampling, name)) != plain:
            raise ValueError(
                f"{type(objective).__name__} weighs tokens by the ratio of the student's to the sampler's probability, both at "
                f"temperature 1 over the whole vocabulary; rollouts drawn with {name} = {value} come from another "
                f"distribution. Sample with {name} = {plain}"
            )


def _check_kinds(trainer: "Trainer", teacher: object) -> None:
    instance("Trainer: policy", trainer.policy, Policy, "load_policy returns one")
    instance("Trainer: contexts", trainer.contexts, ContextBuilder, "write ContextBuilder(policy.tokenizer, view)")
    instance(
        "Trainer: sampling",
        trainer.sampling,
        SamplingParams,
        "how rollouts are drawn is SamplingParams; `params` takes TrainingParams",
    )
    instance(
        "Trainer: params",
        trainer.params,
        TrainingParams,
        "how the student is optimised is TrainingParams; `sampling` takes SamplingParams",
    )
    instance("Trainer: objective", trainer.objective, Objective, "write OPSD(forward_kl), say, not OPSD or forward_kl")
    for i, problem in enumerate(trainer.problems):
        instance(f"Trainer: problems[{i}]", problem, Problem, "load_jsonl and load_hub make them, or Problem(id, question, answer)")
    methods = [
        ("sampler", trainer.sampler, ("sample", "update"), "a sampler, such as HFSampler(policy)"),
        ("source", trainer.source, ("write",), "a source, such as StudentWrites() or TeacherWrites()"),
        ("teacher", teacher, ("update", "state"), "a teacher, such as fixed_teacher(policy) or ema_teacher(policy)"),
        ("rewards", trainer.rewards, ("__call__",), "a function of rollouts and problems, such as AnswerReward(grader)"),
        ("gate", trainer.gate, ("__call__",), "a function of rewards and groups, such as correct_only"),
        ("weights", trainer.weights, ("__call__",), "a function of columns that returns what each token weighs"),
    ]
    for name, piece, needed, remedy in methods:
        if piece is not None and (isinstance(piece, type) or not all(callable(getattr(piece, method, None)) for method in needed)):
            raise TypeError(f"Trainer: {name} is {name_of(piece)} ({type(piece).__name__}), not {remedy}")
