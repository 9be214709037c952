"""A small data set in MNIST's format."""

import struct
from pathlib import Path

import numpy as np


def write_mnist(folder: Path, images: int = 40) -> None:
    """Write training and test images of noise, with labels."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for prefix in ("train", "t10k"):
        pixels = random.integers(0, 256, (images, 28, 28), dtype=np.uint8)
        labels = (np.arange(images) % 10).astype(np.uint8)
        for name, array in (
            (f"{prefix}-images-idx3-ubyte", pixels),
            (f"{prefix}-labels-idx1-ubyte", labels),
        ):
            header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
            (folder / name).write_bytes(header + array.tobytes())
