"""Optimizers' options that residuals in groups do not allow. Needs no torch."""

from mlhf.core.config import Strict
from mlhf.core.errors import SpecError
from mlhf.optimizers.params import BatchedParams, KfacParams


def check_optimizer(params: Strict) -> None:
    """Check an optimizer's parsed parameters.

    Raises:
        SpecError: at ``/params/micro_batch``, ``/params/curvature_batch`` or ``/params/fisher``.
    """
    if isinstance(params, KfacParams) and params.fisher != "empirical":
        raise SpecError(
            "/params/fisher",
            f"{params.fisher} draws labels, which the residuals of an equation do not have: take "
            "empirical",
        )
    if not isinstance(params, BatchedParams):
        return
    for name in ("micro_batch", "curvature_batch"):
        if getattr(params, name) is not None:
            raise SpecError(
                f"/params/{name}",
                "the points of an equation are in groups that cannot be cut: leave it out, and "
                "take fewer points (dataset.params.points)",
            )
