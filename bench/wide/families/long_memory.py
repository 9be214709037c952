"""Long sequences whose answer hangs on a few early steps."""

import numpy as np
import torch
from torch import Tensor, nn

from bench.wide.task import Array, Size, Version, WideTask, arrays, npz, traced


def task(version: Version, size: Size) -> WideTask:
    """Return the adding problem over 60 steps by GRU-32 (Hochreiter and Schmidhuber 1997);

    judged: the first of 80 tokens, recalled by LSTM-24.
    """
    tiny = size == "tiny"
    samples = 200 if tiny else 4000
    if version == "development":
        length = 8 if tiny else 60
        return WideTask(
            "long-memory",
            version,
            lambda: traced(_Last(nn.GRU(2, 32, batch_first=True), 1), torch.randn(2, length, 2)),
            npz(inputs="sequence", task="regression"),
            steps=20 if tiny else 900,
            batch_size=64,
            train_samples=samples,
            write=arrays(lambda _: _adding(length, samples)),
        )
    length = 8 if tiny else 80
    return WideTask(
        "long-memory",
        version,
        lambda: traced(
            _Last(nn.LSTM(8, 24, batch_first=True), 8, words=12),
            torch.zeros(2, length, dtype=torch.int64),
        ),
        npz(inputs="tokens", task="classification"),
        steps=20 if tiny else 700,
        batch_size=50,
        train_samples=samples,
        write=arrays(lambda _: _recall(length, samples)),
    )


class _Last(nn.Module):
    """A recurrent layer, read at its last step; over tokens where there are words."""

    def __init__(self, recurrent: nn.GRU | nn.LSTM, outputs: int, words: int | None = None) -> None:
        super().__init__()
        self.tokens = None if words is None else nn.Embedding(words, recurrent.input_size)
        self.recurrent, self.head = recurrent, nn.Linear(recurrent.hidden_size, outputs)

    def forward(self, x: Tensor) -> Tensor:
        steps, _ = self.recurrent(x if self.tokens is None else self.tokens(x))
        found: Tensor = self.head(steps[:, -1])
        return found


def _adding(length: int, samples: int) -> dict[str, Array]:
    """Two of the numbers are marked, one in each half: the target is their sum."""
    random = np.random.RandomState(401)
    count = samples + 1000
    values, marks = random.random_sample((count, length)), np.zeros((count, length))
    half, rows = length // 2, np.arange(count)
    first, second = random.randint(half, size=count), random.randint(half, length, size=count)
    marks[rows, first] = marks[rows, second] = 1
    return _split(np.stack([values, marks], 2), (values * marks).sum(1), samples)


def _recall(length: int, samples: int) -> dict[str, Array]:
    """The first token is one of eight; the others are any of twelve."""
    random = np.random.RandomState(9401)
    x = random.randint(12, size=(samples + 1000, length))
    x[:, 0] = random.randint(8, size=len(x))
    return _split(x, x[:, 0].copy(), samples)


def _split(x: Array, y: Array, samples: int) -> dict[str, Array]:
    return {
        "x_train": x[:samples],
        "y_train": y[:samples],
        "x_test": x[samples:],
        "y_test": y[samples:],
    }
