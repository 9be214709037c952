"""Memory of training: what the service estimates, beside the peak that is measured.

    python -m bench.memory [--network NAME ...] [--optimizer NAME ...] [--json FILE]

Trains ten networks for a few steps with each of the main optimizers, each run in a trainer
process of its own as a worker starts it, and takes the process's peak resident set size. Says
where estimate and measurement part by more than a factor of 1.5.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlhf.data import specs as data
from mlhf.models import specs as models
from mlhf.optimizers.specs import OPTIMIZERS as REGISTERED
from mlhf.training import memory

Json = dict[str, Any]

FACTOR = 1.5
OPTIMIZERS: dict[str, Json] = {
    "sgd": {"name": "sgd"},
    "adam": {"name": "adam"},
    "soap": {"name": "soap"},
    "shampoo": {"name": "shampoo"},
    "kfac": {"name": "kfac"},
    "hf_adam": {"name": "hf_adam"},
    "mlhf": {"name": "mlhf"},
    "mlhf paper": {"name": "mlhf", "params": {"variant": "paper"}},
    "l2l": {"name": "l2l"},
}


@dataclass(frozen=True)
class Network:
    """A model on random data of some shape.

    Attributes:
        shape: Of an image (C, H, W), of a table's row (F,), or of a text (T,).
    """

    model: Json
    shape: tuple[int, ...]
    batch_size: int
    samples: int = 512


def _mlp(*hidden: int, **params: Any) -> Json:
    return {"name": "mlp", "params": {"hidden": list(hidden), **params}}


def _sequential(*layers: Json) -> Json:
    return {"name": "sequential", "params": {"layers": list(layers)}}


_LSTM = _sequential(
    {"type": "embedding", "dimension": 64},
    {"type": "lstm", "hidden_size": 256, "num_layers": 2},
    {"type": "linear"},
)
_ATTENTION: Json = {
    "type": "residual",
    "layers": [{"type": "layer_norm"}, {"type": "causal_attention"}],
}
_FORWARD: Json = {
    "type": "residual",
    "layers": [
        {"type": "layer_norm"},
        {"type": "linear", "out_features": 512},
        {"type": "activation", "function": "gelu"},
        {"type": "linear", "out_features": 128},
    ],
}
_BLOCKS: list[Json] = [_ATTENTION, _FORWARD] * 2
_TRANSFORMER = _sequential(
    {"type": "embedding", "dimension": 128},
    {"type": "position_embedding"},
    *_BLOCKS,
    {"type": "layer_norm"},
    {"type": "linear"},
)
_CONVOLUTIONS = _sequential(
    {"type": "conv2d", "out_channels": 32, "padding": 1},
    {"type": "batch_norm"},
    {"type": "activation"},
    {"type": "conv2d", "out_channels": 32, "padding": 1},
    {"type": "activation"},
    {"type": "max_pool2d"},
    {"type": "conv2d", "out_channels": 64, "padding": 1},
    {"type": "group_norm"},
    {"type": "activation", "function": "silu"},
    {"type": "global_avg_pool"},
    {"type": "linear"},
)

NETWORKS: dict[str, Network] = {
    "small mlp": Network(_mlp(64), (1, 8, 8), 64),
    "wide mlp": Network(_mlp(4000), (1, 8, 8), 64),
    "large mlp": Network(_mlp(2048, 2048), (3, 32, 32), 128),
    "table, batch 2048": Network(_mlp(512, 512, 512, batch_norm=True), (40,), 2048, 8192),
    "cuda_convnet": Network({"name": "cuda_convnet"}, (3, 32, 32), 128),
    "resnet 20": Network({"name": "resnet", "params": {"depth": 20}}, (3, 32, 32), 64),
    "resnet 18, half as wide": Network(
        {"name": "resnet", "params": {"depth": 18, "width": 0.5}}, (3, 32, 32), 32
    ),
    "convolutions, 64x64": Network(_CONVOLUTIONS, (3, 64, 64), 32),
    "lstm": Network(_LSTM, (64,), 32),
    "transformer": Network(_TRANSFORMER, (64,), 32),
}


def dataset(network: Network, folder: Path) -> Json:
    """Write the data of a network into a folder; return what a configuration says of them."""
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    if network.model is _LSTM or network.model is _TRANSFORMER:
        letters = rng.integers(97, 123, network.shape[0] * network.samples + 1).astype(np.uint8)
        (folder / "text.txt").write_bytes(letters.tobytes())
        params: Json = {"sequence_length": network.shape[0]}
        return {"name": "text", "params": params, "root": str(folder)}
    if len(network.shape) == 3:
        inputs = rng.integers(0, 256, (network.samples, *network.shape), dtype=np.uint8)
        params = {"layout": "chw"}
    else:
        inputs = rng.standard_normal((network.samples, *network.shape)).astype(np.float32)
        params = {}
    np.savez(folder / "data.npz", x=inputs, y=np.arange(network.samples) % 10)
    return {"name": "npz", "params": params, "root": str(folder)}


def configuration(network: Network, optimizer: Json, source: Json) -> Json:
    return {
        "model": network.model,
        "dataset": source,
        "optimizer": optimizer,
        "budget": {"steps": 4},
        "batch_size": network.batch_size,
        "device": "cpu",
        "threads": 1,
    }


def measured(config: Json, folder: Path) -> int:
    """Return the peak resident set size of a trainer process, in bytes."""
    (folder / "checkpoints").mkdir(parents=True)
    run = {"kind": "train", "config": config, "checkpoint_seconds": 0.0, "parent_pid": os.getpid()}
    (folder / "run.json").write_text(json.dumps(run))
    with (folder / "log").open("wb") as log:
        trainer = subprocess.Popen(
            [sys.executable, "-m", "mlhf.runner", str(folder)],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=log,
        )
        _, status, usage = os.wait4(trainer.pid, 0)
        trainer.returncode = os.waitstatus_to_exitcode(status)
    if trainer.returncode:
        raise RuntimeError((folder / "log").read_text())
    return usage.ru_maxrss * 1024


def estimated(config: Json) -> int:
    """Return the peak that the service would estimate for a run, in bytes."""
    info = data.describe(**config["dataset"])
    model, optimizer = config["model"], config["optimizer"]
    summary = models.summarize(model["name"], model.get("params", {}), info)
    params = REGISTERED.parse(optimizer["name"], optimizer.get("params", {}))
    size = config["batch_size"]
    return memory.training_bytes(summary, info, optimizer["name"], params, size)[0]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", nargs="*", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--optimizer", nargs="*", default=list(OPTIMIZERS), choices=OPTIMIZERS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows, missed = [], 0
    print(f"{'network':26}{'optimizer':12}{'estimate':>10}{'measured':>10}{'ratio':>8}  (MiB)")
    for name in options.network:
        with tempfile.TemporaryDirectory() as folder:
            source = dataset(NETWORKS[name], Path(folder) / "data")
            for optimizer in options.optimizer:
                config = configuration(NETWORKS[name], OPTIMIZERS[optimizer], source)
                estimate = estimated(config)
                peak = measured(config, Path(folder) / optimizer)
                ratio = estimate / peak
                outside = not 1 / FACTOR <= ratio <= FACTOR
                missed += outside
                rows.append([name, optimizer, estimate, peak])
                print(
                    f"{name:26}{optimizer:12}{estimate / 2**20:10.0f}{peak / 2**20:10.0f}"
                    f"{ratio:8.2f}{'  outside' if outside else ''}",
                    flush=True,
                )
    if options.json:
        options.json.write_text(json.dumps(rows))
    print(f"{len(rows) - missed} of {len(rows)} within a factor of {FACTOR}")


if __name__ == "__main__":
    main()
