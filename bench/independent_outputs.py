"""What it gains that outputs which the loss takes one by one are not rotated (docs/research.md).

    python -m bench.independent_outputs --data DIR [--seeds 2] [--only autoencoder]

Prints the training loss of the averaged weights after some epochs, and the CPU seconds of the
steps, for MLHF as it is and for MLHF that rotates every output side as the data's gradients say.
DIR has the folder ``mnist`` of the autoencoder. Ten minutes of one core, most of it for that.
"""

import argparse
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mlhf import MLHF
from mlhf.data.digits import read
from mlhf.data.loading import load
from mlhf.data.params import DigitsParams
from mlhf.optimizers.mlhf.kronecker.blocks import LayerBlock

_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": F.mse_loss,
    "binary_cross_entropy": F.binary_cross_entropy_with_logits,
}
_SIDES = (784, 400, 200, 100, 30)  # of the autoencoder


class Task(NamedTuple):
    """A network, what it learns, and after which epochs to look."""

    network: nn.Module
    loss: str
    x: Tensor
    y: Tensor
    batch: int
    epochs: tuple[int, ...]


def autoencoder(data: Path, seed: int) -> Task:
    """The deep autoencoder on the first 10,000 images of MNIST."""
    mnist = load("mnist", {}, data / "mnist")
    x = mnist.batch("train", torch.arange(10_000), "cpu")[0].flatten(1)
    x = (x - x.min()) / (x.max() - x.min())
    ways = [*_SIDES, *_SIDES[-2::-1]]
    layers: list[nn.Module] = []
    for k, (before, after) in enumerate(pairwise(ways), 1):
        layers.append(nn.Linear(before, after))
        if k not in (4, 8):  # the code and the pixels
            layers.append(nn.Tanh())
    return Task(nn.Sequential(*layers), "binary_cross_entropy", x, x, 128, (1, 2, 3))


def denoising(data: Path, seed: int) -> Task:
    """Handwritten digits from noisy ones, by a small convolutional network."""
    clean = torch.as_tensor(read(DigitsParams(), None).train.inputs).float() / 16
    noise = torch.randn(clean.shape, generator=_generator(seed))
    network = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(1024, 64)),
    )
    y = clean.flatten(1)
    return Task(network, "binary_cross_entropy", clean + 0.5 * noise, y, 64, (3, 12))


def regression(data: Path, seed: int, *, noise: float = 0.0) -> Task:
    """Sixteen smooth functions of eight inputs; noise that is common to the outputs."""
    generator = _generator(seed)
    mixing, phase = _normal(generator, 8, 16), _normal(generator, 16)
    x = torch.rand(4096, 8, generator=generator) * 2 - 1
    y = torch.sin(x @ mixing + phase) + 0.3 * (x @ mixing).roll(1, 1).tanh()
    y = y + noise * _normal(generator, 4096, 16) @ _normal(generator, 16, 16) / 4
    network = nn.Sequential(
        *(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 16))
    )
    return Task(network, "mse", x, y, 64, (3, 12))


def noisy_regression(data: Path, seed: int) -> Task:
    """The same with noise."""
    return regression(data, seed, noise=0.3)


TASKS: dict[str, Callable[[Path, int], Task]] = {
    "autoencoder": autoencoder,
    "denoising": denoising,
    "regression": regression,
    "noisy regression": noisy_regression,
}


def train(task: Task, seed: int) -> tuple[list[float], float]:
    """Return the losses, and the CPU seconds of the steps."""
    optimizer, generator = MLHF(task.network, task.loss), _generator(seed)
    losses, seconds = [], 0.0
    for epoch in range(1, max(task.epochs) + 1):
        for rows in torch.split(torch.randperm(len(task.x), generator=generator), task.batch):
            start = time.process_time()
            optimizer.step(task.x[rows], task.y[rows])
            seconds += time.process_time() - start
        if epoch in task.epochs:
            optimizer.eval_mode()
            with torch.no_grad():
                losses.append(float(_LOSSES[task.loss](task.network(task.x), task.y)))
            optimizer.train_mode()
    return losses, seconds


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def main() -> None:
    """Train each task both ways with each seed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder that has mnist/")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", choices=TASKS, help="this task")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in [given.only] if given.only else TASKS:
        for seed in range(given.seeds):
            for rotated in (True, False):
                torch.manual_seed(seed)
                task = TASKS[name](given.data, seed)
                decide = mock.patch.object(LayerBlock, "decide", return_value=None)
                if rotated:
                    decide.start()
                losses, seconds = train(task, seed)
                mock.patch.stopall()
                told = " ".join(f"{loss:.4g}" for loss in losses)
                how = "all rotated" if rotated else "as it is"
                print(f"{name}, seed {seed}, {how}: {told}; {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
