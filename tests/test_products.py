"""Products in whichever form: the same values, one choice for a machine, and nothing left behind."""

import json

import pytest
import torch
from torch import nn

from opsd_lab.policies import products
from opsd_lab.policies.products import choice, few_row_products, forms, multiply


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    monkeypatch.setenv("OPSD_LAB_CACHE", str(tmp_path))
    monkeypatch.setattr(products, "LEAST", 2**10)
    products._known.cache_clear()
    yield tmp_path
    products._known.cache_clear()


def case(rows: int, hidden: int = 48, size: int = 9001):
    generator = torch.Generator().manual_seed(rows)
    return torch.randn(rows, hidden, generator=generator), torch.randn(size, hidden, generator=generator)


@pytest.mark.parametrize("rows", [1, 2, 5, 64, 200, 300])
@pytest.mark.parametrize("name", list(forms()))
def test_every_form_is_the_product_in_float64(name, rows, monkeypatch):
    monkeypatch.setattr(products, "_fastest", lambda count, weight: name)
    hidden, weight = case(rows)
    exact = hidden.double() @ weight.double().T
    out = torch.full((rows, len(weight)), float("nan"))
    assert multiply(hidden, weight, out) is out
    for found in (multiply(hidden, weight), out):
        assert found.is_contiguous()
        torch.testing.assert_close(found.double(), exact, atol=1e-4, rtol=1e-5)


def test_a_shape_is_timed_once_and_a_later_process_takes_the_same_form(fresh, monkeypatch):
    _, weight = case(1)
    timed = []
    monkeypatch.setattr(products, "_fastest", lambda count, weight: timed.append(count) or "columns")
    assert [choice(count, weight) for count in (3, 4, 4, 5)] == ["columns"] * 4 and timed == [4, 8]
    products._known.cache_clear()  # as in another process
    assert choice(3, weight) == "columns" and timed == [4, 8]
    (kept,) = json.loads((fresh / "products.json").read_text()).values()
    assert kept == {"4 x 48 x 9001": "columns", "8 x 48 x 9001": "columns"}


def test_what_another_process_chose_meanwhile_stands(fresh, monkeypatch):
    _, weight = case(1)
    monkeypatch.setattr(products, "_fastest", lambda count, weight: "rows")
    assert choice(2, weight) == "rows"
    theirs = {products.machine_name(): {"16 x 48 x 9001": "columns"}, "another machine": {"16 x 48 x 9001": "rows"}}
    (fresh / "products.json").write_text(json.dumps(theirs))
    assert choice(16, weight) == "columns"
    assert json.loads((fresh / "products.json").read_text())["another machine"] == {"16 x 48 x 9001": "rows"}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"x": 3}', '{"x": {"2 x 48 x 9001": "a form of the past"}}'])
def test_a_damaged_file_of_choices_is_measured_anew(fresh, text):
    (fresh / "products.json").write_text(text)
    assert choice(2, case(1)[1]) in forms()


def test_a_cache_that_cannot_be_written_changes_nothing(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OPSD_LAB_CACHE", str(tmp_path / "file" / "folder"))
    hidden, weight = case(3)
    torch.testing.assert_close(multiply(hidden, weight), hidden @ weight.T, atol=1e-4, rtol=1e-5)


def test_small_half_turned_and_tall_products_are_not_timed(monkeypatch):
    monkeypatch.setattr(products, "_fastest", lambda *_: pytest.fail("timed"))
    _, weight = case(1)
    assert choice(products.MOST + 1, weight) == choice(4, weight[:8]) == choice(4, weight.T) == choice(0, weight) == "rows"


def test_the_layers_of_a_model_compute_the_same_inside_and_are_as_before_afterwards(monkeypatch):
    monkeypatch.setattr(products, "_fastest", lambda *_: "columns")
    model = nn.Sequential(nn.Linear(48, 64), nn.ReLU(), nn.Linear(64, 48, bias=False), nn.Linear(48, 4)).requires_grad_(False)
    model.append(nn.Linear(4, 512).bfloat16())
    asked, ways = torch.randn(2, 3, 48), []
    monkeypatch.setitem(forms(), "columns", lambda rows, weight: ways.append(len(rows)) or products._columns(rows, weight))
    with torch.no_grad():
        expected = model[:4](asked)
        with pytest.raises(KeyboardInterrupt), few_row_products(model):
            torch.testing.assert_close(model[:4](asked), expected, atol=1e-5, rtol=1e-5)
            assert ways == [6, 6]
            raise KeyboardInterrupt
        assert torch.equal(model[:4](asked), expected) and ways == [6, 6]
    assert not any("forward" in vars(module) for module in model)


def test_a_gradient_is_not_lost_inside():
    layer = nn.Linear(48, 64)
    asked = torch.randn(2, 48, requires_grad=True)
    with few_row_products(layer):
        layer(asked).sum().backward()
    torch.testing.assert_close(asked.grad, layer.weight.sum(0).expand(2, -1))
