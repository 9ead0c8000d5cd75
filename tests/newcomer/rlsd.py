from dataclasses import dataclass

from opsd_lab import GRPO
from opsd_lab.basics.schedules import Linear, Schedule

HALF_TO_NONE = Linear(0.5, 0.0, steps=50)


@dataclass(frozen=True)
class RLSD(GRPO):
    share: float | Schedule = HALF_TO_NONE
    width: float = 0.2
    needs_teacher = True

    def token_advantages(self, student, teachers, tokens):
        gap = teachers.only.of(tokens.ids) - student.of(tokens.ids)
        weight = (tokens.advantage.sign() * gap).exp().clamp(1 - self.width, 1 + self.width)
        return tokens.advantage * (1 - self.share + self.share * weight)
