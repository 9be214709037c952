"""The paper's experiments at three scales.

``full`` is the paper's, ``cpu`` takes minutes on one core, ``tiny`` only shows that all of it
runs.
"""

from collections.abc import Callable

from bench.harness.contract import (
    Experiment,
    Scale,
    Setting,
    Task,
)
from bench.paper.ablation import Ablation
from bench.paper.comparison import Comparison
from mlhf.core.budget import Budget
from mlhf.core.config import Component
from mlhf.training.config import Evaluation

_RATES = tuple({"lr": lr} for lr in (1e-1, 1e-2, 1e-3))

# First-order rates from the paper's grid; everything else at the defaults of mlhf.
SETTINGS = (
    Setting("sgd + momentum", "momentum", grid=_RATES),
    Setting("adam", "adam", grid=_RATES),
    Setting("rmsprop", "rmsprop", grid=_RATES),
    Setting("kfac", "kfac"),
    Setting("hf", "hf"),
    Setting("hf_adam", "hf_adam"),
    Setting("mlhf", "mlhf", {"variant": "paper"}),
    Setting("mlhf, untrained", "mlhf", {"variant": "paper", "meta_checkpoint": "none"}),
)
# The paper's own settings of two peers, with batches of 512.
PAPER_SETTINGS = (
    Setting("kfac (paper's)", "kfac", {"lr": 0.1, "damping": 1e-3}, batch_size=512),
    Setting("hf (paper's)", "hf", {"lr": 0.01, "damping": 5e-3, "iterations": 20}, batch_size=512),
)


def _convnet(scale: Scale, batch_size: int, epochs: tuple[float, float]) -> Task:
    """Return CUDA-convnet on CIFAR-10, for so many epochs at full and CPU scale."""
    full = scale == "full"
    fewer = {} if full else {"size": 16, "train_samples": 2000, "test_samples": 2000}
    return Task(
        "cuda-convnet",
        Component(name="cuda_convnet", params={} if full else {"width": 0.25}),
        Component(name="cifar10", params={"split": "compare", **fewer}),
        Budget(epochs=epochs[0] if full else epochs[1]),
        batch_size,
    )


def _digits(epochs: float, samples: int | None = None) -> Task:
    params = {} if samples is None else {"train_samples": samples}
    return Task(
        "mlp-digits",
        Component(name="mlp", params={"hidden": [64, 32]}),
        Component(name="digits", params=params),
        Budget(epochs=epochs),
        64,
        Evaluation(every_epochs=1, samples="all"),
    )


def experiment1(scale: Scale) -> Comparison:
    """Return section 6.1: CUDA-convnet on CIFAR-10 against its peers."""
    task = _digits(2, 256) if scale == "tiny" else _convnet(scale, 128, (250, 12))
    settings = (*SETTINGS, *PAPER_SETTINGS) if scale == "full" else SETTINGS
    return Comparison(f"Experiment 1, scale {scale}", task, settings)


def experiment3(scale: Scale) -> Ablation:
    """Return section 6.3: the ablation of RNN_p."""
    tasks = {
        "tiny": [_digits(1, 256)],
        "cpu": [_digits(10), _convnet("cpu", 64, (250, 4))],
        "full": [_convnet("full", 128, (250, 4))],
    }[scale]
    return Ablation(f"Experiment 3, scale {scale}", tasks)


EXPERIMENTS: dict[str, tuple[str, Callable[[Scale], Experiment]]] = {
    "experiment1": ("CUDA-convnet on CIFAR-10 against its peers (section 6.1)", experiment1),
    "experiment3": ("what RNN_p is worth: the ablation (section 6.3)", experiment3),
}


def experiment(name: str, scale: Scale) -> Experiment:
    """Return an experiment by its name."""
    return EXPERIMENTS[name][1](scale)
