"""Gradient checkpointing in evaluation mode, in which transformers leaves it out."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import set_checkpoint_early_stop
from transformers import GradientCheckpointingLayer, PreTrainedModel

from opsd_lab.basics.interrupts import deferred_interrupts


@contextmanager
def recomputed_layers(model: PreTrainedModel) -> Iterator[None]:
    """Let the layers that have gradient checkpointing switched on act upon it inside the block, without dropout.

    Such a layer keeps its input alone and is computed again during the backward pass: less memory for a third more time. transformers
    does so only for a layer in training mode, so each is put there, and back before anything of it is computed. Without gradients
    nothing is kept anyway, and the block changes nothing.

    Raises:
        ValueError: when checkpointing is on in a part of the model that is no `GradientCheckpointingLayer`, where it would be left
            out; when it is reentrant, which gives a LoRA no gradient.
    """
    if not torch.is_grad_enabled() or not model.is_gradient_checkpointing:
        yield
        return
    found = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer) and m.gradient_checkpointing]
    within = {inner for layer in found for inner in layer.modules() if inner is not layer}
    layers = [layer for layer in found if layer not in within]
    kept = [layer._gradient_checkpointing_func for layer in layers]
    if not layers:
        raise ValueError(
            f"gradient checkpointing is on, but {type(model).__name__} does it in training mode only, with dropout; call "
            "model.gradient_checkpointing_disable() and lower the trainer's token_budget to save memory"
        )
    if any(getattr(checkpoint, "keywords", {}).get("use_reentrant") for checkpoint in kept):
        raise ValueError(
            "gradient checkpointing with use_reentrant=True gives layers behind frozen embeddings no gradient; call "
            "model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={'use_reentrant': False})"
        )
    with deferred_interrupts():
        try:
            for layer, checkpoint in zip(layers, kept, strict=True):
                layer._gradient_checkpointing_func = partial(_in_evaluation, layer, checkpoint)
                layer.training = True
            # Otherwise torch breaks the second pass off inside the layer, by an exception that hooks on modules never hear of.
            with set_checkpoint_early_stop(False):
                yield
        finally:
            for layer, checkpoint in zip(layers, kept, strict=True):
                layer._gradient_checkpointing_func = checkpoint
                layer.training = False


def _in_evaluation(layer: nn.Module, checkpoint: Callable[..., Tensor], forward: Callable[..., Tensor], *inputs: object) -> Tensor:
    layer.training = False
    try:
        return checkpoint(forward, *inputs)
    finally:
        layer.training = True
