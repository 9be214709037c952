"""Errors of curvature products."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

REENTRANT = (
    "a part of this network is checkpointed with use_reentrant=True, which torch supports in "
    "plain backward passes only: use torch.utils.checkpoint.checkpoint(..., use_reentrant=False) "
    "(transformers: gradient_checkpointing_enable({'use_reentrant': False}))"
)
_ONCE = re.compile(r"derivative for aten::(\w+?)(?:_backward\w*)? is not implemented")


class CurvatureError(RuntimeError):
    """A curvature product that cannot be computed correctly; the message says why."""


@contextmanager
def explained() -> Iterator[None]:
    """Raise what torch's errors within mean for curvature products, where that is known.

    Raises:
        CurvatureError: in their place.
    """
    try:
        yield
    except RuntimeError as error:
        message = str(error)
        if "use_reentrant=True" in message:
            raise CurvatureError(REENTRANT) from error
        once = _ONCE.search(message)
        if once:
            raise CurvatureError(
                f"{once[1].lstrip('_')} has no second derivative in torch, which curvature needs: "
                "replace it, or use what needs the first alone: "
                "HessianFree(curvature=EmpiricalFisher), with samples along the first dimension"
            ) from error
        raise
