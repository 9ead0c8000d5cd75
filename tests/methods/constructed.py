"""Constructed tokens, on which a recipe's whole loss and gradient can be held against a formula in float64."""

from dataclasses import replace
from typing import NamedTuple

import torch

from opsd_lab.basics.schedules import at_step
from opsd_lab.objectives import Tokens
from opsd_lab.objectives.marks import signal_of
from opsd_lab.objectives.weights import divided_out, weigh
from opsd_lab.policies.head import LogitHead
from opsd_lab.scoring.forward import CompletionStates
from opsd_lab.scoring.pipeline import known_columns, token_losses

N, H, V = 24, 6, 151
ROLLOUT = torch.tensor([0] * 6 + [1] * 8 + [2] * 4 + [3] * 6)
POSITION = torch.cat([torch.arange(int(n)) for n in torch.bincount(ROLLOUT)])
LENGTH = torch.bincount(ROLLOUT)[ROLLOUT]
ADVANTAGE = torch.tensor([-0.7, 1.4, -0.7, 0.4])[ROLLOUT]
OUTCOME = torch.tensor([0.0, 1.0, 0.0, 1.0])[ROLLOUT]
SOURCE = torch.tensor([0, 0, 1, 1])[ROLLOUT]
SENTENCE = torch.tensor([0, 0, 1, 1, 2, 2, 0, 0, 0, 1, 1, 2, 3, 3, 0, 0, 0, 1, 0, 1, 1, 1, 2, 2])
VERDICT = torch.tensor([0, 1, 1, -1, -1, 0, 1, 1, 1, 0, 0, -1, -1, 0, 0, 0, -1, -1, 1, 0, 0, 1, 1, 1])
UNSEEN = {"wrong 1": ROLLOUT == 3, "right 1": ROLLOUT == 0, "wrong 0": ROLLOUT == 2, "wrong": ROLLOUT == 2, "wrong 3": ROLLOUT >= 1}
UNSEEN |= {"wrong 2": ROLLOUT >= 2}
MARKS = {"sentence": SENTENCE.float(), "verdict": VERDICT.float(), "teacher logprob": -0.3 - torch.arange(N) % 5 / 2}


class Constructed(NamedTuple):
    """Log-probabilities of all sides in float64, the student's with a gradient to `hidden`, and the tokens."""

    s: torch.Tensor
    t: dict[str, torch.Tensor]
    tokens: Tokens
    hidden: torch.Tensor

    def of(self, logps: torch.Tensor) -> torch.Tensor:
        return logps.gather(-1, self.tokens.ids[:, None])[:, 0]

    @property
    def gap(self) -> torch.Tensor:
        """D of the only view, or of the one that is called so."""
        side = next(iter(self.t.values())) if len(self.t) == 1 else self.t["teacher"]
        return self.of(side) - self.of(self.s).detach()

    def seen(self, view: str) -> torch.Tensor:
        return self.tokens.seen[view]


def evaluated(recipe, step=1, spread=0.5):
    """Return the recipe's loss on constructed tokens, its gradient by the student's states, its columns, and the case in float64."""
    generator = torch.Generator().manual_seed(7)
    head = torch.nn.Linear(H, V, bias=False).requires_grad_(False)
    head.weight.copy_(torch.randn(V, H, generator=generator))
    student = torch.randn(N, H, generator=generator, requires_grad=True)
    views = list(recipe.view) if isinstance(recipe.view, dict) else ["teacher"]
    hidden = {name: student.detach() + spread * torch.randn(N, H, generator=generator) for name in views}
    logps = (student.detach() @ head.weight.T).log_softmax(-1)
    ids = torch.multinomial(logps.exp(), 1, generator=generator)[:, 0]
    sampled = logps.gather(-1, ids[:, None])[:, 0] + 0.3 * torch.randn(N, generator=generator)
    rest = {"outcome": OUTCOME, "pass_rate": torch.full((N,), 0.5), "sampled_logprob": sampled, "source": SOURCE}
    seen = {name: ~UNSEEN.get(name, torch.zeros(N, dtype=torch.bool)) for name in views}
    marked = {name: MARKS[name] for name in recipe.marks} | {name: torch.zeros(N) for name in recipe.signals}
    places = {"rollout": ROLLOUT, "position": POSITION, "length": LENGTH, "advantage": ADVANTAGE}
    tokens = Tokens(ids, **places, **rest, seen=seen, marked=marked)
    objective = at_step(recipe.objective, step)
    states = {name: CompletionStates(values, LogitHead(head)) for name, values in hidden.items()}
    ours = CompletionStates(student, LogitHead(head))
    if recipe.signals:
        columns = token_losses(objective, ours, states, tokens).readings[""] | known_columns(tokens)
        signals = {name: signal_of(signal, name, columns) for name, signal in recipe.signals.items()}
        tokens = replace(tokens, marked={**tokens.marked, **signals})
    scored = token_losses(objective, ours, states, tokens)
    columns, counts = scored.readings[""] | known_columns(tokens), objective.counts(tokens).float()
    weights = at_step(recipe.weights, step)
    weight = counts if weights is None else counts * weigh(weights, columns)
    total = (weight if divided_out(weights) else counts).sum()
    loss = (scored.loss * weight).sum() / total
    (gradient,) = torch.autograd.grad(loss, student)
    double = student.detach().double().requires_grad_()
    matrix = head.weight.double().T
    sides = {name: (values.double() @ matrix).log_softmax(-1) for name, values in hidden.items()}
    return (
        loss,
        gradient,
        columns | scored.readings[""] | {"weight": weight},
        Constructed((double @ matrix).log_softmax(-1), sides, tokens, double),
    )


def assert_is(recipe, formula, step=1, **options):
    """Hold a recipe's loss and gradient against a formula of the constructed case in float64."""
    loss, gradient, columns, case = evaluated(recipe, step, **options)
    expected = formula(case)
    (by_hand,) = torch.autograd.grad(expected, case.hidden)
    torch.testing.assert_close(loss.double(), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradient.double(), by_hand, atol=1e-5, rtol=1e-4)
    return columns
