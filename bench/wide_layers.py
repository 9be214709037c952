"""What a step of MLHF costs on wide and odd layers, in steps of AdamW, and where its loss is.

    python -m bench.wide_layers [--only NAME ...] [--steps 100] [--seeds 1] [--parts]

Each network is trained on the same batches by AdamW (at three rates) and by MLHF as it comes, a
step of each in turn, so that whatever else the machine does slows all of them. Printed are CPU
seconds of a step (process time, one thread, the mean of all steps, in the mean step of AdamW),
the mean loss of the last ten steps, and the numbers a parameter that the optimizer keeps. What
the first steps of a process import is not counted. With ``--parts`` also how a step's time is
spent.
"""

import argparse
import copy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlhf import MLHF
from mlhf.core.process import keep_freed_memory
from mlhf.curvature.ggn import GGN
from mlhf.data.digits import read
from mlhf.data.params import DigitsParams
from mlhf.optimizers.mlhf.kronecker.basis import Basis

_RATES = (3e-4, 1e-3, 3e-3)  # of AdamW
_LAST = 10  # steps whose mean loss is the loss at the end
_TOKENS, _ROWS = 32, 50_000


class Case(NamedTuple):
    """A network, and the size and shape of its batches."""

    make: Callable[[], nn.Module]
    batch: int
    inputs: Callable[[int, torch.Generator], tuple[Tensor, Tensor]]


class Experts(nn.Module):
    """Eight experts of two stacked matrices each, mixed by a softmax for each token."""

    def __init__(self) -> None:
        super().__init__()
        self.router, self.head = nn.Linear(128, 8), nn.Linear(128, 10)
        self.up = nn.Parameter(torch.randn(8, 512, 128) / 128**0.5)
        self.down = nn.Parameter(torch.randn(8, 128, 512) / 512**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, 10) of tokens (B, T, 128)."""
        gates = self.router(x).softmax(-1)
        hidden = F.relu(torch.einsum("btd,ehd->bteh", x, self.up))
        mixed = torch.einsum("bteh,edh,bte->btd", hidden, self.down, gates)
        logits: Tensor = self.head((x + mixed).mean(1))
        return logits


class Residual(nn.Module):
    """ResNet's basic block (He et al. 2016)."""

    def __init__(self, inside: int, out: int, stride: int) -> None:
        super().__init__()
        self.way = nn.Sequential(
            nn.Conv2d(inside, out, 3, stride, 1, bias=False),
            *(nn.BatchNorm2d(out), nn.ReLU()),
            nn.Conv2d(out, out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(out),
        )
        self.past: nn.Module = nn.Identity()
        if stride > 1 or inside != out:
            self.past = nn.Sequential(
                nn.Conv2d(inside, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        return F.relu(self.way(x) + self.past(x))


def resnet18() -> nn.Module:
    """ResNet-18 for 32×32 images, 11.2 million parameters."""
    blocks = [
        block
        for before, width in pairwise((64, 64, 128, 256, 512))
        for block in (Residual(before, width, 1 + (width > 64)), Residual(width, width, 1))
    ]
    stem = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()
    end = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10)
    return nn.Sequential(*stem, *blocks, *end)


def depthwise() -> nn.Module:
    """Depthwise and pointwise convolutions in turn, in the manner of MobileNet."""
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU()]
    for before, width in pairwise((32, 64, 128, 128, 256)):
        layers += [nn.Conv2d(before, before, 3, 1, 1, groups=before), nn.BatchNorm2d(before)]
        layers += [nn.ReLU(), nn.Conv2d(before, width, 1), nn.BatchNorm2d(width), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if width in (64, 256) else []
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 10))


def bag() -> nn.Module:
    """An embedding of 50,000 rows, the mean of a text's, and a linear layer."""
    return nn.Sequential(nn.Embedding(_ROWS, 64), _Mean(), nn.Linear(64, 10))


class _Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        """Return the mean over tokens."""
        return x.mean(1)


def digits(size: int, channels: int) -> Callable[[int, torch.Generator], tuple[Tensor, Tensor]]:
    found = read(DigitsParams(), None).train
    pixels = torch.from_numpy(np.asarray(found.inputs)).float() / 8 - 1
    classes = torch.from_numpy(found.targets)

    def draw(batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        rows = torch.randint(len(pixels), (batch,), generator=generator)
        x = F.interpolate(pixels[rows], size=(size, size), mode="bilinear")
        x = x.expand(-1, channels, -1, -1)
        return x + 0.3 * torch.randn(x.shape, generator=generator), classes[rows]

    return draw


def _rows(batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return images as rows (B, 3072)."""
    x, y = digits(32, 3)(batch, generator)
    return x.flatten(1), y


def _wide_rows(batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return images as rows (B, 4096)."""
    x, y = digits(64, 1)(batch, generator)
    return x.flatten(1), y


def _rows_28(batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return images as rows (B, 784)."""
    x, y = digits(28, 1)(batch, generator)
    return x.flatten(1), y


def _patches(batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return images as 16 tokens of 128 (B, 16, 128)."""
    x, y = digits(32, 2)(batch, generator)
    patches = x.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5)
    return patches.reshape(batch, 16, 128), y


def _texts(batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return tokens (B, T), half of them of the text's class, frequent ones first."""
    y = torch.randint(10, (batch,), generator=generator)
    tokens = (torch.rand(batch, _TOKENS, generator=generator) ** 3 * _ROWS / 10).long() * 10
    own = torch.rand(batch, _TOKENS, generator=generator) < 0.5
    other = torch.randint(10, (batch, _TOKENS), generator=generator)
    return tokens + torch.where(own, y[:, None], other), y


CASES: dict[str, Case] = {
    "mlp": Case(
        lambda: nn.Sequential(nn.Linear(3072, 32), nn.ReLU(), nn.Linear(32, 10)), 64, _rows
    ),
    "mlp-512": Case(
        lambda: nn.Sequential(
            *(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10))
        ),
        *(128, _rows_28),
    ),
    "linear": Case(
        lambda: nn.Sequential(nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 10)),
        *(64, _wide_rows),
    ),
    "experts": Case(Experts, 16, _patches),
    "depthwise": Case(depthwise, 32, digits(32, 3)),
    "resnet18": Case(resnet18, 16, digits(32, 3)),
    "embedding": Case(bag, 32, _texts),
}


def batches(case: Case, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of a run."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        yield case.inputs(case.batch, generator)


Step = Callable[[Tensor, Tensor], Any]


def timed(each: Sequence[Step], case: Case, steps: int, seed: int) -> list[tuple[float, float]]:
    """Return the mean CPU seconds of a step, and the mean loss of the last, of each in turn."""
    seconds, losses = [0.0] * len(each), [list[float]() for _ in each]
    for x, y in batches(case, steps, seed):
        for at, step in enumerate(each):
            began = time.process_time()
            losses[at].append(float(step(x, y)))
            seconds[at] += time.process_time() - began
    last = min(steps, _LAST)
    return [(s / steps, sum(of[-last:]) / last) for s, of in zip(seconds, losses, strict=True)]


def adamw(model: nn.Module, rate: float) -> Callable[[Tensor, Tensor], Any]:
    """Return AdamW's step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)

    def step(x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    return step


def _numbers(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel()
    if isinstance(value, dict):
        value = list(value.values())
    return sum(map(_numbers, value)) if isinstance(value, list | tuple) else 0


@contextmanager
def _parts(spent: dict[str, float]) -> Iterator[None]:
    """Add up the CPU seconds within some functions."""

    def watched(owner: type, name: str) -> Any:
        original = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.process_time()
            try:
                return original(*args, **kwargs)
            finally:
                key = f"{owner.__name__}.{name}"
                spent[key] = spent.get(key, 0.0) + time.process_time() - began

        return mock.patch.object(owner, name, call)

    names: list[tuple[type, str]] = [
        (Basis, n) for n in ("update", "refresh", "rotate", "rotate_back")
    ]
    names += [(GGN, "__init__"), (GGN, "jvps"), (GGN, "vjp")]
    patches = [watched(*each) for each in names]
    for each in patches:
        each.start()
    try:
        yield
    finally:
        for each in patches:
            each.stop()


def measure(name: str, steps: int, seeds: int, parts: bool, **options: Any) -> None:
    """Print what one network costs."""
    case = CASES[name]
    for seed in range(seeds):
        torch.manual_seed(seed)
        model = case.make()
        count = sum(p.numel() for p in model.parameters())
        timed(_steps(copy.deepcopy(model), **options)[1], case, 2, seed)  # imports
        optimizer, each = _steps(model, **options)
        spent: dict[str, float] = {}
        with _parts(spent) if parts else nullcontext():
            (seconds, loss), *peers = timed(each, case, steps, seed)
        one = sum(of for of, _ in peers) / len(peers)
        kept = _numbers(optimizer.state_dict()) / count
        print(
            f"{name}, seed {seed}: {seconds / one:.1f} steps of AdamW ({1e3 * one:.0f} ms); loss "
            f"{loss:.3g}, AdamW {min(loss for _, loss in peers):.3g}; "
            f"{kept:.1f} numbers a parameter",
            flush=True,
        )
        for key, value in spent.items():
            print(f"    {key}: {value / steps / one:.2f}")


def _steps(model: nn.Module, **options: Any) -> tuple[MLHF, list[Step]]:
    """Return MLHF, and its step and those of AdamW, each on a copy of the model but the first."""
    peers = [adamw(copy.deepcopy(model), rate) for rate in _RATES]
    optimizer = MLHF(model, **options)
    return optimizer, [partial(_loss, optimizer), *peers]


def _loss(optimizer: MLHF, x: Tensor, y: Tensor) -> Tensor:
    return optimizer.step(x, y).loss


def main() -> None:
    """Train each network by both."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", default=list(CASES), choices=CASES)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--parts", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    keep_freed_memory()
    for name in given.only:
        measure(name, given.steps, given.seeds, given.parts)


if __name__ == "__main__":
    main()
