"""Dense targets: a U-Net says of each pixel what it belongs to."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.wide.families.images import Source, chosen, images
from bench.wide.task import Array, Size, Version, WideTask, arrays, npz, traced


def task(version: Version, size: Size) -> WideTask:
    """Return digits at 16x16 in noise, nearest upsampling;

    judged: clothes at 24x24 before stripes, group norm and transposed convolutions.
    """
    tiny = size == "tiny"
    samples = 100 if tiny else 3000
    if version == "development":
        side, channels = 16, (4, 8) if tiny else (8, 16, 32)
        return WideTask(
            "unet",
            version,
            lambda: traced(_UNet(channels, False), torch.randn(2, 1, side, side)),
            npz(),
            steps=10 if tiny else 600,
            batch_size=32,
            train_samples=samples,
            write=arrays(lambda data: _pictures(data, "mnist", side, samples, 501)),
            needs=("mnist",),
        )
    side, wide = 24, (4, 8) if tiny else (8, 12, 24)
    return WideTask(
        "unet",
        version,
        lambda: traced(_UNet(wide, True), torch.randn(2, 1, side, side)),
        npz(),
        steps=10 if tiny else 350,
        batch_size=24,
        train_samples=samples,
        write=arrays(lambda data: _pictures(data, "fashion_mnist", side, samples, 9501)),
    )


class _UNet(nn.Module):
    """A level for each number of channels, joined by skips; 11 classes at each pixel.

    Args:
        learned: Whether upsampling is learned, and channels are normalised in groups.
    """

    def __init__(self, channels: tuple[int, ...], learned: bool) -> None:
        super().__init__()
        self.down, self.up, self.wider = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        before = 1
        for count in channels:
            self.down.append(_double(before, count, learned))
            before = count
        for inner, outer in zip(channels[:0:-1], channels[-2::-1], strict=True):
            self.wider.append(
                nn.ConvTranspose2d(inner, inner, 2, stride=2)
                if learned
                else nn.Upsample(scale_factor=2)
            )
            self.up.append(_double(inner + outer, outer, learned))
        self.head = nn.Conv2d(channels[0], 11, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 1, H, W) to (B, 11, H, W)."""
        skips = []
        for at, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if at else x)
            skips.append(x)
        skips.pop()
        for wider, block in zip(self.wider, self.up, strict=True):
            x = block(torch.cat([wider(x), skips.pop()], 1))
        found: Tensor = self.head(x)
        return found


def _double(before: int, after: int, normed: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for count in (before, after):
        layers.append(nn.Conv2d(count, after, 3, padding=1))
        layers += [nn.GroupNorm(4, after)] if normed else []
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def _pictures(data: Path, source: Source, side: int, samples: int, seed: int) -> dict[str, Array]:
    """Return noisy pictures and the class of each pixel: 0 of the ground, else the thing's."""
    pixels, classes = images(data, source, 14 if side == 16 else 28)
    pixels, classes = chosen(samples + 500, seed, pixels, classes)
    pixels = np.pad(pixels, ((0, 0), (1, 1), (1, 1))) if side == 16 else pixels[:, 2:-2, 2:-2]
    random = np.random.RandomState(seed)
    y = np.where(pixels > 60, classes[:, None, None] + 1, 0)
    ground = random.normal(0, 40, pixels.shape)
    if source != "mnist":
        phase = random.random_sample((len(pixels), 1, 1)) * 6
        ground = ground / 2 + 60 * np.sin(phase + np.arange(side) * 0.9)
    x = np.clip(pixels + ground, 0, 255).astype(np.uint8)
    return {
        "x_train": x[:samples],
        "y_train": y[:samples],
        "x_test": x[samples:],
        "y_test": y[samples:],
    }
