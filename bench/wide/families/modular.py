"""Arithmetic modulo a prime by a Transformer of one block: a plateau, then it is understood."""

import numpy as np
import torch

from bench.wide.families.networks import Encoder
from bench.wide.task import Array, Size, Version, WideTask, arrays, npz, traced


def task(version: Version, size: Size) -> WideTask:
    """Return a + b mod 59; judged: a² + ab mod 47 by a narrower network."""
    tiny = size == "tiny"
    if version == "development":
        p, width, heads, steps, batch = 59, 64, 4, 2000, 256
    else:
        p, width, heads, steps, batch = 47, 48, 2, 2500, 200
    if tiny:
        p, width, steps = 11, 16, 20
    table = _sums(p) if version == "development" else _forms(p)
    samples = len(table["x_train"])
    return WideTask(
        "modular",
        version,
        lambda: traced(
            Encoder(p + 1, 3, width, heads, 1, p, last=True), torch.zeros(2, 3, dtype=torch.int64)
        ),
        npz(inputs="tokens", task="classification"),
        steps=steps,
        batch_size=min(batch, samples),
        train_samples=samples,
        write=arrays(lambda _: table),
    )


def _sums(p: int) -> dict[str, Array]:
    a, b = (each.ravel() for each in np.meshgrid(np.arange(p), np.arange(p)))
    return _table(p, a, b, (a + b) % p, 201)


def _forms(p: int) -> dict[str, Array]:
    a, b = (each.ravel() for each in np.meshgrid(np.arange(p), np.arange(p)))
    return _table(p, a, b, (a * a + a * b) % p, 9201)


def _table(p: int, a: Array, b: Array, y: Array, seed: int) -> dict[str, Array]:
    """Return four fifths of all pairs for training; the third token says that an answer is due."""
    x = np.stack([a, b, np.full_like(a, p)], 1)
    order = np.random.RandomState(seed).permutation(len(x))
    cut = len(x) * 4 // 5
    train, test = order[:cut], order[cut:]
    return {"x_train": x[train], "y_train": y[train], "x_test": x[test], "y_test": y[test]}
