import pytest
import torch
from torch import nn

from opsd_lab.training.optimizer import MasterAdamW

SMALL = 1e-5  # a learning rate far below the rounding of bfloat16 weights of about .1


def weights(dtype: torch.dtype) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter((0.1 * torch.randn(6, 5, generator=generator)).bfloat16().to(dtype)) for _ in range(2)]


def train(optimizer: MasterAdamW, parameters: list[nn.Parameter], start: int, steps: int) -> None:
    for step in range(start, start + steps):
        generator = torch.Generator().manual_seed(step)
        optimizer.zero_grad()
        for p in parameters:
            p.grad = torch.ones_like(p) + 0.1 * torch.randn(p.shape, generator=generator).to(p)
        optimizer.step()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_steps_below_the_rounding_of_half_precision_add_up(dtype):
    parameters, exact = weights(dtype), weights(torch.float32)
    train(MasterAdamW(parameters, lr=SMALL, weight_decay=0.0), parameters, 0, 100)
    train(MasterAdamW(exact, lr=SMALL, weight_decay=0.0), exact, 0, 100)
    for p, wide, before in zip(parameters, exact, weights(torch.float32), strict=True):
        assert (wide - before).abs().min() > 5e-4
        torch.testing.assert_close(p.float(), wide.to(dtype).float(), atol=2e-3, rtol=0)
        assert (p.float() != before).float().mean() > 0.8


def test_float32_weights_train_as_with_torchs_own():
    ours, theirs = weights(torch.float32), weights(torch.float32)
    train(MasterAdamW(ours, lr=1e-3, weight_decay=0.1), ours, 0, 5)
    train(torch.optim.AdamW(theirs, lr=1e-3, weight_decay=0.1), theirs, 0, 5)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_state_taken_back_goes_on_exactly():
    whole, parted = weights(torch.bfloat16), weights(torch.bfloat16)
    train(MasterAdamW(whole, lr=SMALL, weight_decay=0.0), whole, 0, 60)
    first = MasterAdamW(parted, lr=SMALL, weight_decay=0.0)
    train(first, parted, 0, 30)
    state = {
        index: {name: torch.as_tensor(v).clone() for name, v in values.items()}
        for index, values in first.state_dict()["state"].items()
    }
    second = MasterAdamW(parted, lr=SMALL, weight_decay=0.0)
    second.load_state_dict({"state": state, "param_groups": second.state_dict()["param_groups"]})
    train(second, parted, 30, 30)
    assert all(torch.equal(a, b) for a, b in zip(whole, parted, strict=True))


def test_gradients_are_forgotten_on_the_weights_themselves():
    parameters = weights(torch.bfloat16)
    optimizer = MasterAdamW(parameters, lr=SMALL, weight_decay=0.0)
    train(optimizer, parameters, 0, 1)
    optimizer.zero_grad()
    assert all(p.grad is None for p in parameters)
