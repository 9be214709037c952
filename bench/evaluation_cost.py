"""What a training sample costs, in samples that are only measured: for the share of evaluation.

    python -m bench.evaluation_cost

Trains small networks by the cheapest optimizer, with batches of several sizes, and evaluates the
same samples. The least ratio is what ``mlhf.training.measured_samples`` reckons with.
"""

import argparse
from typing import Any

import numpy as np
import torch

from mlhf.data.info import DataInfo
from mlhf.models.build import build
from mlhf.models.loss import loss_name
from mlhf.optimizers.registry import build as build_optimizer
from mlhf.training.clock import Clock, Section
from mlhf.training.evaluation import evaluate

SAMPLES = 2048
NETWORKS: dict[str, tuple[str, dict[str, Any], int]] = {
    "mlp 64-32 on 8x8": ("mlp", {"hidden": [64, 32]}, 8),
    "mlp 512-256 on 28x28": ("mlp", {"hidden": [512, 256]}, 28),
    "cuda_convnet on 32x32": ("cuda_convnet", {}, 32),
    "resnet 8 on 28x28": ("resnet", {"depth": 8, "width": 0.5}, 28),
}


class Noise:
    """Random images of ten classes."""

    def __init__(self, side: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(SAMPLES, 3, side, side, generator=generator)
        self.y = torch.randint(10, (SAMPLES,), generator=generator)

    def size(self, split: str) -> int:
        return SAMPLES if split == "train" else 0

    def batch(
        self, split: str, indices: torch.Tensor, device: torch.device | str = "cpu"
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self.x[indices], self.y[indices]


def main() -> None:
    """Print the ratio of each network and batch size."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    torch.set_num_threads(1)
    for name, (model, params, side) in NETWORKS.items():
        for batch_size in (16, 64, 256, 1024):
            ratios = [ratio(model, params, side, batch_size) for _ in range(2)]
            print(f"{name}, batches of {batch_size}: {np.median(ratios):.2f}")


def ratio(name: str, params: dict[str, Any], side: int, batch_size: int) -> float:
    """Return the CPU seconds of training by those of evaluation, for the same samples."""
    info = DataInfo("image", (3, side, side), 10, "classification", SAMPLES, 0)
    data = Noise(side)
    model = build(name, params, info, 0)
    loss = loss_name(info)
    optimizer = build_optimizer("sgd", {"lr": 1e-4}, model, loss)
    clock = Clock()
    sections: tuple[Section, Section] = ("checkpoint", "training")
    for section in sections:  # the first pass is not counted
        with clock.section(section):
            for rows in torch.split(torch.randperm(SAMPLES), batch_size):
                optimizer.step(*data.batch("train", rows))
    with clock.section("evaluation"):
        evaluate(model, data, loss, torch.device("cpu"), batch_size=max(batch_size, 256))
    trained, measured = clock.cpu_seconds("training"), clock.cpu_seconds("evaluation")
    assert trained is not None
    assert measured is not None
    return trained / measured


if __name__ == "__main__":
    main()
