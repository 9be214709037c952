"""CIFAR-10 on a GPU: training seconds to a test accuracy.

ResNet-18 at 32x32 with flips and shifts by up to 4 pixels, batch 512, a one-cycle learning
rate for the first-order optimizers, `mlhf` at its defaults. The whole data set lies on the
device. Seconds are those of training steps alone, by the host's clock around synchronised
epochs; evaluation is not counted. One seed: this is a first look, not a judgement.

    python -m bench.gpu.cifar --data DIR --output docs/results/gpu/cifar.json [--seconds 150]
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.gpu.results import Results
from mlhf.data.loading import Dataset, load
from mlhf.models.build import build as build_model
from mlhf.optimizers.protocol import Averaging
from mlhf.optimizers.registry import build as build_optimizer

TARGETS = (0.6, 0.7, 0.8, 0.85, 0.9)
_BATCH = 512
_COSINE = {"schedule": {"type": "cosine", "warmup": 0.1}}
CONTENDERS: dict[str, tuple[str, dict[str, Any]]] = {
    "adamw": ("adamw", {"lr": 2e-3, "weight_decay": 0.05, **_COSINE}),
    "mlhf": ("mlhf", {}),
    "nesterov": ("nesterov", {"lr": 0.2, "weight_decay": 5e-4, **_COSINE}),
    "muon": ("muon", {"lr": 0.02, **_COSINE}),
    "soap": ("soap", {"lr": 3e-3, **_COSINE}),
    "mlhf bf16": ("mlhf", {"autocast": "bfloat16"}),
}


def _augmented(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return images flipped by chance, each shifted by up to 4 pixels."""
    flip = torch.rand(len(x), 1, 1, 1, device=x.device, generator=generator) < 0.5
    x = torch.where(flip, x.flip(3), x)
    padded = nn.functional.pad(x, (4, 4, 4, 4))
    shift = torch.randint(0, 9, (2, len(x)), device=x.device, generator=generator)
    rows = shift[0, :, None] + torch.arange(32, device=x.device)
    columns = shift[1, :, None] + torch.arange(32, device=x.device)
    sample = torch.arange(len(x), device=x.device)[:, None, None, None]
    channel = torch.arange(3, device=x.device)[None, :, None, None]
    return padded[sample, channel, rows[:, None, :, None], columns[:, None, None, :]]


def _on_device(data: Dataset, split: str) -> tuple[Tensor, Tensor]:
    return data.batch(split, torch.arange(data.size(split)), "cuda")


@torch.no_grad()
def _accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    model.eval()
    found = torch.cat([model(part).argmax(1) for part in torch.split(x, 1000)])
    model.train()
    return float((found == y).double().mean())


@torch.no_grad()
def _recalibrate(model: nn.Module, x: Tensor) -> None:
    """Take batch norm's statistics anew for averaged weights."""
    layers = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
    model.train()
    for part in torch.split(x[: 20 * _BATCH], _BATCH):
        model(part)
    for layer in layers:
        layer.momentum = 0.1


def train(
    train_set: tuple[Tensor, Tensor],
    test_set: tuple[Tensor, Tensor],
    data: Dataset,
    optimizer: str,
    params: dict[str, Any],
    epochs: int,
    end: float,
) -> dict[str, Any]:
    """Return the accuracy after each epoch with the training seconds up to it."""
    x, y = train_set
    model = build_model("resnet", {"depth": 18}, data.info, 0).cuda()
    steps = len(x) // _BATCH
    opt = build_optimizer(optimizer, params, model, total_steps=epochs * steps)
    generator = torch.Generator("cuda").manual_seed(0)
    seconds, curve = 0.0, []
    for epoch in range(epochs):
        torch.cuda.synchronize()
        began = time.perf_counter()
        order = torch.randperm(len(x), device="cuda", generator=generator)
        losses = []
        for batch in order[: steps * _BATCH].view(steps, _BATCH):
            losses.append(opt.step(_augmented(x[batch], generator), y[batch]).loss)
        torch.cuda.synchronize()
        seconds += time.perf_counter() - began
        loss = float(torch.stack(losses).mean())
        if isinstance(opt, Averaging):
            opt.eval_mode()
            _recalibrate(model, x)
        accuracy = _accuracy(model, *test_set)
        if isinstance(opt, Averaging):
            opt.train_mode()
        curve.append(
            {
                "epoch": epoch + 1,
                "seconds": round(seconds, 3),
                "train_loss": round(loss, 4),
                "test_accuracy": round(accuracy, 4),
            }
        )
        if time.monotonic() > end:
            break
    reached = {
        str(target): next((p["seconds"] for p in curve if p["test_accuracy"] >= target), None)
        for target in TARGETS
    }
    best = max(p["test_accuracy"] for p in curve)
    return {"epochs": len(curve), "of": epochs, "best": best, "seconds_to": reached, "curve": curve}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="holds the folder cifar10")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=150.0, help="stop beginning after these")
    parser.add_argument("--epochs", type=int, default=12)
    given = parser.parse_args()
    results = Results(given.output)
    end = time.monotonic() + given.seconds
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    data = load("cifar10", {}, given.data / "cifar10")
    train_set, test_set = _on_device(data, "train"), _on_device(data, "test")
    for name, (optimizer, params) in CONTENDERS.items():
        if name in results:
            continue
        if time.monotonic() > end:
            print("time is up: the same command goes on")
            return
        try:
            entry = train(train_set, test_set, data, optimizer, params, given.epochs, end)
        except Exception as error:  # one that fails must not hide the others
            entry = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
        results.add(name, entry)
        shown = {k: v for k, v in entry.items() if k != "curve"}
        print(f"{name:12} {shown}", flush=True)


if __name__ == "__main__":
    main()
