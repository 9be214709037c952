"""Batches that batch norm cannot train on. Needs no torch: the service checks them too.

In training, batch norm takes each channel's mean over a batch's samples and, in images, their
pixels. One sample of one pixel leaves a single value, whose deviation from its mean is zero
whatever it is; torch refuses it. An epoch's last batch is never a single sample
(``mlhf.core.budget.Epoch``).
"""

from collections.abc import Iterable

from mlhf.core.budget import Epoch
from mlhf.core.config import Strict
from mlhf.core.errors import SpecError
from mlhf.models.specs import ModelSummary
from mlhf.optimizers.params import BatchedParams


def check_batches(summary: ModelSummary, epoch: Epoch) -> None:
    """Check that batch norm has more than one value in each batch of an epoch.

    Raises:
        SpecError: at ``/batch_size``.
    """
    if summary.normalized_over == 1 and 1 in epoch.batch_sizes:
        enough = "" if epoch.train_samples > 1 else ", of a training set of at least 2 samples"
        raise SpecError(
            "/batch_size",
            f"{epoch.batch_size} is too small for batch norm, which would take a mean over a "
            f"single value. Take a batch of at least 2 samples{enough}, or layer_norm or "
            "group_norm in place of batch_norm.",
        )


def check_microbatches(summary: ModelSummary, params: Strict, epoch: Epoch) -> None:
    """Check the same of what an optimizer cuts batches into.

    Args:
        params: The optimizer's parsed parameters.

    Raises:
        SpecError: at ``/params/micro_batch`` or ``/params/curvature_batch``.
    """
    if summary.normalized_over != 1 or not isinstance(params, BatchedParams):
        return
    for samples in sorted(epoch.batch_sizes):
        curved = min(params.curvature_batch or samples, samples)
        if params.curvature_batch is not None and 1 in (curved, samples - curved):
            raise _cut("curvature_batch", params.curvature_batch, samples)
        if params.micro_batch is not None and 1 in _sizes(
            (curved, samples - curved), params.micro_batch
        ):
            raise _cut("micro_batch", params.micro_batch, samples)


def _sizes(ranges: Iterable[int], size: int) -> set[int]:
    """Return the sizes that ranges of samples are cut into, each at most ``size``."""
    sizes = set()
    for samples in ranges:
        sizes |= {min(size, samples), samples % size}
    return sizes


def _cut(name: str, value: int, samples: int) -> SpecError:
    return SpecError(
        f"/params/{name}",
        f"{value} cuts a batch of {samples} so that one sample is computed by itself, and batch "
        "norm would take a mean over a single value. Take another size, or layer_norm or "
        "group_norm in place of batch_norm.",
    )
