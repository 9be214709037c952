"""MLHF's engine: Hessian-free optimizers, their baselines, and the training they run in.

Importing this package is cheap: torch is loaded when a name that needs it is used, so that
the service can read the specifications without it.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "EmpiricalFisher": "engine.curvature.fisher",
    "GGN": "engine.curvature.ggn",
    "Hessian": "engine.curvature.hessian",
    "HessianFree": "engine.optimizers.hessian_free",
    "load_model": "engine.models.files",
    "meta_train": "engine.meta.run",
    "MetaCheckpoint": "engine.mlhf.meta_checkpoint",
    "MetaTrainConfig": "engine.meta.config",
    "MLHF": "engine.mlhf.variants",
    "train": "engine.training.loop",
    "TrainConfig": "engine.training.config",
}

__all__ = [
    "GGN",
    "MLHF",
    "EmpiricalFisher",
    "Hessian",
    "HessianFree",
    "MetaCheckpoint",
    "MetaTrainConfig",
    "TrainConfig",
    "__version__",
    "load_model",
    "meta_train",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'engine' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
