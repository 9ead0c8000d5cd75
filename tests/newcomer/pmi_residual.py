from dataclasses import dataclass

from opsd_lab import Side


@dataclass(frozen=True)
class PMIResidual:
    bound: float = 10.0
    beta: float = 1.0

    def __call__(self, student, teachers):
        residual = teachers["both"].logprobs - teachers["solution"].logprobs
        centred = residual - residual.mean(-1, keepdim=True)
        return Side(teachers["question"].logprobs + self.bound * (centred / self.bound).tanh() / self.beta)
