"""timm and transformers, imported where they are installed."""

import os
import sys
from importlib import import_module
from typing import Any

from torch import library as registration

from mlhf.core.optional import from_extra

_registered: list[registration.Library] = []  # what they define lasts as long as they do


def timm() -> Any:
    """Return the package timm.

    Raises:
        MissingPackageError: where it, or torchvision, is not installed.
    """
    with from_extra("bench"):
        import_torchvision()
        return import_module("timm")


def transformers() -> Any:
    """Return the package transformers, which then fetches nothing.

    Raises:
        MissingPackageError: where it is not installed.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with from_extra("bench"):
        import_torchvision()  # transformers imports it where it is installed
        found = import_module("transformers")
    found.logging.set_verbosity_error()
    return found


def versions() -> dict[str, str]:
    """Return the version of each library.

    Raises:
        MissingPackageError: where one is not installed.
    """
    return {library.__name__: library.__version__ for library in (timm(), transformers())}


def import_torchvision() -> None:
    """Import torchvision where it is installed; where its compiled operators fail, declare them.

    Those of its wheel for CUDA do not load into a torch for CPUs. No network here uses one.
    """
    try:
        import_module("torchvision")
        return
    except ModuleNotFoundError:
        return
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    operators = registration.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        schema = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        operators.define(schema)  # type: ignore[no-untyped-call]
    _registered.append(operators)
    import_module("torchvision")
