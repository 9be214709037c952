"""Gated recurrent units over the rows of images."""

from typing import Any

from bench.wide.task import Size, Version, WideTask
from mlhf.core.config import Component


def task(version: Version, size: Size) -> WideTask:
    """Return GRU-32 over digits' 8 rows; judged: GRU-48 over 14 rows of Fashion-MNIST."""
    tiny = size == "tiny"
    if version == "development":
        samples = 200 if tiny else 1438
        return WideTask(
            "recurrent",
            version,
            lambda: _network(32),
            Component(name="digits", params={"train_samples": samples} if tiny else {}),
            steps=20 if tiny else 900,
            batch_size=32,
            train_samples=samples,
        )
    samples = 200 if tiny else 5000
    return WideTask(
        "recurrent",
        version,
        lambda: _network(48),
        Component(
            name="fashion_mnist",
            params={"size": 14, "train_samples": samples, "test_samples": 1000},
        ),
        steps=20 if tiny else 800,
        batch_size=64,
        train_samples=samples,
    )


def _network(hidden: int) -> Component:
    layers: list[dict[str, Any]] = [
        {"type": "image_rows"},
        {"type": "gru", "hidden_size": hidden},
        {"type": "last_step"},
        {"type": "linear"},
    ]
    return Component(name="sequential", params={"layers": layers})
