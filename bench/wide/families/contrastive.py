"""Contrastive learning (InfoNCE): which of a group's views shows the same image.

A sample is a group of pairs of views, the second ones in another order. The loss is the
cross-entropy of their similarities, within the group, so that samples do not depend on others.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.wide.families.images import Source, chosen, images
from bench.wide.task import Array, Size, Version, WideTask, arrays, npz, traced

_SIDE = 14


def task(version: Version, size: Size) -> WideTask:
    """Return groups of 16 digits at temperature 0.2; judged: 24 clothes at 0.1, a deeper one."""
    tiny = size == "tiny"
    source: Source = "mnist" if version == "development" else "fashion_mnist"
    channels: tuple[int, ...] = (8, 16) if version == "development" else (8, 16, 16)
    if version == "development":
        group, code, heat, seed, batch = 16, 32, 0.2, 601, 8
    else:
        group, code, heat, seed, batch = 24, 24, 0.1, 9601, 5
    group = 4 if tiny else group
    samples = 40 if tiny else 600
    example = torch.randn(2, group, 2 * _SIDE * _SIDE)
    return WideTask(
        "contrastive",
        version,
        lambda: traced(_Siamese(group, channels, code, heat), example),
        npz(inputs="sequence", task="classification"),
        steps=10 if tiny else 600,
        batch_size=batch,
        train_samples=samples,
        write=arrays(lambda data: _groups(data, source, group, samples, seed)),
        needs=("mnist",) if source == "mnist" else (),
    )


class _Siamese(nn.Module):
    """A convolutional encoder of both views, and the similarities of all pairs."""

    def __init__(self, group: int, channels: tuple[int, ...], code: int, heat: float) -> None:
        super().__init__()
        self.group, self.heat = group, heat
        layers: list[nn.Module] = []
        before, side = 1, _SIDE
        for at, count in enumerate(channels):
            layers += [nn.Conv2d(before, count, 3, padding=1), nn.ReLU()]
            if at < 2:
                layers.append(nn.MaxPool2d(2))
                side //= 2
            before = count
        flat = before * side * side
        self.encoder = nn.Sequential(*layers, nn.Flatten(), nn.Linear(flat, 64), nn.ReLU())
        self.code = nn.Linear(64, code)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, group, 2·pixels) to similarities (B, group, group)."""
        views = x.reshape(-1, 1, _SIDE, _SIDE)
        codes = F.normalize(self.code(self.encoder(views)), dim=-1)
        first, second = codes.view(-1, self.group, 2, codes.shape[-1]).unbind(2)
        return first @ second.transpose(1, 2) / self.heat


def _groups(data: Path, source: Source, group: int, samples: int, seed: int) -> dict[str, Array]:
    pixels, _ = images(data, source, _SIDE)
    count = samples + 60
    (pixels,) = chosen(count * group, seed, pixels)
    random = np.random.RandomState(seed)
    first, second = _view(pixels, random), _view(pixels, random)
    order = random.random_sample((count, group)).argsort(1)  # place → image of the second views
    second = np.take_along_axis(second.reshape(count, group, -1), order[..., None], 1)
    x = np.concatenate([first.reshape(count, group, -1), second], 2)
    y = order.argsort(1)  # image → place
    return {
        "x_train": x[:samples],
        "y_train": y[:samples],
        "x_test": x[samples:],
        "y_test": y[samples:],
    }


def _view(pixels: Array, random: np.random.RandomState) -> Array:
    """Return each image moved by up to two pixels, brighter or darker, with noise."""
    count = len(pixels)
    wide = np.pad(pixels.astype(np.float32) / 255, ((0, 0), (2, 2), (2, 2)))
    rows = random.randint(5, size=(count, 1)) + np.arange(_SIDE)
    columns = random.randint(5, size=(count, 1)) + np.arange(_SIDE)
    moved = wide[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    light = 0.6 + 0.8 * random.random_sample((count, 1, 1))
    noisy = moved * light + 0.15 * random.normal(size=moved.shape)
    views: Array = noisy.astype(np.float32)
    return views
