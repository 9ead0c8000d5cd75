"""The loop: problems in, StepRecords out.

One step: get the completions of a few problems (the student's own, unless another source is named), score the same tokens under
both contexts, sum the weighted token losses, take one optimiser step. `train` is a generator, so whoever iterates over it can draw,
log, save or stop at any step.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm.auto import tqdm

from opsd_lab.batching import DistillBatch, Example, build_batch, join_columns, micro_batches, padding_share
from opsd_lab.contexts import ContextBuilder
from opsd_lab.costs import CostModel
from opsd_lab.divergences import Tokens
from opsd_lab.interrupts import uninterrupted
from opsd_lab.ledger import Ledger, Stopwatch
from opsd_lab.objectives import OPSD, Objective, build_table
from opsd_lab.policies import Policy
from opsd_lab.problems import Problem
from opsd_lab.records import Columns, Normalisation, StepRecord, TrainingParams, sampled_logprobs, step_metrics
from opsd_lab.rollouts.base import Rollout, Sampler, SamplingParams
from opsd_lab.scoring import CompletionStates, LogitHead, check_head, score_completions
from opsd_lab.sources import Gate, Rewards, Source, StudentWrites
from opsd_lab.teachers import Teacher, fixed_teacher
from opsd_lab.token_table import TokenTable

REMEDY = (
    "the weights are those of the step before. Lower the learning rate, or look at these problems' texts and their log-probabilities"
)


class NonFiniteError(FloatingPointError):
    """A loss or gradient that is no number; the weights are those of the last good step."""


class Trainer:
    """On-policy self-distillation of one policy on a list of problems.

    Every problem's two prompts are built here, so that one which cannot be rendered or does not fit is reported before any
    work. The model stays in evaluation mode: without dropout, sampler, student and teacher compute the same function.

    `source` says who writes the completions (left out: the student), `rewards` judges them, and `gate` says from the rewards which
    of them count; an objective with advantages, such as `GRPO`, needs rewards as well, and groups of `sampling.n` rollouts.

    Raises:
        ValueError: for no problems, a problem without what the view shows, prompts that do not fit the model's context, or pieces
            that do not go together; a batch of fewer problems than there are processes.
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
        if not problems:
            raise ValueError("Trainer: there are no problems to train on")
        check_head(policy)
        self.policy, self.sampler, self.sampling = policy, sampler, sampling
        self.params = params or TrainingParams()
        self.objective = objective or OPSD()
        self.source, self.rewards, self.gate = source or StudentWrites(), rewards, gate
        if rewards is None and (gate or self.objective.needs_rewards):
            raise ValueError("Trainer: a gate, and an objective such as GRPO, need `rewards` to judge the rollouts")
        if check := getattr(rewards, "check", None):  # what cannot be judged is found before anything is sampled
            check(problems)
        if self.source.writer == "text" and (self.params.importance_cap or self.objective.needs_rewards):
            raise ValueError("Trainer: given texts were not sampled, so there is no probability to correct or to reward them by")
        self.teacher = teacher or fixed_teacher(policy)
        self.problems = list(problems)
        limit = policy.context_length - sampling.max_new_tokens
        build = replace(contexts, max_tokens=min(limit, contexts.max_tokens or limit)).build
        self.pairs = [build(p) for p in tqdm(self.problems, desc="contexts", leave=False, disable=len(self.problems) < 2000)]
        self.accelerator = Accelerator(cpu=policy.device.type == "cpu")
        if self.params.batch_size < (processes := self.accelerator.num_processes):
            raise ValueError(f"Trainer: a batch of {self.params.batch_size} problems cannot be shared by {processes} processes")
        self.trainable = list(policy.trainable().values())
        self.optimizer = torch.optim.AdamW(self.trainable, lr=self.params.learning_rate, weight_decay=self.params.weight_decay)
        self.costs = CostModel.of(policy)
        with self.teacher.weights():
            self.teacher_costs = CostModel.of(self.teacher.policy_beside(policy))
        self.step = 0
        self.ledger = Ledger()

    def train(self, steps: int, *, progress: bool = True) -> Iterator[StepRecord]:
        """Take optimiser steps, yielding a record after each.

        Interrupting (Ctrl-C, or leaving the loop) loses the step under way and nothing else: call `train` again to go on.

        Raises:
            NonFiniteError: before the weights change; it names the step, the problems and the remedies.
            RuntimeError: when no rollout of a step is left to train on.
        """
        with tqdm(total=steps, desc="training", unit="step", disable=not progress) as bar:
            for _ in range(steps):
                record = self._step()
                bar.set_postfix(loss=f"{record.loss:.4f}")
                bar.update()
                yield record

    def _step(self) -> StepRecord:
        number, watch = self.step + 1, Stopwatch()
        with watch.phase("generate"):
            sampled = self._sample(number)
            rewards = self._judge(sampled)
        rollouts, examples = [r for _, r in sampled], self._examples(sampled, rewards)
        weights = _token_weights(examples, self.params.normalisation)
        total = self._sum_over_processes(float(sum(w.sum() for w in weights)))
        cost = self._cost_of_writing(rollouts)
        if total == 0:
            return self._idle_step(number, rollouts, rewards, cost, watch)
        groups = micro_batches(examples, self.params.token_budget or (1024 if self.policy.device.type == "cpu" else 16_384))
        for passed in range(self.params.passes):
            self.optimizer.zero_grad(set_to_none=True)
            columns = self._accumulate(number, examples, groups, weights, total, watch)
            with watch.phase("train"):
                norm = self._update(number)
            cost = cost.plus(self._cost_of_training(examples))
            if passed == 0:  # the record shows the first pass, which saw the sampler's weights
                seen, first_norm = columns, norm
        # Another process may have rollouts where this one has none left.
        loss = self._sum_over_processes(float((seen["loss"] * seen["weight"]).sum()) / total if examples else 0.0)
        self._count(cost, watch)
        metrics = step_metrics(rollouts, examples, seen, on_policy=self.source.writer == "student") | {
            **({} if rewards is None else {"reward": sum(rewards) / len(rewards)}),
            "padding": padding_share(examples, groups),
            "grad_norm": first_norm,
            "learning_rate": self._learning_rate(number),
        }
        table = build_table(examples, seen, self.policy.tokenizer)
        return StepRecord(number, loss, metrics, self.ledger, table, tuple(e.rollout for e in examples))

    def _idle_step(
        self, number: int, rollouts: list[Rollout], rewards: list[float] | None, cost: Ledger, watch: Stopwatch
    ) -> StepRecord:
        """Count a step in which the gate let no rollout through: the weights stay, and there is no loss."""
        if self.gate is None:
            raise RuntimeError(
                f"step {number}: every rollout was cut at {self.sampling.max_new_tokens} tokens and dropped; raise max_new_tokens or "
                "keep truncated rollouts"
            )
        self.step = number
        self._count(cost, watch)
        metrics = {"reward": sum(rewards) / len(rewards), "dropped": float(len(rollouts)), "grad_norm": 0.0}
        return StepRecord(number, math.nan, metrics, self.ledger, TokenTable.empty(), ())

    def _accumulate(
        self, number: int, examples: list[Example], groups: list[list[int]], weights: list[Tensor], total: float, watch: Stopwatch
    ) -> Columns:
        """Sum the whole step's gradient, micro-batch by micro-batch; return its columns in the order of the examples."""
        head = LogitHead.of(self.policy)
        columns = []
        for group in groups:
            chosen = [examples[i] for i in group]
            columns.append(self._backward(chosen, [weights[i] for i in group], total, head, watch))
            _check_finite(number, chosen, columns[-1])
        return join_columns(groups, columns, examples)

    def _problems_of_step(self, number: int) -> list[int]:
        """Return the indices of a step's problems: seeded shuffles of the whole list, one after the other, cut into batches."""
        size, chosen = len(self.problems), []
        start = (number - 1) * self.params.batch_size
        while len(chosen) < self.params.batch_size:
            epoch, offset = divmod(start + len(chosen), size)
            order = np.random.default_rng([self.params.seed, epoch]).permutation(size)
            chosen += order[offset : offset + self.params.batch_size - len(chosen)].tolist()
        return chosen

    def _sample(self, number: int) -> list[tuple[int, Rollout]]:
        """Return this process's rollouts of a step, each with the index of its problem."""
        mine = self._problems_of_step(number)[self.accelerator.process_index :: self.accelerator.num_processes]
        seed = int(np.random.SeedSequence([self.params.seed, number]).generate_state(1)[0])
        problems, pairs = [self.problems[i] for i in mine], [self.pairs[i] for i in mine]
        rollouts = self.source.write(self.sampler, self.teacher, problems, pairs, replace(self.sampling, seed=seed))
        each = 1 if self.source.writer == "text" else self.sampling.n
        owners = [i for i in mine for _ in range(each)]
        return [(i, replace(r, problem_id=self.problems[i].id)) for i, r in zip(owners, rollouts, strict=True)]

    def _judge(self, sampled: list[tuple[int, Rollout]]) -> list[float] | None:
        if self.rewards is None:
            return None
        return self.rewards([rollout for _, rollout in sampled], [self.problems[i] for i, _ in sampled])

    def _examples(self, rollouts: list[tuple[int, Rollout]], rewards: list[float] | None) -> list[Example]:
        owners, examples = [index for index, _ in rollouts], []
        kept = [True] * len(rollouts) if self.gate is None else self.gate(np.array(rewards), np.array(owners)).tolist()
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

    def _backward(self, examples: list[Example], weights: list[Tensor], total: float, head: LogitHead, watch: Stopwatch) -> Columns:
        """Add one micro-batch's share to the gradient; return its columns per token."""
        batch = build_batch(examples, self.policy.pad_id).to(self.policy.device)
        teacher = self._taught(batch, head, watch) if self.objective.needs_teacher else None
        with watch.phase("train"):
            student = score_completions(self.policy, batch.student_ids, batch.student_starts, batch.completion_mask, head)
            sampled = sampled_logprobs(examples).to(self.policy.device)
            advantage = torch.cat([torch.full((e.scored,), e.advantage, device=self.policy.device) for e in examples])
            loss, columns = self.objective(student, teacher or student, Tokens(batch.tokens, advantage, sampled))
            weight = torch.cat(weights).to(loss)
            if self.params.importance_cap is not None:
                ratio = (columns["student_logprob"] - sampled.to(weight)).exp()
                weight = weight * ratio.clamp(max=self.params.importance_cap)
            self.accelerator.backward((loss * weight).sum() / total)
        return columns | {"weight": weight}

    def _taught(self, batch: DistillBatch, head: LogitHead, watch: Stopwatch) -> CompletionStates:
        """Return the teacher's states of a micro-batch."""
        policy = self.teacher.policy_beside(self.policy)
        with watch.phase("score"), torch.inference_mode(), self.teacher.weights():
            theirs = head if policy is self.policy else LogitHead.of(policy)
            return score_completions(policy, batch.teacher_ids, batch.teacher_starts, batch.completion_mask, theirs)

    def _update(self, number: int) -> float:
        """Take the optimiser step, unless the gradient is no number; return the gradient's norm before clipping."""
        for p in self.trainable:
            if p.grad is None:  # this process had no rollout, or the parameter was not used
                p.grad = torch.zeros_like(p)
            p.grad = self.accelerator.reduce(p.grad, "sum")
        norm = float(torch.nn.utils.clip_grad_norm_(self.trainable, self.params.max_grad_norm))
        if not math.isfinite(norm):
            raise NonFiniteError(f"step {number}: the gradient's norm is {norm}; {REMEDY}")
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate(number)
        with uninterrupted():
            self.optimizer.step()
            self.teacher.update()
            self.sampler.update(self.policy)
            self.step = number
        return norm

    def _learning_rate(self, number: int) -> float:
        return self.params.learning_rate * min(1.0, number / (self.params.warmup_steps + 1))

    def _sum_over_processes(self, value: float) -> float:
        if self.accelerator.num_processes == 1:
            return value
        return float(self.accelerator.reduce(torch.tensor(value, dtype=torch.float64, device=self.policy.device), "sum"))


def _check_finite(number: int, examples: list[Example], columns: Columns) -> None:
    bad = (~columns["loss"].isfinite()).nonzero()[:, 0].tolist()
    if bad:
        owners = [e.rollout.problem_id for e in examples for _ in range(e.scored)]
        names = sorted({owners[i] for i in bad})
        raise NonFiniteError(
            f"step {number}: {len(bad)} token losses are not finite, in the rollouts of problems {names[:5]}; {REMEDY}"
        )


def _token_weights(examples: list[Example], normalisation: Normalisation) -> list[Tensor]:
    """Return each example's token weights [scored]: 1, or 1 over its length, so that every rollout weighs the same."""
    return [torch.full((e.scored,), 1.0 if normalisation == "token" else 1.0 / e.scored) for e in examples]
