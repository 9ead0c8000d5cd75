"""AdamW that loses no update to the rounding of half-precision weights."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

HALF = (torch.bfloat16, torch.float16)


class MasterAdamW(torch.optim.AdamW):
    """AdamW over float32 copies of those parameters that are in half precision; the others are updated themselves.

    A bfloat16 number has 8 significant bits, so that a step of 1e-5 beside a weight of .02 is rounded away. The copies take the
    steps, with float32 moments, and the parameters are the copies rounded. They need 4 bytes a parameter more, and belong to the
    state that a checkpoint holds.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], *, lr: float, weight_decay: float) -> None:
        self._parameters = list(parameters)
        self._masters = [nn.Parameter(p.detach().float()) if p.dtype in HALF else p for p in self._parameters]
        super().__init__(self._masters, lr=lr, weight_decay=weight_decay)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take a step by the parameters' gradients."""
        for p, master in self._copies():
            master.grad = None if p.grad is None else p.grad.float()
        loss = super().step(closure)
        for p, master in self._copies():
            master.grad = None
            p.copy_(master)
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the parameters' gradients."""
        super().zero_grad(set_to_none)
        for p, _ in self._copies():
            p.grad = None

    def state_dict(self) -> dict[str, object]:
        """Return the moments, and the float32 copies as "master" beside them."""
        state = super().state_dict()
        for index, (p, master) in enumerate(zip(self._parameters, self._masters, strict=True)):
            if p is not master and index in state["state"]:
                state["state"][index] = state["state"][index] | {"master": master.detach()}
        return state

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Take moments and copies back; parameters without a copy in the state, which no step has changed, are copied anew."""
        moments: dict[int, dict[str, Tensor]] = {}
        for index, (p, master) in enumerate(zip(self._parameters, self._masters, strict=True)):
            values = dict(state_dict["state"].get(index, {}))
            if p is not master:
                master.copy_(values.pop("master", p))
            if values:
                moments[index] = values
        super().load_state_dict({**state_dict, "state": moments})

    def _copies(self) -> list[tuple[nn.Parameter, nn.Parameter]]:
        return [(p, master) for p, master in zip(self._parameters, self._masters, strict=True) if p is not master]
