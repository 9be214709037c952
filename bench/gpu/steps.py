"""Step times of every optimizer on a GPU, by CUDA events.

Three networks: CUDA-convnet (1.76 M parameters, 32x32), ResNet-18 (11 M, 32x32) and a
decoder-only Transformer (10 M, 256 tokens). Each optimizer steps on one batch that stays on
the device; the first steps, which compile and allocate, are not counted. Reported are the
median and mean of a step in milliseconds, both in AdamW's steps, and the peak of memory
allocated beyond the model's own. The median hides what an optimizer does every few steps, the
mean shows it.

    python -m bench.gpu.steps --output docs/results/gpu/steps.json [--seconds 150]
"""

import argparse
import gc
import itertools
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.gpu.results import Results
from mlhf.data.info import DataInfo
from mlhf.models.build import build as build_model
from mlhf.optimizers.registry import build as build_optimizer
from mlhf.optimizers.specs import OPTIMIZERS

_WARM_UP = 12  # covers the first update of a basis
_MOST_STEPS = 60
_SECONDS_EACH = 1.5  # of measured steps

IMAGES = DataInfo("image", (3, 32, 32), 10, "classification", 50_000, 10_000)
_TOKENS, _VOCABULARY = 256, 256
TEXT = DataInfo("text", (_TOKENS,), _VOCABULARY, "language", 10_000, 1_000, vocabulary=_VOCABULARY)


def transformer(width: int = 320, blocks: int = 8, heads: int = 8) -> dict[str, Any]:
    """Return the parameters of a pre-norm decoder as a ``sequential`` model."""
    attention = [{"type": "layer_norm"}, {"type": "causal_attention", "heads": heads}]
    dense = [
        {"type": "layer_norm"},
        {"type": "linear", "out_features": 4 * width},
        {"type": "activation", "function": "gelu"},
        {"type": "linear", "out_features": width},
    ]
    block = [{"type": "residual", "layers": attention}, {"type": "residual", "layers": dense}]
    return {
        "layers": [
            {"type": "embedding", "dimension": width},
            {"type": "position_embedding"},
            *block * blocks,
            {"type": "layer_norm"},
            {"type": "linear"},
        ]
    }


def _image_batch(size: int) -> tuple[Tensor, Tensor]:
    return torch.randn(size, 3, 32, 32), torch.randint(0, 10, (size,))


def _text_batch(size: int) -> tuple[Tensor, Tensor]:
    tokens = torch.randint(0, _VOCABULARY, (size, _TOKENS + 1))
    return tokens[:, :-1], tokens[:, 1:]


# Name: model, parameters, data, batch size, what makes a batch.
_Case = tuple[str, dict[str, Any], DataInfo, int, Callable[[int], tuple[Tensor, Tensor]]]
CASES: dict[str, _Case] = {
    "cuda_convnet, batch 128": ("cuda_convnet", {}, IMAGES, 128, _image_batch),
    "cuda_convnet, batch 1024": ("cuda_convnet", {}, IMAGES, 1024, _image_batch),
    "resnet18, batch 128": ("resnet", {"depth": 18}, IMAGES, 128, _image_batch),
    "transformer 10M, batch 16": ("sequential", transformer(), TEXT, 16, _text_batch),
}
# What is measured beside the registry's defaults.
_VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "mlhf paper": ("mlhf", {"variant": "paper"}),
    "mlhf paper compiled": ("mlhf", {"variant": "paper", "compile": True}),
    "mlhf bf16": ("mlhf", {"autocast": "bfloat16"}),
}


def measure(case: str, optimizer: str, params: dict[str, Any]) -> dict[str, Any]:
    """Return a step's times and memory on one network."""
    name, model_params, data, size, batch = CASES[case]
    model = build_model(name, model_params, data, 0).cuda()
    torch.manual_seed(0)
    x, y = (t.cuda() for t in batch(size))
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    began = time.monotonic()
    opt = build_optimizer(optimizer, params, model)
    opt.step(x, y)
    torch.cuda.synchronize()
    first = time.monotonic() - began
    for _ in range(_WARM_UP - 1):
        opt.step(x, y)
    torch.cuda.synchronize()
    began = time.monotonic()
    events = [torch.cuda.Event(enable_timing=True)]  # type: ignore[no-untyped-call]
    events[0].record()
    while len(events) <= _MOST_STEPS and time.monotonic() - began < _SECONDS_EACH:
        opt.step(x, y)
        events.append(torch.cuda.Event(enable_timing=True))  # type: ignore[no-untyped-call]
        events[-1].record()
    torch.cuda.synchronize()
    took = [a.elapsed_time(b) for a, b in itertools.pairwise(events)]
    found = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "median_ms": round(statistics.median(took), 3),
        "mean_ms": round(statistics.mean(took), 3),
        "steps": len(took),
        "first_step_s": round(first, 2),
        "peak_mb": round((torch.cuda.max_memory_allocated() - before) / 2**20),
        "loss_is_finite": bool(torch.isfinite(opt.step(x, y).loss)),
    }
    path = getattr(opt, "path", None)
    return found | ({"path": path} if isinstance(path, str) else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=150.0, help="stop beginning after these")
    given = parser.parse_args()
    results = Results(given.output)
    end = time.monotonic() + given.seconds
    every = {**{name: (name, {}) for name in OPTIMIZERS}, **_VARIANTS}
    first = ("adamw", "mlhf")  # all else is read beside these
    for optimizer in sorted(every, key=lambda name: name not in first):
        for case in CASES:
            name = f"{case}: {optimizer}"
            if name in results:
                continue
            if time.monotonic() > end:
                print("time is up: the same command goes on")
                return
            try:
                entry = measure(case, *every[optimizer])
            except Exception as error:  # one that fails must not hide the others
                torch.cuda.empty_cache()
                entry = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
            else:
                base = results.entries.get(f"{case}: adamw", entry)
                entry["adamw_steps"] = round(entry["mean_ms"] / base["mean_ms"], 2)
            results.add(name, entry)
            print(f"{name:44} {entry}", flush=True)


if __name__ == "__main__":
    main()
