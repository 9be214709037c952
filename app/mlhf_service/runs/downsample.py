"""Fewer points of a curve that still show its ends and its extremes."""

import numpy as np
import numpy.typing as npt

METHOD = "min_max_buckets"
DESCRIPTION = (
    "The first and the last point, values that are not finite, and the smallest and the "
    "largest value of each of equally many consecutive points are kept; no value is averaged."
)
MIN_POINTS = 4  # first, last, smallest, largest


def select(values: npt.NDArray[np.float64], limit: int) -> npt.NDArray[np.intp]:
    """Choose which points to keep.

    Args:
        values: The curve's values in order, shape (n,).
        limit: The most points to keep, at least 4.

    Returns:
        Indices in ascending order, at most ``limit``. All when n ≤ limit; else the first and
        the last, those not finite (evenly thinned where they alone would fill half of the
        room), and the smallest and the largest of each bucket of consecutive finite values,
        so always the smallest and the largest of all.
    """
    if limit < MIN_POINTS:
        raise ValueError(f"at least {MIN_POINTS} points are needed")
    count = len(values)
    if count <= limit:
        return np.arange(count)
    finite = np.isfinite(values)
    finite[[0, -1]] = False  # kept anyway
    inner = np.flatnonzero(finite)
    odd = np.setdiff1d(np.flatnonzero(~finite), [0, count - 1])
    room = max((limit - MIN_POINTS + 1) // 2, limit - 2 - len(inner))
    kept = [np.array([0, count - 1]), _thinned(odd, room)]
    left = limit - 2 - len(kept[1])
    if len(inner) <= left:
        kept.append(inner)
    else:
        for bucket in np.array_split(inner, left // 2):
            at = values[bucket]
            kept.append(bucket[[at.argmin(), at.argmax()]])
    return np.unique(np.concatenate(kept))


def _thinned(indices: npt.NDArray[np.intp], room: int) -> npt.NDArray[np.intp]:
    if len(indices) <= room:
        return indices
    return (
        indices[np.linspace(0, len(indices) - 1, room).round().astype(int)] if room else indices[:0]
    )
