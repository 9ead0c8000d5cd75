"""Maximum likelihood of given tokens."""

from dataclasses import dataclass

import torch
from torch import Tensor

from opsd_lab.divergences import Side
from opsd_lab.objectives.objective import Losses, Objective, through_token
from opsd_lab.objectives.tokens import Teachers, Tokens


@dataclass(frozen=True)
class SFT(Objective):
    """Maximum likelihood: the loss of a token is -log p_student(y), in nats. It has no teacher."""

    needs_teacher = False

    def loss(self, student: Side, teachers: Teachers, tokens: Tokens) -> Tensor:
        """Return the negative log-likelihoods of a few tokens [n]."""
        return -student.of(tokens.ids)

    def losses_and_slopes(self, student: Side, teachers: Teachers, tokens: Tokens) -> Losses:
        """Return the negative log-likelihoods and their slopes."""
        loss = self.loss(student, teachers, tokens)
        return Losses(loss, through_token(student, tokens.ids, torch.full_like(loss, -1.0)))
