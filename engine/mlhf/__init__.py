"""MLHF: Hessian-free optimizers, their peers, and the training they run in.

Importing this package is cheap: torch is loaded when a name that needs it is used, so that
the service can read the specifications without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from mlhf.core.version import __version__

if TYPE_CHECKING:
    from mlhf.curvature.fisher import EmpiricalFisher
    from mlhf.curvature.ggn import GGN
    from mlhf.curvature.hessian import Hessian
    from mlhf.curvature.residuals import Residuals
    from mlhf.meta.config import MetaTrainConfig
    from mlhf.meta.run import meta_train
    from mlhf.models.files import LoadedModel, load_model
    from mlhf.models.graph.trace import trace
    from mlhf.models.roi_align import roi_align
    from mlhf.optimizers.gauss_newton.optimizer import GaussNewton
    from mlhf.optimizers.hessian_free import HessianFree
    from mlhf.optimizers.learned.meta_checkpoint import MetaCheckpoint
    from mlhf.optimizers.mlhf.variants import MLHF
    from mlhf.training.config import TrainConfig
    from mlhf.training.run import train

_HOME = {
    "EmpiricalFisher": "mlhf.curvature.fisher",
    "GGN": "mlhf.curvature.ggn",
    "GaussNewton": "mlhf.optimizers.gauss_newton.optimizer",
    "Hessian": "mlhf.curvature.hessian",
    "HessianFree": "mlhf.optimizers.hessian_free",
    "LoadedModel": "mlhf.models.files",
    "MLHF": "mlhf.optimizers.mlhf.variants",
    "MetaCheckpoint": "mlhf.optimizers.learned.meta_checkpoint",
    "MetaTrainConfig": "mlhf.meta.config",
    "Residuals": "mlhf.curvature.residuals",
    "TrainConfig": "mlhf.training.config",
    "load_model": "mlhf.models.files",
    "meta_train": "mlhf.meta.run",
    "roi_align": "mlhf.models.roi_align",
    "trace": "mlhf.models.graph.trace",
    "train": "mlhf.training.run",
}

__all__ = [
    "GGN",
    "MLHF",
    "EmpiricalFisher",
    "GaussNewton",
    "Hessian",
    "HessianFree",
    "LoadedModel",
    "MetaCheckpoint",
    "MetaTrainConfig",
    "Residuals",
    "TrainConfig",
    "__version__",
    "load_model",
    "meta_train",
    "roi_align",
    "trace",
    "train",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'mlhf' has no attribute {name!r}")
    value: object = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
