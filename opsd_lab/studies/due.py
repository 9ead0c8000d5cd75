"""When the run of a cell is evaluated, and when it is over: at fixed steps, or at fixed operations."""

import math

from opsd_lab.training.ledger import Ledger


class Due:
    """Counts how far a run is: `checkpoints` are steps, the last of which ends it; `operations` take their place where there are any.

    Evaluated is then the first step at which the ledger has as many floating-point operations as the next of them; the last ends
    the run, or the last of the checkpoints does.
    """

    def __init__(self, checkpoints: tuple[int, ...], operations: tuple[float, ...] = ()) -> None:
        self._checkpoints, self._operations = checkpoints, operations
        self._reached, self.over = 0, False

    def now(self, step: int, ledger: Ledger) -> bool:
        """Return whether to evaluate after a step, at which the run has cost what its ledger says; `over` says whether it ends.

        Raises:
            ValueError: when operations decide and cannot be counted (NaN).
        """
        self.over = step == self._checkpoints[-1]
        if not self._operations:
            return step in self._checkpoints
        if math.isnan(ledger.flops):
            raise ValueError("the operations of this model cannot be counted, so that none are enough; give checkpoints instead")
        reached = sum(ledger.flops >= least for least in self._operations)
        due, self._reached = reached > self._reached, reached
        self.over = self.over or reached == len(self._operations)
        return due or self.over
