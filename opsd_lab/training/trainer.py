"""The loop: problems in, StepRecords out.

One step: get the completions of a few problems (the student's own, unless another source is named), score the same tokens on all
sides, sum the weighted token losses, take one optimiser step. `train` is a generator, so whoever iterates over it can draw, log, save
or stop at any step.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from tqdm.auto import tqdm

from opsd_lab.basics.interrupts import deferred_interrupts, interrupt_again, interruptible
from opsd_lab.basics.late import error_of
from opsd_lab.basics.options import whole
from opsd_lab.basics.schedules import Controller, at_step, controllers
from opsd_lab.contexts import ContextBuilder
from opsd_lab.identity.leaves import tensor_digest
from opsd_lab.objectives import OPSD, Mark, Objective, Signal, TokenWeights
from opsd_lab.objectives.weights import needs_step
from opsd_lab.policies.policy import Policy
from opsd_lab.policies.teachers import Teacher, fixed_teacher
from opsd_lab.problems.problem import Problem
from opsd_lab.rollouts.base import Sampler, SamplingParams
from opsd_lab.rollouts.gates import Gate, Rewards
from opsd_lab.rollouts.sources import Source, StudentWrites
from opsd_lab.scoring.batching import padding_share
from opsd_lab.scoring.columns import build_table
from opsd_lab.scoring.pipeline import Pipeline
from opsd_lab.tokens.table import TokenTable
from opsd_lab.training.clipping import COSINE, ClipMeasured, mean_cosine, warn_of_clip
from opsd_lab.training.drawing import Drawn, Settings, draw
from opsd_lab.training.gradients import REMEDY, Gradients, NonFiniteError, StepBatch
from opsd_lab.training.ledger import Ledger, Stopwatch
from opsd_lab.training.optimizer import MasterAdamW
from opsd_lab.training.pieces import check_pieces, check_prompts
from opsd_lab.training.processes import Part, from_all, summed, whole_step
from opsd_lab.training.records import Columns, StepRecord, TrainingParams, reward_metrics, step_metrics
from opsd_lab.training.step_costs import StepCosts

LONGEST_WAIT = timedelta(hours=1)  # of one process for the others, where all meet; torch then raises, instead of waiting for ever


class Trainer:
    """On-policy self-distillation of one policy on a list of problems.

    `contexts` builds every problem's two prompts here, so that one which cannot be rendered or does not fit is reported before any
    work. `sampler` continues prompts as `sampling` says. `objective` is `OPSD` where left out, `teacher` the policy as it is given
    (`fixed_teacher`), `params` those of `TrainingParams`. The model is kept in evaluation mode: without dropout, sampler, student and
    teacher compute the same function. Gradient checkpointing acts where it is switched on, and weights in half precision train
    through float32 copies, see `MasterAdamW`. The loss is the objective alone, without an expert mixture's load balancing.

    `source` says who writes the completions (left out: the student), `rewards` judges them, and `gate` says from the rewards what
    each of them weighs; an objective with advantages, such as `GRPO`, needs rewards as well, and groups of `sampling.n` rollouts.
    `weights` say what each token weighs. `marks` and `signals` give objective and weights more numbers of each token, by name.
    Any number of `objective`, `params`, `gate`, `weights`, `signals` and of a view may be a schedule or a controller.

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
        weights: TokenWeights | None = None,
        marks: Mapping[str, Mark] | None = None,
        signals: Mapping[str, Signal] | None = None,
    ) -> None:
        self.policy, self.contexts, self.sampler, self.sampling = policy, contexts, sampler, sampling
        self.params = TrainingParams() if params is None else params
        self.objective = OPSD() if objective is None else objective
        self.source, self.rewards, self.gate = StudentWrites() if source is None else source, rewards, gate
        self.weights, self.problems = weights, list(problems)
        self.marks, self.signals = dict(marks or {}), dict(signals or {})
        varying = (self.objective, sampling, self.params, getattr(contexts, "view", None), gate, weights, self.signals)
        self.states: dict[Controller, Any] = {c: c.start() for c in controllers(*varying)}
        self.step = 0
        check_pieces(self, teacher)
        self.teacher = fixed_teacher(policy) if teacher is None else teacher
        few, first = len(self.problems) < 2000, self.at(1).contexts
        self.prompts = [first.build(p) for p in tqdm(self.problems, desc="contexts", leave=False, disable=few)]
        self.processes = PartialState(cpu=policy.device.type == "cpu", timeout=LONGEST_WAIT)
        if self.params.batch_size < self.processes.num_processes:
            raise ValueError(
                f"Trainer: a batch of {self.params.batch_size} problems cannot be shared by {self.processes.num_processes} processes"
            )
        self.trainable, self.initial_weights = list(policy.trainable().values()), tensor_digest(policy.trainable())
        self.optimizer = MasterAdamW(self.trainable, lr=self.learning_rate(1), weight_decay=self.at(1).params.weight_decay)
        check_prompts(self)
        self.costs = StepCosts.of(policy, self.teacher)
        self.ledger = Ledger()
        self._summed = partial(summed, device=policy.device)
        self._sampler_is_behind = self._warned_of_clip = False

    def at(self, number: int) -> Settings:
        """Return objective, sampling and parameters of a step, with the step's numbers in place of schedules and controllers."""
        varying = (self.objective, self.sampling, self.params, self.gate, self.weights, self.signals)
        objective, sampling, params, *judging = (at_step(piece, number, self.states) for piece in varying)
        return Settings(number, objective, sampling, params, self.contexts.at(number, self.states), *judging)

    def bring_sampler_up(self) -> None:
        """Give the sampler the present weights, where it does not have them; whatever goes wrong there is raised."""
        if self._sampler_is_behind and (error := self._update_sampler()):
            raise error

    def share(self, chosen: list[int]) -> list[int]:
        """Return this process's part of a step's problems; a problem that comes twice is one process's, which draws both apart."""
        place = {problem: i for i, problem in enumerate(dict.fromkeys(chosen))}
        return [i for i in chosen if place[i] % self.processes.num_processes == self.processes.process_index]

    def learning_rate(self, number: int) -> float:
        """Return the learning rate of a step."""
        return at_step(self.params, number, self.states).learning_rate * min(1.0, number / (self.params.warmup_steps + 1))

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
                    self.bring_sampler_up()
                    drawn = draw(self, self.at(self.step + 1))
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

    def _learn(self, drawn: Drawn) -> tuple[StepRecord, BaseException | None]:
        """Take the step; return its record, and what went wrong once the weights had changed."""
        settings, watch, number, params = drawn.settings, drawn.watch, drawn.settings.number, drawn.settings.params
        batch = StepBatch.of(number, drawn.examples, params, self.policy.device)
        total = self._summed(batch.total)
        cost = self.costs.writing(drawn.written)
        if total == 0:
            return self._idle_step(drawn, batch, cost)
        seen, weighed, norm = self._gradient(batch, settings, total, watch)  # of the first pass, which sees the sampler's weights
        if weighed == 0:
            return self._idle_step(drawn, batch, cost.plus(self.costs.learning(batch.examples, settings.objective)))
        # Another process may have rollouts where this one has none left.
        loss = self._summed(float((seen["loss"] * seen["weight"]).sum()) if batch.examples else 0.0) / weighed
        metrics = self._metrics(drawn, batch, seen, norm)
        table = build_table(batch.examples, seen, self.policy.tokenizer)
        with deferred_interrupts(points=False):
            failure = None
            for passed in range(params.passes):
                if passed and (failure := error_of(partial(self._gradient, batch, settings, total, watch))):
                    failure.add_note(f"This was pass {passed + 1} of step {number}, which counts with the passes before.")
                    break
                with watch.phase("train"):
                    failure = self._update(settings)
                twice = bool(self.signals) or needs_step(self.weights)
                cost = cost.plus(self.costs.learning(batch.examples, settings.objective, twice=twice))
                if failure:
                    break
            with watch.phase("train"):
                failure = self._update_sampler() or failure
            self._count(cost, watch)
            record = StepRecord(number, loss, metrics, self.ledger, table, tuple(e.rollout for e in batch.examples), drawn.judged)
            wrong = self._end(record)
        return record, failure or wrong

    def _end(self, record: StepRecord) -> Exception | None:
        """Count a step as taken, and show it to the controllers; return what went wrong there."""
        self.step = record.step
        return error_of(lambda: self.states.update({c: c.see(state, record) for c, state in self.states.items()}))

    def _idle_step(self, drawn: Drawn, batch: StepBatch, cost: Ledger) -> tuple[StepRecord, BaseException | None]:
        """Count a step in which no token counts: the weights stay, and there is no loss; return what `_learn` does."""
        number = drawn.settings.number
        left, kept = (self._summed(float(number)) for number in (len(batch.examples), sum(drawn.kept)))
        if kept and not left:
            let = "every rollout" if self.gate is None else "every rollout that the gate let through"
            raise RuntimeError(
                f"step {number}: {let} was cut at {drawn.settings.sampling.max_new_tokens} tokens and dropped; raise max_new_tokens "
                "or keep truncated rollouts"
            )
        self._count(cost, drawn.watch)
        record = StepRecord(number, math.nan, self._metrics(drawn, batch, {}, 0.0), self.ledger, TokenTable.empty(), (), drawn.judged)
        return record, self._end(record)

    def _metrics(self, drawn: Drawn, batch: StepBatch, columns: Columns, norm: float) -> dict[str, float]:
        """Return a step's numbers, over all processes; each step of a run has the same names."""
        parts = step_metrics(drawn.written, batch.examples, columns, self.params.top_k)
        parts |= reward_metrics(drawn.rewards)
        if self.params.measure_clip:
            parts[COSINE] = mean_cosine(columns)
        parts["padding"] = Part(*padding_share(batch.examples, batch.groups))
        metrics = whole_step(from_all(parts))
        if metrics.get(COSINE, 0) < 0 and not self._warned_of_clip:
            self._warned_of_clip = True
            warn_of_clip(metrics[COSINE], drawn.settings.objective.pointwise_clip)
        return metrics | {"grad_norm": norm, "learning_rate": self.learning_rate(drawn.settings.number)}

    def _gradient(self, batch: StepBatch, settings: Settings, total: float, watch: Stopwatch) -> tuple[Columns, float, float]:
        """Put the step's clipped gradient in place; return the columns, what all tokens weigh, and the norm before the clip."""
        self.optimizer.zero_grad(set_to_none=True)
        objective, params = settings.objective, settings.params
        pipeline = Pipeline(
            self.policy,
            self.teacher,
            ClipMeasured(objective) if params.measure_clip else objective,
            top_k=params.top_k,
            weights=None if needs_step(settings.weights) else settings.weights,
            importance_cap=params.importance_cap,
            phase=watch.phase,
        )
        columns, weighed = Gradients(pipeline, settings.weights, settings.signals).add(batch, total), total
        with watch.phase("train"):
            counted = columns.pop("counted", columns.get("weight"))
            lacking = self._summed(float(any(None in e.prompts.teachers.values() for e in batch.examples)))
            if lacking or self.weights is not None or type(objective).counts is not Objective.counts:
                weighed = self._summed(float(counted.sum()) if batch.examples else 0.0)
            for p in self.trainable:
                if p.grad is None:  # this process had no rollout, or the parameter was not used
                    p.grad = torch.zeros_like(p)
                p.grad = reduce(p.grad, "sum")
                if weighed not in (0, total):
                    p.grad *= total / weighed
            norm = float(torch.nn.utils.clip_grad_norm_(self.trainable, params.max_grad_norm))
        if not math.isfinite(norm):
            raise NonFiniteError(f"step {batch.number}: the gradient's norm is {norm}; {REMEDY}")
        return columns, weighed, norm

    def _update(self, settings: Settings) -> Exception | None:
        """Change the weights, the student's and the teacher's; return what went wrong with the latter."""
        for group in self.optimizer.param_groups:
            group["lr"], group["weight_decay"] = self.learning_rate(settings.number), settings.params.weight_decay
        self.optimizer.step()
        self._sampler_is_behind = True
        return error_of(self.teacher.update)

    def _update_sampler(self) -> BaseException | None:
        """Give the sampler the present weights; return what went wrong, after which the next step tries again."""
        try:
            with interruptible():  # an engine may wait long
                self.sampler.update(self.policy)
        except BaseException as error:
            return error
        self._sampler_is_behind = False
        return None

    def _count(self, cost: Ledger, watch: Stopwatch) -> None:
        """Add a step's cost, over all processes, and this process's seconds to the ledger."""
        everywhere = {name: type(value)(self._summed(value)) for name, value in vars(cost).items()}
        seconds = {f"seconds_{phase}": value for phase, value in watch.seconds.items()}
        self.ledger = self.ledger.plus(Ledger(**(everywhere | seconds)))
