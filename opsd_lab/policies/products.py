"""Products of a few rows with a layer's weights on a processor, in the form that this processor computes fastest.

A product can be asked of the linear algebra libraries in several forms. For few rows one can take half of another's time, and which
one depends on the processor, its threads and the shape. So each form is timed once for a shape, and the choice is kept in the
cache folder by the name of the machine. The values differ by float32 rounding alone.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsd_lab.basics.files import write_whole
from opsd_lab.policies.gguf_files import cache_root

LEAST = 2**18  # entries of a matrix: for smaller ones no form is worth a measurement
MOST = 256  # rows: with more, the forms come closer to each other
CHUNK = 2**13  # columns that are multiplied at a time where the result has a place already, so that they stay in the cache
ROUNDS = 5


def _columns(rows: Tensor, weight: Tensor) -> Tensor:
    return torch.mm(weight, rows.T).T


def _onednn(rows: Tensor, weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(rows, weight, None, "none", [], "")


@cache
def forms() -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """Return the forms that this installation has: each multiplies rows [n, H] with a weight [V, H] into [n, V]."""
    found = {"rows": F.linear, "columns": _columns}
    try:  # an operator that PyTorch's compiler uses; nothing promises that it stays
        _onednn(torch.ones(2, 16), torch.ones(16, 16))
        found["oneDNN"] = _onednn
    except (AttributeError, RuntimeError, NotImplementedError):
        pass
    return found


def multiply(rows: Tensor, weight: Tensor, out: Tensor | None = None) -> Tensor:
    """Return the product of float32 rows [n, H] and a weight [V, H], in `out` [n, V] where it is given; no gradient is kept."""
    name = choice(len(rows), weight)
    if name == "rows":
        return F.linear(rows, weight) if out is None else torch.mm(rows, weight.T, out=out)
    form = forms()[name]
    if out is None:
        return form(rows, weight).contiguous()
    for start in range(0, len(weight), CHUNK):
        out[:, start : start + CHUNK] = form(rows, weight[start : start + CHUNK])
    return out


def choice(count: int, weight: Tensor) -> str:
    """Return the name of the form in which `count` rows are multiplied with a weight on this machine; timed on first use."""
    if count > MOST or weight.numel() < LEAST or not weight.is_contiguous() or weight.device.type != "cpu" or count == 0:
        return "rows"
    bucket = 1 << (count - 1).bit_length()
    known, shape = _known(machine_name()), f"{bucket} x {weight.shape[1]} x {weight.shape[0]}"
    if shape not in known:
        known[shape] = _fastest(bucket, weight)
        _keep(machine_name(), known)
    return known[shape]


def choices() -> dict[str, dict[str, str]]:
    """Return the forms that this machine takes, by rows x columns of the weight x its rows, under the machine's name."""
    return {machine_name(): dict(sorted(_known(machine_name()).items()))}


def machine_name() -> str:
    """Return what the choices depend on: processor, threads, PyTorch."""
    abilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    name = abilities.get("cpu_name") or torch.backends.cpu.get_cpu_capability()
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"


@torch.inference_mode()
def _fastest(count: int, weight: Tensor) -> str:
    """Return the form that took the least time in one of `ROUNDS` alternating rounds."""
    rows, seconds = torch.ones(count, weight.shape[1]), dict.fromkeys(forms(), float("inf"))
    for _ in range(ROUNDS):
        for name, form in forms().items():
            start = time.perf_counter()
            form(rows, weight).contiguous()
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return min(seconds, key=seconds.get)


def _read() -> dict[str, dict[str, str]]:
    try:
        found = json.loads((cache_root() / "products.json").read_text(encoding="utf-8"))
        return {name: {s: f for s, f in shapes.items() if f in forms()} for name, shapes in found.items()}
    except (OSError, ValueError, AttributeError, TypeError):  # not there, or no longer what was written: it is measured anew
        return {}


@cache
def _known(machine: str) -> dict[str, str]:
    return _read().get(machine, {})


def _keep(machine: str, known: dict[str, str]) -> None:
    """Add the choices to the file; what another process chose meanwhile stands, so that all of a machine compute alike."""
    kept = _read()
    known.update(kept.get(machine, {}))
    text = json.dumps({**kept, machine: known}, indent=1) + "\n"
    try:
        cache_root().mkdir(parents=True, exist_ok=True)
        write_whole(cache_root() / "products.json", text)
    except OSError:  # a cache that cannot be written costs another measurement, and nothing else
        pass


@contextmanager
def few_row_products(model: nn.Module) -> Iterator[None]:
    """Compute the model's plain float32 layers on a processor by `multiply` inside the block, where it has few rows at a time."""
    changed = [m for m in model.modules() if type(m) is nn.Linear and "forward" not in vars(m) and _suits(m.weight)]
    for module in changed:
        module.forward = partial(_forward, module)
    try:
        yield
    finally:
        for module in changed:
            del module.forward


def _suits(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and weight.numel() >= LEAST


def _forward(module: nn.Linear, hidden: Tensor) -> Tensor:
    if torch.is_grad_enabled() or hidden.dtype != torch.float32 or hidden.shape[:-1].numel() > MOST:
        return F.linear(hidden, module.weight, module.bias)
    found = multiply(hidden.flatten(0, -2), module.weight).unflatten(0, hidden.shape[:-1])
    return found if module.bias is None else found.add_(module.bias)
