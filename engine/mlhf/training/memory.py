"""How much memory a training process needs at its peak, by arithmetic. Needs no torch.

The terms are those that a run's arrays have; their factors were fitted to the peaks that
``python -m bench.memory`` measures, of ten networks with nine optimizers each on a CPU.
"""

from math import ceil, prod

from mlhf.core.config import Strict
from mlhf.core.errors import SpecError
from mlhf.data.info import DataInfo
from mlhf.models.specs import ModelSummary
from mlhf.optimizers.gauss_newton.memory_plan import memory_plan, too_little
from mlhf.optimizers.params import DenseParams, MLHFParams, ShampooParams
from mlhf.optimizers.specs import OPTIMIZERS

PROCESS_BYTES = 300 * 2**20  # Python and torch, before there is a network
FLOAT_BYTES = 4

# Vectors of the parameters' size, with the gradient and what a checkpoint copies, where the
# registry's count of state leaves these out; beside them, floats per float of all squared sides.
_COPIES = {"sgd": 3.0, "momentum": 6.0, "nesterov": 6.0, "adam": 9.0, "adamw": 9.0, "l2l": 320.0}
_COPIES |= {"kfac": 5.0, "shampoo": 9.0, "kl_shampoo": 9.0, "mlhf": 27.0}
_PAPER_COPIES = 140.0
_SIDES = {"kfac": 8.7, "mlhf": 6.2}
_BLOCKS = 5.5
_KEPT_CONSTANTS = 2
_LONGEST_SIDE = 4608
_SHORT_SIDE, _WHOLE_SIDE, _WHOLE_RATIO, _SKETCH = 256, 1024, 9, 64  # of MLHF (factor_basis.py)
_EVALUATED = 256  # samples that are evaluated at once, at least
_KEPT_IN_EVALUATION = 0.6  # of the activations


def training_bytes(
    summary: ModelSummary,
    info: DataInfo,
    optimizer: str,
    params: Strict,
    batch_size: int,
    dtype: str = "float32",
    derivatives: int = 0,
) -> tuple[int, int]:
    """Return the bytes of a run's process at its peak, and how many of them the batch takes.

    Args:
        summary: The network's sizes.
        info: The data's.
        optimizer: Its registered name.
        params: Its parsed parameters.
        batch_size: Samples of a step.
        dtype: Of the network.
        derivatives: How many of its outputs a step takes in its inputs, each with activations
            of its own.
    """
    copies = 1 + _COPIES.get(optimizer, OPTIMIZERS[optimizer].state_copies)
    squared = _squared if optimizer == "kfac" else _kept_of_side
    factors = _SIDES.get(optimizer, 0.0) * sum(
        squared(*sides) for a, b in summary.matrices for sides in ((a, b), (b, a))
    )
    if isinstance(params, MLHFParams) and params.variant == "paper":
        copies, factors = _PAPER_COPIES, 0.0
    if isinstance(params, ShampooParams):
        factors = _BLOCKS * sum(
            _blocks(rows, columns, params.block_size) for rows, columns in summary.matrices
        )
    size = _itemsize(dtype)
    rows = 0
    if isinstance(params, DenseParams):
        plan = memory_plan(batch_size * info.outputs, summary.parameters, size, params.memory_bytes)
        rows = 0 if plan is None else plan.bytes
    elif isinstance(params, MLHFParams) and params.variant == "kronecker" and derivatives:
        plan = memory_plan(batch_size * info.outputs, summary.parameters, size)
        rows = 0 if plan is None or plan.space == "iterative" else plan.bytes
    kept = 3 if OPTIMIZERS[optimizer].second_order else 2
    evaluated = min(max(batch_size, _EVALUATED), max(info.train_samples, info.test_samples))
    of_batch = (
        (1 + derivatives)
        * summary.activations
        * max(kept * batch_size, _KEPT_IN_EVALUATION * evaluated)
    )
    floats = summary.parameters * copies + factors + of_batch
    floats += _KEPT_CONSTANTS * summary.constants
    total = PROCESS_BYTES + _data_bytes(info) + size * floats + rows
    return round(total), round(size * of_batch)


def check_memory_bytes(
    summary: ModelSummary, info: DataInfo, params: Strict, batch_size: int, dtype: str
) -> None:
    """Check that a step of an optimizer of dense factors fits into its own bound.

    Args:
        params: The optimizer's parsed parameters.

    Raises:
        SpecError: at ``/params/memory_bytes``.
    """
    if not isinstance(params, DenseParams):
        return
    size = _itemsize(dtype)
    rows, bound = batch_size * info.outputs, params.memory_bytes
    if memory_plan(rows, summary.parameters, size, bound) is None:
        message = too_little(summary.parameters, size, bound)
        raise SpecError("/params/memory_bytes", message)


def _itemsize(dtype: str) -> int:
    return 2 * FLOAT_BYTES if dtype == "float64" else FLOAT_BYTES


def _squared(side: int, other: int) -> int:
    return side**2 if side <= _LONGEST_SIDE else 0


def _kept_of_side(side: int, other: int) -> int:
    """Return the floats of a side's factor for MLHF: of a long one a sketch is kept."""
    tracked = side > max(_SHORT_SIDE, min(_WHOLE_SIDE, _WHOLE_RATIO * other))
    return _squared(side, other) if not tracked else min(_squared(side, other), _SKETCH * side)


def _blocks(rows: int, columns: int, size: int) -> int:
    """Return the floats of both factors of all blocks of a matrix."""
    each = min(rows, size) ** 2 + min(columns, size) ** 2
    return ceil(rows / size) * ceil(columns / size) * each


def _data_bytes(info: DataInfo) -> int:
    values = (info.train_samples + info.test_samples) * prod(info.input_shape)
    return values if info.kind == "image" else FLOAT_BYTES * values
