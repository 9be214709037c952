"""Deep autoencoders: the task that made Hessian-free known (Martens 2010), and a shallower one."""

from itertools import pairwise
from pathlib import Path

from torch import nn

from bench.wide.families.images import chosen, images
from bench.wide.task import Array, Size, Version, WideTask, arrays, npz, traced
from mlhf.core.config import Component


def task(version: Version, size: Size) -> WideTask:
    """Return 784-400-200-100-30 and back, tanh, on the bits of MNIST's pixels by cross-entropy;

    judged: 784-300-100-12 and back, GELU, on Fashion-MNIST's grey values by squared error.
    """
    tiny = size == "tiny"
    samples = 300 if tiny else 10_000
    if version == "development":
        widths = [784, 40, 10] if tiny else [784, 400, 200, 100, 30]
        return WideTask(
            "autoencoder",
            version,
            lambda: _network(widths, nn.Tanh),
            npz(task="multilabel"),
            steps=20 if tiny else 400,
            batch_size=128,
            train_samples=samples,
            write=arrays(lambda data: _bits(data, samples)),
            needs=("mnist",),
        )
    inner = [784, 30, 12] if tiny else [784, 300, 100, 12]
    return WideTask(
        "autoencoder",
        version,
        lambda: _network(inner, nn.GELU),
        npz(task="regression"),
        steps=20 if tiny else 450,
        batch_size=100,
        train_samples=samples,
        write=arrays(lambda data: _grey(data, samples)),
    )


def _network(widths: list[int], activation: type[nn.Module]) -> Component:
    import torch

    sizes = [*widths, *widths[-2::-1]]
    layers: list[nn.Module] = []
    for at, (a, b) in enumerate(pairwise(sizes)):
        layers.append(nn.Linear(a, b))
        linear = at in (len(widths) - 2, len(sizes) - 2)  # the code and the output
        layers += [] if linear else [activation()]
    return traced(nn.Sequential(*layers), torch.randn(2, widths[0]))


def _bits(data: Path, samples: int) -> dict[str, Array]:
    pixels, _ = images(data, "mnist", 28)
    (flat,) = chosen(samples + 1000, 101, pixels.reshape(-1, 784))
    bits = (flat > 127).astype("float32")
    return _split(bits, bits.astype("int64"), samples)


def _grey(data: Path, samples: int) -> dict[str, Array]:
    pixels, _ = images(data, "fashion_mnist", 28)
    (flat,) = chosen(samples + 1000, 9101, pixels.reshape(-1, 784))
    grey = flat.astype("float32") / 255
    return _split(grey, grey, samples)


def _split(x: Array, y: Array, samples: int) -> dict[str, Array]:
    return {
        "x_train": x[:samples],
        "y_train": y[:samples],
        "x_test": x[samples:],
        "y_test": y[samples:],
    }
