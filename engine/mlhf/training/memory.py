"""How much memory a training process needs at its peak, by arithmetic. Needs no torch.

The terms are those that a run's arrays have; their factors were fitted to the peaks that
``python -m bench.memory`` measures, of ten networks with nine optimizers each on a CPU.
"""

from math import ceil, prod

from mlhf.core.config import Strict
from mlhf.data.info import DataInfo
from mlhf.models.specs import ModelSummary
from mlhf.optimizers.params import MLHFParams, ShampooParams
from mlhf.optimizers.specs import OPTIMIZERS

PROCESS_BYTES = 300 * 2**20  # Python and torch, before there is a network
FLOAT_BYTES = 4

# Vectors of the parameters' size, with the gradient and what a checkpoint copies, where the
# registry's count of state leaves these out; beside them, floats per float of all squared sides.
_COPIES = {"sgd": 3.0, "momentum": 6.0, "nesterov": 6.0, "adam": 9.0, "adamw": 9.0, "l2l": 320.0}
_COPIES |= {"kfac": 5.0, "shampoo": 9.0, "mlhf": 27.0}
_PAPER_COPIES = 140.0
_SIDES = {"kfac": 8.7, "mlhf": 6.2}
_BLOCKS = 5.5
_LONGEST_SIDE = 4608
_EVALUATED = 256  # samples that are evaluated at once, at least
_KEPT_IN_EVALUATION = 0.6  # of the activations


def training_bytes(
    summary: ModelSummary, info: DataInfo, optimizer: str, params: Strict, batch_size: int
) -> tuple[int, int]:
    """Return the bytes of a run's process at its peak, and how many of them the batch takes.

    Args:
        summary: The network's sizes.
        info: The data's.
        optimizer: Its registered name.
        params: Its parsed parameters.
        batch_size: Samples of a step.
    """
    copies = 1 + _COPIES.get(optimizer, OPTIMIZERS[optimizer].state_copies)
    factors = _SIDES.get(optimizer, 0.0) * sum(
        side**2 for matrix in summary.matrices for side in matrix if side <= _LONGEST_SIDE
    )
    if isinstance(params, MLHFParams) and params.variant == "paper":
        copies, factors = _PAPER_COPIES, 0.0
    if isinstance(params, ShampooParams):
        factors = _BLOCKS * sum(
            _blocks(rows, columns, params.block_size) for rows, columns in summary.matrices
        )
    kept = 3 if OPTIMIZERS[optimizer].second_order else 2
    evaluated = min(max(batch_size, _EVALUATED), max(info.train_samples, info.test_samples))
    of_batch = summary.activations * max(kept * batch_size, _KEPT_IN_EVALUATION * evaluated)
    floats = summary.parameters * copies + factors + of_batch
    total = PROCESS_BYTES + _data_bytes(info) + FLOAT_BYTES * floats
    return round(total), round(FLOAT_BYTES * of_batch)


def _blocks(rows: int, columns: int, size: int) -> int:
    """Return the floats of both factors of all blocks of a matrix."""
    each = min(rows, size) ** 2 + min(columns, size) ** 2
    return ceil(rows / size) * ceil(columns / size) * each


def _data_bytes(info: DataInfo) -> int:
    values = (info.train_samples + info.test_samples) * prod(info.input_shape)
    return values if info.kind == "image" else FLOAT_BYTES * values
