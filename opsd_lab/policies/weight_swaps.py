"""Other weights in a model's place for a while, such that no interrupt and no exception leaves some of them behind."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

from opsd_lab.basics.interrupts import deferred_interrupts


@contextmanager
def swapped(parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Compute with `tensors` in place of the parameters of the same names inside the block; nothing is copied.

    Ctrl-C is held back meanwhile (`opsd_lab.basics.interrupts`). Afterwards each parameter has the very memory that it had before.

    Raises:
        ValueError: when names, shapes or kinds of numbers differ; nothing is swapped then.
        RuntimeError: on leaving, when something else stands where a tensor was put: the block has changed the model's weights, or
            another swap inside it was cut in half. It names the parameter.
    """
    if parameters.keys() != tensors.keys():
        raise ValueError(f"swapped: the names differ, such as {sorted(parameters.keys() ^ tensors.keys())[:3]}")
    for name, parameter in parameters.items():
        if (parameter.shape, parameter.dtype) != (tensors[name].shape, tensors[name].dtype):
            raise ValueError(
                f"swapped: {name} is {parameter.dtype} {tuple(parameter.shape)}, what shall take its place is {tensors[name].dtype} "
                f"{tuple(tensors[name].shape)}"
            )
    with deferred_interrupts():
        own = {name: parameter.data for name, parameter in parameters.items()}
        try:
            for name, parameter in parameters.items():
                parameter.data = tensors[name]
            yield
        finally:
            foreign = [name for name, parameter in parameters.items() if not _same_memory(parameter.data, tensors[name])]
            for name, parameter in parameters.items():
                parameter.data = own[name]
        if foreign:
            raise RuntimeError(
                f"{len(foreign)} weights were replaced while others stood in their place, such as {foreign[0]}; they have their own "
                "values again. Change or move a model's weights outside the block only"
            )


def _same_memory(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr() and a.shape == b.shape and a.stride() == b.stride()
