"""Rows of a long matrix that are not zero: of a table of tokens, those that a batch has."""

from torch import Tensor

_LONG = 4096  # rows, from which on it pays to look
_FEW = 4  # one row in so many


def live_rows(matrix: Tensor) -> Tensor | None:
    """Return the indices of the rows that are not zero, where these are few; None elsewhere.

    On a CPU only: on others the products that this saves are cheaper than waiting for it.

    Args:
        matrix: (n, m), or a stack of matrices, of which nothing is said.
    """
    if matrix.ndim != 2 or len(matrix) < _LONG or matrix.device.type != "cpu":
        return None
    live = matrix.abs().amax(1).nonzero().squeeze(1)  # NaN counts as not zero
    return live if _FEW * len(live) < len(matrix) else None


def with_rows(like: Tensor, live: Tensor, rows: Tensor) -> Tensor:
    """Return a tensor (n, …) that is zero but for these rows."""
    return rows.new_zeros(len(like), *rows.shape[1:]).index_copy_(0, live, rows)
