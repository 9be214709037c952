"""The tasks of the benchmark, as data. Needs no torch.

Four families: MLPs, convolutional networks, residual ones with batch norm, and character models.
All train on the part ``compare`` of their data set, which meta-training must not touch. The
transfer tasks differ from the judged ones: networks 4 times as wide and twice as deep, a horizon
10 times as long, another data set.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from bench.harness.contract import Scale, Task
from mlhf.core.budget import Budget
from mlhf.core.config import Component
from mlhf.training.config import Evaluation

Family = Literal["mlp", "convnet", "resnet", "text"]
FAMILIES: tuple[Family, ...] = ("mlp", "convnet", "resnet", "text")
Kind = Literal["judged", "4x wider", "2x deeper", "10x the horizon", "another data set"]


@dataclass(frozen=True)
class BenchmarkTask:
    """A task with the family it counts for.

    Attributes:
        spec: What is trained, and for how long.
        kind: ``judged``, or how a transfer task differs from the judged one.
    """

    spec: Task
    family: Family
    kind: Kind = "judged"

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def epochs(self) -> float:
        """The horizon, in epochs."""
        return self.spec.budget.epochs or 0.0

    def longer(self, factor: float) -> "BenchmarkTask":
        """Return the same task over ``factor`` times the epochs, at least one."""
        epochs = max(1.0, float(round(self.epochs * factor)))
        return replace(self, spec=replace(self.spec, budget=Budget(epochs=epochs)))


def tasks(scale: Scale) -> Sequence[BenchmarkTask]:
    """Return the judged tasks: ``cpu`` takes seconds a run on one core, ``tiny`` far less."""
    return _SCALES[scale]


def transfers(scale: Scale) -> Sequence[BenchmarkTask]:
    """Return the transfer tasks."""
    return _TRANSFERS[scale]


def _spec(
    name: str, model: Component, data: Component, epochs: float, batch_size: int, every: float = 1
) -> Task:
    evaluation = Evaluation(every_epochs=every, samples="all")
    return Task(name, model, data, Budget(epochs=epochs), batch_size, evaluation)


def _data(name: str, train: int | None, test: int | None, **params: Any) -> Component:
    """Return the part ``compare`` of a data set, cut to so many samples."""
    sizes = {"train_samples": train, "test_samples": test}
    cut = {key: value for key, value in sizes.items() if value is not None}
    return Component(name=name, params={"split": "compare", **params, **cut})


def _layer(kind: str, **params: Any) -> dict[str, Any]:
    return {"type": kind, **params}


def _sequential(*layers: dict[str, Any]) -> Component:
    return Component(name="sequential", params={"layers": list(layers)})


def _mlp(*hidden: int) -> Component:
    return Component(name="mlp", params={"hidden": list(hidden)})


def _convnet(*channels: int, dense: int) -> Component:
    """Return 3x3 convolutions, the first two with pooling, and one hidden dense layer."""
    relu, layers = _layer("activation"), []
    for i, count in enumerate(channels):
        layers += [_layer("conv2d", out_channels=count, padding=1), relu]
        layers += [_layer("max_pool2d")] if i < 2 else []
    dense_layer = _layer("linear", out_features=dense)
    return _sequential(*layers, _layer("flatten"), dense_layer, relu, _layer("linear"))


def _cuda_convnet(width: float) -> Component:
    return Component(name="cuda_convnet", params={"width": width})


def _resnet(depth: int, width: float) -> Component:
    return Component(name="resnet", params={"depth": depth, "width": width})


def _lstm(hidden: int, layers: int = 1) -> Component:
    return _sequential(
        _layer("embedding", dimension=hidden // 2),
        _layer("lstm", hidden_size=hidden, num_layers=layers),
        _layer("linear"),
    )


def _transformer(width: int, blocks: int) -> Component:
    """Return a pre-norm decoder with four heads and dense layers of twice the width."""
    attention = [_layer("layer_norm"), _layer("causal_attention", heads=4)]
    dense = [
        _layer("layer_norm"),
        _layer("linear", out_features=2 * width),
        _layer("activation", function="gelu"),
        _layer("linear", out_features=width),
    ]
    block = [_layer("residual", layers=attention), _layer("residual", layers=dense)]
    return _sequential(
        _layer("embedding", dimension=width),
        _layer("position_embedding"),
        *block * blocks,
        _layer("layer_norm"),
        _layer("linear"),
    )


def _text(length: int, train: int, test: int) -> Component:
    return _data("text", train, test, sequence_length=length)


def _judged_tasks(
    digits: Component,
    fashion: Component,
    small: Component,
    large: Component,
    text: Component,
    epochs: tuple[float, float, float],
    widths: tuple[float, float],
) -> tuple[BenchmarkTask, ...]:
    """Return the eight judged tasks on the given data.

    Args:
        small: CIFAR-10 at 16x16.
        large: CIFAR-10 at 32x32.
        epochs: Of the MLPs, the plain convnet, and the others.
        widths: Of CUDA-convnet and the residual network.
    """
    long, middle, short = epochs
    convnet, resnet = _cuda_convnet(widths[0]), _resnet(8, widths[1])
    return (
        BenchmarkTask(_spec("digits-mlp", _mlp(64, 32), digits, long, 32), "mlp"),
        BenchmarkTask(_spec("fashion-mlp", _mlp(128, 64), fashion, long, 128), "mlp"),
        BenchmarkTask(
            _spec("cifar16-convnet", _convnet(16, 32, dense=64), small, middle, 128), "convnet"
        ),
        BenchmarkTask(_spec("cifar16-cuda-convnet", convnet, small, short, 128), "convnet"),
        BenchmarkTask(_spec("cifar32-cuda-convnet", convnet, large, short, 128), "convnet"),
        BenchmarkTask(_spec("cifar16-resnet", resnet, small, short, 128), "resnet"),
        BenchmarkTask(_spec("text-lstm", _lstm(64), text, short, 16), "text"),
        BenchmarkTask(_spec("text-transformer", _transformer(64, 2), text, short, 16), "text"),
    )


_SCALES: dict[Scale, tuple[BenchmarkTask, ...]] = {
    "tiny": _judged_tasks(
        _data("digits", 96, 64),
        _data("fashion_mnist", 256, 64, size=14),
        _data("cifar10", 256, 64, size=16),
        _data("cifar10", 256, 64),
        _text(16, 64, 16),
        (3, 2, 2),
        (0.125, 0.25),
    ),
    "cpu": _judged_tasks(
        _data("digits", None, None),
        _data("fashion_mnist", 10_000, 1_000, size=14),
        _data("cifar10", 5_000, 1_000, size=16),
        _data("cifar10", 5_000, 1_000),
        _text(64, 640, 160),
        (40, 25, 20),
        (0.125, 0.375),
    ),
    "full": _judged_tasks(
        _data("digits", None, None),
        _data("fashion_mnist", None, None),
        _data("cifar10", None, None, size=16),
        _data("cifar10", None, None),
        _text(128, 3_000, 800),
        (100, 60, 60),
        (1.0, 1.0),
    ),
}


def _transfer_tasks(
    digits: Component, small: Component, fashion: Component, epochs: tuple[float, float]
) -> tuple[BenchmarkTask, ...]:
    """Return variations of the MLP on digits and of the convnet on CIFAR-10 at 16x16.

    Args:
        epochs: Of the MLP and the convnet; the longer runs take ten times those.
    """
    long, middle = epochs
    mlp, convnet = _mlp(64, 32), _convnet(16, 32, dense=64)
    wide, deep = _convnet(64, 128, dense=256), _convnet(16, 16, 32, 32, dense=64)

    def on_digits(name: str, model: Component, kind: Kind, times: float = 1) -> BenchmarkTask:
        spec = _spec(f"digits-mlp-{name}", model, digits, times * long, 32, times)
        return BenchmarkTask(spec, "mlp", kind)

    def on_cifar(name: str, model: Component, kind: Kind, times: float = 1) -> BenchmarkTask:
        spec = _spec(f"cifar16-convnet-{name}", model, small, times * middle, 128, times)
        return BenchmarkTask(spec, "convnet", kind)

    other = _spec("fashion-convnet", convnet, fashion, middle, 128)
    return (
        on_digits("wide", _mlp(256, 128), "4x wider"),
        on_digits("deep", _mlp(64, 64, 32, 32), "2x deeper"),
        on_digits("long", mlp, "10x the horizon", 10),
        on_cifar("wide", wide, "4x wider"),
        on_cifar("deep", deep, "2x deeper"),
        on_cifar("long", convnet, "10x the horizon", 10),
        BenchmarkTask(other, "convnet", "another data set"),
    )


_TRANSFERS: dict[Scale, tuple[BenchmarkTask, ...]] = {
    "tiny": _transfer_tasks(
        _data("digits", 96, 64),
        _data("cifar10", 128, 64, size=16),
        _data("fashion_mnist", 128, 64, size=14),
        (2, 1),
    ),
    "cpu": _transfer_tasks(
        _data("digits", None, None),
        _data("cifar10", 5_000, 1_000, size=16),
        _data("fashion_mnist", 5_000, 1_000, size=14),
        (40, 12),
    ),
    "full": _transfer_tasks(
        _data("digits", None, None),
        _data("cifar10", None, None, size=16),
        _data("fashion_mnist", None, None),
        (100, 60),
    ),
}
