"""The loop: problems in, StepRecords out.

One step: get the completions of a few problems (the student's own, unless another source is named), score the same tokens under
both contexts, sum the weighted token losses, take one optimiser step. `train` is a generator, so whoever iterates over it can draw,
log, save or stop at any step.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from tqdm.auto import tqdm

from opsd_lab.basics.interrupts import deferred_interrupts, interrupt_again, interruptible
from opsd_lab.basics.options import whole
from opsd_lab.contexts import ContextBuilder
from opsd_lab.identity.leaves import tensor_digest
from opsd_lab.objectives.opsd import OPSD, Objective, build_table
from opsd_lab.policies.policy import Policy
from opsd_lab.policies.teacher_checks import check_lengths, check_teacher
from opsd_lab.policies.teachers import Teacher, fixed_teacher
from opsd_lab.problems.problem import Problem
from opsd_lab.rollouts.base import Rollout, Sampler, SamplingParams
from opsd_lab.rollouts.sources import Gate, Rewards, Source, StudentWrites
from opsd_lab.scoring.batching import Example, padding_share
from opsd_lab.tokens.table import TokenTable
from opsd_lab.training.clipping import COSINE, ClipMeasured, mean_cosine, warn_of_clip
from opsd_lab.training.costs import CostModel
from opsd_lab.training.gradients import REMEDY, Gradients, NonFiniteError, StepBatch
from opsd_lab.training.judging import judged, let_through
from opsd_lab.training.ledger import Ledger, Stopwatch
from opsd_lab.training.optimizer import MasterAdamW
from opsd_lab.training.pieces import check_pieces
from opsd_lab.training.records import Columns, StepRecord, TrainingParams, step_metrics

LONGEST_WAIT = timedelta(hours=1)  # of one process for the others, where all meet; torch then raises, instead of waiting for ever


class _Drawn(NamedTuple):
    """A step before it is taken: its rollouts, their rewards, and those that are trained on."""

    number: int
    rollouts: list[Rollout]
    rewards: list[float] | None
    kept: list[bool]
    examples: list[Example]
    watch: Stopwatch


class Trainer:
    """On-policy self-distillation of one policy on a list of problems.

    Every problem's two prompts are built here, so that one which cannot be rendered or does not fit is reported before any
    work. The model is kept in evaluation mode: without dropout, sampler, student and teacher compute the same function. Gradient
    checkpointing acts where it is switched on, and weights in half precision train through float32 copies, see `MasterAdamW`. The
    loss is the objective alone: a mixture of experts' load-balancing loss is not added.

    `source` says who writes the completions (left out: the student), `rewards` judges them, and `gate` says from the rewards which
    of them count; an objective with advantages, such as `GRPO`, needs rewards as well, and groups of `sampling.n` rollouts.

    Raises:
        TypeError: for a piece of another kind than its argument's.
        ValueError: for no problems, two with one id, one without what the view shows, a prompt that with its completion exceeds the
            context of the policy that reads it, a policy of which nothing trains, a teacher that does not fit the student, or other
            pieces that do not go together; a batch of fewer problems than there are processes.
        NotImplementedError: for an architecture whose logits `LogitHead` does not know.
    """

    def __init__(
        self,
        policy: Policy,
        problems: Sequence[Problem],
        contexts: ContextBuilder,
        sampler: Sampler,
        sampling: SamplingParams,
        *,
        objective: Objective | None = None,
        teacher: Teacher | None = None,
        params: TrainingParams | None = None,
        source: Source | None = None,
        rewards: Rewards | None = None,
        gate: Gate | None = None,
    ) -> None:
        self.policy, self.sampler, self.sampling = policy, sampler, sampling
        self.params = TrainingParams() if params is None else params
        self.objective = OPSD() if objective is None else objective
        self.source, self.rewards, self.gate = StudentWrites() if source is None else source, rewards, gate
        self.problems = list(problems)
        check_pieces(self, contexts, teacher)
        self.teacher = fixed_teacher(policy) if teacher is None else teacher
        build, few = contexts.build, len(self.problems) < 2000
        self.pairs = [build(p) for p in tqdm(self.problems, desc="contexts", leave=False, disable=few)]
        named, new = list(zip([f"problem {p.id!r}" for p in self.problems], self.pairs, strict=True)), sampling.max_new_tokens

        def lengths(side: str) -> list[tuple[str, int, int]]:
            return [(name, len(getattr(pair, side)), new) for name, pair in named]

        check_lengths(policy, "student", lengths("student_ids"))
        wait = InitProcessGroupKwargs(timeout=LONGEST_WAIT)
        self.accelerator = Accelerator(cpu=policy.device.type == "cpu", kwargs_handlers=[wait])
        if self.params.batch_size < (processes := self.accelerator.num_processes):
            raise ValueError(f"Trainer: a batch of {self.params.batch_size} problems cannot be shared by {processes} processes")
        self.trainable, self.initial_weights = list(policy.trainable().values()), tensor_digest(policy.trainable())
        self.optimizer = MasterAdamW(self.trainable, lr=self.params.learning_rate, weight_decay=self.params.weight_decay)
        self.costs = CostModel.of(policy)
        with self.teacher.beside(policy) as theirs:
            check_teacher(policy, theirs)
            check_lengths(theirs, "teacher", lengths("teacher_ids"))
            self.teacher_costs = CostModel.of(theirs)
        self.step = 0
        self.ledger = Ledger()
        self._sampler_is_behind = self._warned_of_clip = False

    def train(self, steps: int, *, progress: bool = True) -> Iterator[StepRecord]:
        """Take optimiser steps, yielding a record after each.

        A step happens and its record is yielded, or it does not happen. Ctrl-C is held back while weights change: it ends the loop
        at the next token that `HFSampler` writes, at the next micro-batch, or, from the first update of a step on, once whoever
        iterates asks for more than that step's record (with several `passes`, that is the time of the passes). Call `train` again
        to go on as if nothing had happened; so too after leaving the loop.

        Raises:
            NonFiniteError: before the weights change; it names the step, the problems and the remedies. Where it is met in a later
                one of several passes, the step counts with the passes before it and its record is yielded first.
            RuntimeError: when no rollout of a step is left to train on.
            TypeError, ValueError: for a number of steps that is none; for what rewards or a gate return, see
                `opsd_lab.training.judging`.
        """
        return self._steps(whole("train: steps", steps, least=0), progress)

    def _steps(self, steps: int, progress: bool) -> Iterator[StepRecord]:
        with tqdm(total=steps, desc="training", unit="step", disable=not progress) as bar:
            for _ in range(steps):
                record = late = None
                try:
                    drawn = self._draw(self.step + 1)
                    with deferred_interrupts():
                        record, late = self._learn(drawn)
                        bar.set_postfix(loss=f"{record.loss:.4f}")
                        bar.update()
                except BaseException as error:
                    if record is None:
                        raise
                    late = error
                # No call stands between here and the yield, so that no interrupt can come between a step and its record.
                try:
                    yield record
                except GeneratorExit:
                    if isinstance(late, Exception):
                        raise late from None
                    if late is not None:  # a loop that was left would swallow it
                        interrupt_again()
                    raise
                if late is not None:
                    raise late

    def _draw(self, number: int) -> _Drawn:
        """Get a step's rollouts and judge them; nothing of the trainer's changes."""
        if self._sampler_is_behind and (error := self._update_sampler()):
            raise error
        watch = Stopwatch()
        with watch.phase("generate"):
            sampled = self._sample(number)
            rollouts, owners = [r for _, r in sampled], [i for i, _ in sampled]
            rewards = None if self.rewards is None else judged(self.rewards, rollouts, [self.problems[i] for i in owners])
            kept = let_through(self.gate, rewards, owners)
        return _Drawn(number, rollouts, rewards, kept, self._examples(sampled, rewards, kept), watch)

    def _learn(self, drawn: _Drawn) -> tuple[StepRecord, BaseException | None]:
        """Take the step; return its record, and what went wrong once the weights had changed."""
        number, watch = drawn.number, drawn.watch
        batch = StepBatch.of(number, drawn.examples, self.params, self.policy.device)
        total = self._sum_over_processes(batch.total)
        cost = self._cost_of_writing(drawn.rollouts)
        if total == 0:
            return self._idle_step(drawn, batch, cost), None
        seen, norm = self._gradient(batch, total, watch)  # of the first pass, which sees the sampler's weights
        # Another process may have rollouts where this one has none left.
        loss = self._sum_over_processes(float((seen["loss"] * seen["weight"]).sum()) / total if batch.examples else 0.0)
        metrics = self._metrics(drawn, batch, seen, norm)
        table = build_table(batch.examples, {n: c for n, c in seen.items() if n != COSINE}, self.policy.tokenizer)
        with deferred_interrupts(points=False):
            failure = None
            for passed in range(self.params.passes):
                try:
                    if passed:
                        self._gradient(batch, total, watch)
                except Exception as error:
                    error.add_note(f"This was pass {passed + 1} of step {number}, which counts with the passes before.")
                    failure = error
                    break
                with watch.phase("train"):
                    self._update(number)
                cost = cost.plus(self._cost_of_training(batch.examples))
            self.step = number
            with watch.phase("train"):
                failure = self._update_sampler() or failure
            self._count(cost, watch)
        return StepRecord(number, loss, metrics, self.ledger, table, tuple(e.rollout for e in batch.examples)), failure

    def _idle_step(self, drawn: _Drawn, batch: StepBatch, cost: Ledger) -> StepRecord:
        """Count a step in which the gate let no rollout through: the weights stay, and there is no loss."""
        if self._sum_over_processes(float(sum(drawn.kept))):
            let = "every rollout" if self.gate is None else "every rollout that the gate let through"
            raise RuntimeError(
                f"step {drawn.number}: {let} was cut at {self.sampling.max_new_tokens} tokens and dropped; raise max_new_tokens or "
                "keep truncated rollouts"
            )
        metrics = self._metrics(drawn, batch, {}, 0.0)
        self._count(cost, drawn.watch)
        self.step = drawn.number
        return StepRecord(drawn.number, math.nan, metrics, self.ledger, TokenTable.empty(), ())

    def _metrics(self, drawn: _Drawn, batch: StepBatch, columns: Columns, norm: float) -> dict[str, float]:
        """Return a step's numbers; each step of a run has the same names."""
        metrics = step_metrics(drawn.rollouts, batch.examples, columns, on_policy=self.source.writer == "student")
        if drawn.rewards is not None:
            metrics["reward"] = sum(drawn.rewards) / len(drawn.rewards)
        if self.params.measure_clip:
            metrics[COSINE] = mean_cosine(columns)
            if metrics[COSINE] < 0 and not self._warned_of_clip:
                self._warned_of_clip = True
                warn_of_clip(metrics[COSINE], self.objective.pointwise_clip)
        padding = padding_share(batch.examples, batch.groups) if batch.examples else math.nan
        return metrics | {"padding": padding, "grad_norm": norm, "learning_rate": self._learning_rate(drawn.number)}

    def _gradient(self, batch: StepBatch, total: float, watch: Stopwatch) -> tuple[Columns, float]:
        """Put the step's clipped gradient in place; return the tokens' columns and the gradient's norm before it was clipped."""
        self.optimizer.zero_grad(set_to_none=True)
        objective = ClipMeasured(self.objective) if self.params.measure_clip else self.objective
        columns = Gradients(self.policy, self.teacher, objective, self.params.importance_cap).add(batch, total, watch)
        with watch.phase("train"):
            for p in self.trainable:
                if p.grad is None:  # this process had no rollout, or the parameter was not used
                    p.grad = torch.zeros_like(p)
                p.grad = self.accelerator.reduce(p.grad, "sum")
            norm = float(torch.nn.utils.clip_grad_norm_(self.trainable, self.params.max_grad_norm))
        if not math.isfinite(norm):
            raise NonFiniteError(f"step {batch.number}: the gradient's norm is {norm}; {REMEDY}")
        return columns, norm

    def _update(self, number: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate(number)
        self.optimizer.step()
        self.teacher.update()
        self._sampler_is_behind = True

    def _update_sampler(self) -> BaseException | None:
        """Give the sampler the present weights; return what went wrong, after which the next step tries again."""
        try:
            with interruptible():  # an engine may wait long
                self.sampler.update(self.policy)
        except BaseException as error:
            return error
        self._sampler_is_behind = False
        return None

    def _sample(self, number: int) -> list[tuple[int, Rollout]]:
        """Return this process's rollouts of a step, each with the index of its problem."""
        mine = self.params.problems_of_step(number, len(self.problems))[
            self.accelerator.process_index :: self.accelerator.num_processes
        ]
        seed = int(np.random.SeedSequence([self.params.seed, number]).generate_state(1)[0])
        problems, pairs = [self.problems[i] for i in mine], [self.pairs[i] for i in mine]
        rollouts = self.source.write(self.sampler, self.teacher, problems, pairs, replace(self.sampling, seed=seed))
        each = 1 if self.source.writer == "text" else self.sampling.n
        owners = [i for i in mine for _ in range(each)]
        return [(i, replace(r, problem_id=self.problems[i].id)) for i, r in zip(owners, rollouts, strict=True)]

    def _examples(self, rollouts: list[tuple[int, Rollout]], rewards: list[float] | None, kept: list[bool]) -> list[Example]:
        owners, examples = [index for index, _ in rollouts], []
        advantages = [0.0] * len(rollouts) if rewards is None else self.objective.advantages(rewards, owners)
        for (index, rollout), keep, advantage in zip(rollouts, kept, advantages, strict=True):
            scored = len(rollout.completion_ids) if keep else 0
            if scored and rollout.truncated:
                scored -= {"keep": 0, "keep_without_last_token": 1, "drop": scored}[self.params.truncated]
            if scored:
                examples.append(Example(self.pairs[index], rollout, scored, advantage))
        return examples

    def _cost_of_writing(self, rollouts: list[Rollout]) -> Ledger:
        if self.source.writer == "text":
            return Ledger()
        lengths = [(len(r.prompt_ids), len(r.completion_ids)) for r in rollouts]
        costs = self.teacher_costs if self.source.writer == "teacher" else self.costs
        flops = sum(costs.generation(*length) for length in lengths)
        return Ledger(tokens_generated=sum(length for _, length in lengths), flops_generate=flops)

    def _cost_of_training(self, examples: list[Example]) -> Ledger:
        tokens = sum(e.scored for e in examples)
        train = sum(self.costs.training(len(e.pair.student_ids), e.scored) for e in examples)
        if not self.objective.needs_teacher:
            return Ledger(tokens_trained=tokens, flops_train=train)
        score = sum(self.teacher_costs.scoring(len(e.pair.teacher_ids), e.scored) for e in examples)
        return Ledger(tokens_scored=tokens, tokens_trained=tokens, flops_score=score, flops_train=train)

    def _count(self, cost: Ledger, watch: Stopwatch) -> None:
        """Add a step's cost, over all processes, and this process's seconds to the ledger."""
        summed = {name: type(value)(self._sum_over_processes(value)) for name, value in vars(cost).items()}
        seconds = {f"seconds_{phase}": value for phase, value in watch.seconds.items()}
        self.ledger = self.ledger.plus(Ledger(**(summed | seconds)))

    def _learning_rate(self, number: int) -> float:
        return self.params.learning_rate * min(1.0, number / (self.params.warmup_steps + 1))

    def _sum_over_processes(self, value: float) -> float:
        if self.accelerator.num_processes == 1:
            return value
        return float(self.accelerator.reduce(torch.tensor(value, dtype=torch.float64, device=self.policy.device), "sum"))
