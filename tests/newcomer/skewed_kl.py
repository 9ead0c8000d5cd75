from dataclasses import dataclass

from opsd_lab import Divergence


@dataclass(frozen=True)
class SkewedKL(Divergence):
    alpha: float = 0.1

    def terms(self, student, teacher):
        mixture = self.alpha * teacher.probabilities + (1 - self.alpha) * student.probabilities
        return teacher.probabilities * (teacher.logprobs - mixture.log())
