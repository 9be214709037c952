"""Where the CPU time of short runs on images goes, with and without what saves it.

    python -m bench.short_runs [--images 14000] [--epochs 6]

Trains a small convolutional network by Adam on PNGs of 28x28, with the engine alone and one
thread: without a cache and measuring the whole set at each evaluation, as before there were
others; then the first run with a cache, and a further one. Prints CPU seconds, which other
processes on the machine disturb little: of the imports that a spare spares each run, of decoding
and all else at a run's beginning and end, of training, and of evaluation.
"""

import argparse
import io
import os
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

from bench.image_upload import zipped
from mlhf.fork_server import MODULES
from mlhf.training.clock import Clock
from mlhf.training.run import train

LAYERS: list[dict[str, Any]] = [
    {"type": "conv2d", "out_channels": 16, "padding": 1},
    {"type": "activation"},
    {"type": "max_pool2d"},
    {"type": "conv2d", "out_channels": 16, "padding": 1},
    {"type": "activation"},
    {"type": "flatten"},
    {"type": "linear"},
]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=14_000)
    parser.add_argument("--epochs", type=float, default=6)
    options = parser.parse_args()
    print(f"imports: {imports():.1f} s of CPU; load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as made:
        images, cache = Path(made) / "images", Path(made) / "cache"
        with zipfile.ZipFile(io.BytesIO(zipped(options.images).getvalue())) as archive:
            archive.extractall(images)
        ways: tuple[tuple[str, dict[str, Any], Path | None], ...] = (
            ("as before", {"samples": "all"}, None),
            ("first run", {}, cache),
            ("further run", {}, cache),
        )
        for name, evaluation, folder in ways:
            config = {
                "model": {"name": "sequential", "params": {"layers": LAYERS}},
                "dataset": {"name": "image_folder", "root": str(images)},
                "optimizer": {"name": "adam"},
                "budget": {"epochs": options.epochs},
                "batch_size": 128,
                "evaluation": evaluation,
                "device": "cpu",
                "threads": 1,
            }
            print(f"{name}: {measured(config, folder)}")


def imports() -> float:
    """Return the CPU seconds of a process that imports what a run needs."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", f"import {', '.join(MODULES)}"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measured(config: dict[str, Any], cache: Path | None) -> str:
    """Train, and say where the CPU seconds of this process went."""
    clock, began = Clock(), time.process_time()
    train(config, clock=clock, data_cache=cache)
    total = time.process_time() - began
    training = clock.cpu_seconds("training") or 0.0
    evaluation = clock.cpu_seconds("evaluation") or 0.0
    return (
        f"{total:.1f} s of CPU: training {training:.1f}, evaluation {evaluation:.1f}, "
        f"decoding and all else {total - training - evaluation:.1f}"
    )


if __name__ == "__main__":
    main()
