"""Networks that the learned part was not made for, and those that it is judged on."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.independent_outputs import autoencoder
from bench.judge.tasks import BenchmarkTask
from bench.judge.tasks import tasks as judged_tasks
from bench.kronecker_ablation import root_of
from bench.short_horizon import EPOCHS
from bench.wide_layers import CASES, Case, Residual, batches, digits
from mlhf.data.digits import read
from mlhf.data.loading import load
from mlhf.data.params import DigitsParams
from mlhf.models.build import build
from mlhf.models.loss import loss_name

_P = 59  # of modular addition
_TOKENS, _LENGTH, _WIDTH = 64, 32, 32  # of the text

Batch = tuple[Tensor, Tensor]


class Task(NamedTuple):
    """A network, what it learns, and for how many steps.

    Attributes:
        network: It, as initialised.
        loss: Its loss's name.
        batches: The batches, without end.
        steps: How many are used.
        whole: The training set, where there is one.
    """

    network: nn.Module
    loss: str
    batches: Iterator[Batch]
    steps: int
    whole: Batch | None = None


class Block(nn.Module):
    """A pre-norm block of a Transformer, with dropout as GPT-2 has it."""

    def __init__(self, width: int, heads: int, dropout: float, causal: bool) -> None:
        super().__init__()
        self.heads, self.dropout, self.causal = heads, dropout, causal
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.inputs, self.mix = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, h: Tensor) -> Tensor:
        """Return the block's output (B, T, width)."""
        query, key, value = (
            t.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for t in self.inputs(self.norms[0](h)).chunk(3, 2)
        )
        rate = self.dropout if self.training else 0.0
        seen = F.scaled_dot_product_attention(
            query, key, value, is_causal=self.causal, dropout_p=rate
        )
        h = h + F.dropout(self.mix(seen.transpose(1, 2).flatten(2)), rate)
        return h + F.dropout(self.down(F.gelu(self.up(self.norms[1](h)))), rate)


class GPT2(nn.Module):
    """One block of GPT-2 with its initialization, its head tied to the token embedding."""

    def __init__(self, dropout: float = 0.1) -> None:
        super().__init__()
        self.dropout = dropout
        self.wte, self.wpe = nn.Embedding(_TOKENS, _WIDTH), nn.Embedding(_LENGTH, _WIDTH)
        self.block, self.norm = Block(_WIDTH, 2, dropout, True), nn.LayerNorm(_WIDTH)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                inner = module in (self.block.mix, self.block.down)
                nn.init.normal_(module.weight, std=0.02 / math.sqrt(2) if inner else 0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, T, tokens)."""
        rate = self.dropout if self.training else 0.0
        h = F.dropout(self.wte(x) + self.wpe(torch.arange(x.shape[1])), rate)
        return F.linear(self.norm(self.block(h)), self.wte.weight)


class Addition(nn.Module):
    """A Transformer of one block that reads a, b and "=", and says a + b modulo p."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(_P + 1, 64), nn.Embedding(3, 64)
        self.block, self.norm = Block(64, 4, 0.0, False), nn.LayerNorm(64)
        self.head = nn.Linear(64, _P)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, p)."""
        h = self.block(self.tokens(x) + self.places(torch.arange(3)))
        logits: Tensor = self.head(self.norm(h)[:, -1])
        return logits


class Rows(nn.Module):
    """A GRU that reads an 8×8 image row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(8, 32, batch_first=True), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, 10) of rows (B, 8, 8)."""
        logits: Tensor = self.head(self.gru(x)[0][:, -1])
        return logits


def _shuffled(x: Tensor, y: Tensor, batch: int, seed: int) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        for rows in torch.split(torch.randperm(len(x), generator=generator), batch):
            yield x[rows], y[rows]


def addition(_: Path, seed: int) -> Task:
    """Modular addition, every pair."""
    a, b = torch.arange(_P * _P) // _P, torch.arange(_P * _P) % _P
    x, y = torch.stack([a, b, torch.full_like(a, _P)], 1), (a + b) % _P
    return Task(Addition(), "cross_entropy", _shuffled(x, y, 256, seed), 700, (x, y))


def text(_: Path, seed: int, dropout: float = 0.1) -> Task:
    """A tied GPT-2 on text of a Markov chain."""
    return Task(GPT2(dropout), "cross_entropy", _chain(seed), 90)


def _chain(seed: int) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(seed)
    next_token = torch.softmax(1.8 * torch.randn(_TOKENS, _TOKENS, generator=generator), 1)
    while True:
        x = [torch.randint(_TOKENS, (16,), generator=generator)]
        for _ in range(_LENGTH):
            x.append(torch.multinomial(next_token[x[-1]], 1, generator=generator)[:, 0])
        yield torch.stack(x[:-1], 1), torch.stack(x[1:], 1)


def residual(_: Path, seed: int) -> Task:
    """ResNet-18 with batch norm, in batches of 16."""
    return Task(CASES["resnet18"].make(), "cross_entropy", _drawn(CASES["resnet18"], seed), 99)


def narrow_residual(_: Path, seed: int) -> Task:
    """The same at a quarter of the width, on images of 16×16: a fortieth of the time."""
    case = Case(_narrow, 16, digits(16, 3))
    return Task(_narrow(), "cross_entropy", _drawn(case, seed), 99)


def _narrow() -> nn.Module:
    widths = (16, 16, 32, 64, 128)
    blocks = [
        block
        for before, width in pairwise(widths)
        for block in (Residual(before, width, 1 + (width > 16)), Residual(width, width, 1))
    ]
    stem = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()
    end = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10)
    return nn.Sequential(*stem, *blocks, *end)


def _drawn(case: Case, seed: int) -> Iterator[Batch]:
    return batches(case, 10_000, seed)


def _digits() -> Batch:
    found = read(DigitsParams(), None).train
    return torch.as_tensor(found.inputs).float() / 8 - 1, torch.as_tensor(found.targets)


def rows(_: Path, seed: int) -> Task:
    """GRU-32 on the rows of the 8×8 digits."""
    x, y = _digits()
    x = x.reshape(-1, 8, 8)
    return Task(Rows(), "cross_entropy", _shuffled(x, y, 32, seed), 900, (x, y))


def borehole(_: Path, seed: int) -> Task:
    """The borehole function (Harper & Gupta 1983) by an MLP."""
    generator = torch.Generator().manual_seed(seed)
    low = torch.tensor([0.05, 100.0, 63070.0, 990.0, 63.1, 700.0, 1120.0, 9855.0])
    high = torch.tensor([0.15, 50000.0, 115600.0, 1110.0, 116.0, 820.0, 1680.0, 12045.0])
    unit = torch.rand(4096, 8, generator=generator)
    rw, r, tu, hu, tl, hl, length, kw = (low + (high - low) * unit).T
    log = (r / rw).log()
    y = 2 * torch.pi * tu * (hu - hl) / log / (1 + 2 * length * tu / (log * rw**2 * kw) + tu / tl)
    y = ((y - y.mean()) / y.std())[:, None]
    x = 2 * unit - 1
    network = nn.Sequential(
        *(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
    )
    return Task(network, "mse", _shuffled(x, y, 64, seed), 1200, (x, y))


def pixels(data: Path, seed: int) -> Task:
    """The deep autoencoder on 10,000 images of MNIST."""
    task = autoencoder(data, seed)
    shuffled = _shuffled(task.x, task.y, task.batch, seed)
    return Task(task.network, task.loss, shuffled, 158, (task.x[:2500], task.y[:2500]))


def images(data: Path, seed: int) -> Task:
    """A convolutional network of 62,000 parameters on 5,000 images of MNIST."""
    x, y = load("mnist", {}, data / "mnist").batch("train", torch.arange(5_000), "cpu")
    network = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(784, 75), nn.ReLU(), nn.Linear(75, 10)),
    )
    return Task(network, "cross_entropy", _shuffled(x, y, 64, seed), 300, (x, y))


def judged(task: BenchmarkTask, epochs: int, data: Path, seed: int) -> Task:
    """A task of the judge, for a few epochs."""
    spec, cpu = task.spec, torch.device("cpu")
    found = load(spec.dataset.name, spec.dataset.params, root_of(data, spec.dataset.name))
    generator = torch.Generator().manual_seed(seed)
    size = found.size("train")

    def drawn() -> Iterator[Batch]:
        while True:
            for some in torch.split(torch.randperm(size, generator=generator), spec.batch_size):
                yield found.batch("train", some, cpu)

    network = build(spec.model.name, spec.model.params, found.info, seed)
    steps = epochs * -(-size // spec.batch_size)
    return Task(network, loss_name(found.info), drawn(), steps)


TASKS: dict[str, Callable[[Path, int], Task]] = {
    "addition": addition,
    "gpt2-dropout": text,
    "gpt2": partial(text, dropout=0.0),
    "resnet18": residual,
    "resnet18-narrow": narrow_residual,
    "gru": rows,
    "borehole": borehole,
    "convnet": images,
    "autoencoder": pixels,
}
JUDGED = {task.name: partial(judged, task, EPOCHS[task.name]) for task in judged_tasks("cpu")}
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": lambda z, y: F.cross_entropy(z.flatten(0, -2), y.flatten()),
    "mse": F.mse_loss,
    "binary_cross_entropy": F.binary_cross_entropy_with_logits,
}
