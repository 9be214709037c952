"""Sorting by a Transformer: each place gives the token that comes there in order."""

import numpy as np
import torch

from bench.wide.families.networks import Encoder
from bench.wide.task import Array, Size, Version, WideTask, arrays, npz, traced


def task(version: Version, size: Size) -> WideTask:
    """Return 12 of 16 tokens rising; judged: 10 of 24 falling, by two blocks."""
    tiny = size == "tiny"
    if version == "development":
        length, words, width, heads, blocks, seed, steps = 12, 16, 32, 2, 1, 301, 1200
    else:
        length, words, width, heads, blocks, seed, steps = 10, 24, 24, 3, 2, 9301, 1000
    samples = 200 if tiny else 8000
    return WideTask(
        "sorting",
        version,
        lambda: traced(
            Encoder(words, length, width, heads, blocks, words),
            torch.zeros(2, length, dtype=torch.int64),
        ),
        npz(inputs="tokens", task="classification"),
        steps=20 if tiny else steps,
        batch_size=64,
        train_samples=samples,
        write=arrays(lambda _: _sequences(length, words, samples, seed, version == "judged")),
    )


def _sequences(length: int, words: int, samples: int, seed: int, falling: bool) -> dict[str, Array]:
    x = np.random.RandomState(seed).randint(words, size=(samples + 1000, length))
    x[0, :2] = 0, words - 1  # both ends of the vocabulary occur
    y = np.sort(x, 1)
    y = y[:, ::-1] if falling else y
    return {
        "x_train": x[:samples],
        "y_train": np.ascontiguousarray(y[:samples]),
        "x_test": x[samples:],
        "y_test": np.ascontiguousarray(y[samples:]),
    }
