"""Plain convolutional networks, of other sizes than the judge's."""

from typing import Any

from bench.wide.task import Size, Version, WideTask
from mlhf.core.config import Component


def task(version: Version, size: Size) -> WideTask:
    """Return 62,000 parameters on MNIST for 5 x 100 steps; judged: strides and group norm on

    CIFAR-10 at 16x16.
    """
    tiny = size == "tiny"
    if version == "development":
        samples = 300 if tiny else 10_000
        return WideTask(
            "convnet",
            version,
            _pooled,
            Component(name="mnist", params={"train_samples": samples, "test_samples": 1000}),
            steps=10 if tiny else 500,
            batch_size=100,
            train_samples=samples,
            needs=("mnist",),
        )
    samples = 300 if tiny else 5000
    return WideTask(
        "convnet",
        version,
        _strided,
        Component(
            name="cifar10",
            params={
                "size": 16,
                "split": "meta",
                "train_samples": samples,
                "test_samples": 1000,
            },
        ),
        steps=10 if tiny else 600,
        batch_size=80,
        train_samples=samples,
        needs=("cifar10",),
    )


def _layer(kind: str, **params: Any) -> dict[str, Any]:
    return {"type": kind, **params}


def _pooled() -> Component:
    relu, pool = _layer("activation"), _layer("max_pool2d")
    layers = [
        *(_layer("conv2d", out_channels=8, padding=1), relu, pool),
        *(_layer("conv2d", out_channels=16, padding=1), relu, pool),
        *(_layer("flatten"), _layer("linear", out_features=76), relu, _layer("linear")),
    ]
    return Component(name="sequential", params={"layers": layers})


def _strided() -> Component:
    silu = _layer("activation", function="silu")
    layers: list[dict[str, Any]] = []
    for channels in (12, 24, 32):
        layers += [
            _layer("conv2d", out_channels=channels, stride=2, padding=1),
            _layer("group_norm", groups=4),
            silu,
        ]
    layers += [_layer("flatten"), _layer("linear", out_features=48), silu, _layer("linear")]
    return Component(name="sequential", params={"layers": layers})
