"""The weights that are measured and kept, where an optimizer steps from others.

Averaged weights never saw a batch, so batch norm's running statistics are not theirs: they
are taken anew from training batches before the weights are used (as for stochastic weight
averaging, Izmailov et al. 2018, and Schedule-Free, Defazio et al. 2024).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mlhf.curvature.forward_pass import evaluated
from mlhf.optimizers.protocol import Averaging, Optimizer
from mlhf.training.evaluation import Samples

# As many batches as Schedule-Free's authors advise.
_BATCHES = 50


@contextmanager
def averaged(
    model: nn.Module, optimizer: Optimizer, data: Samples, device: torch.device, batch_size: int
) -> Iterator[None]:
    """Put the weights to be measured into the model for the ``with`` block, if they differ.

    Everything is bit for bit as before afterwards, and no random number is drawn.
    """
    if not isinstance(optimizer, Averaging):
        yield
        return
    before = [(b, b.clone()) for layer in _normalizing(model) for b in layer.buffers()]
    keep_average(model, optimizer, data, device, batch_size)
    try:
        yield
    finally:
        optimizer.train_mode()
        for buffer, value in before:
            buffer.copy_(value)


def keep_average(
    model: nn.Module, optimizer: Optimizer, data: Samples, device: torch.device, batch_size: int
) -> None:
    """Put the weights to be kept into the model, for good."""
    if isinstance(optimizer, Averaging):
        optimizer.eval_mode()
        _recalibrate(model, data, device, batch_size)


@torch.no_grad()
def _recalibrate(model: nn.Module, data: Samples, device: torch.device, batch_size: int) -> None:
    """Set batch norm's running statistics to their means over some training batches."""
    layers = _normalizing(model)
    if not layers:
        return
    was_training = model.training
    momenta = [layer.momentum for layer in layers]
    model.eval()  # no dropout
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a plain mean
        layer.train()
    size = data.size("train")
    batch_size = min(batch_size, size)
    batches = min(_BATCHES, size // batch_size)
    indices = torch.arange(batches * batch_size) * size // (batches * batch_size)
    try:
        # Each batch is spread over the whole split, which may be sorted.
        for batch in indices.view(batch_size, batches).T:
            evaluated(model, data.batch("train", batch, device)[0])
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        model.train(was_training)


def _normalizing(model: nn.Module) -> list[_BatchNorm]:
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
