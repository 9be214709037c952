"""Fewer points of a curve that still show its ends and its extremes."""

import numpy as np
import numpy.typing as npt

METHOD = "min_max_buckets"
DESCRIPTION = (
    "The first and the last point, values that are not finite, and the smallest and the "
    "largest value of each of equally many consecutive points are kept; no value is averaged."
)
MIN_POINTS = 4  # first, last, smallest, largest


def select(
    values: npt.NDArray[np.float64],
    limit: int,
    ranks: npt.NDArray[np.float64] | None = None,
) -> npt.NDArray[np.intp]:
    """Choose which points to keep.

    Args:
        values: The curve's values in order, shape (n,).
        limit: The most points to keep, at least 4.
        ranks: Their places among all points of the curve, ascending, where some of these were
            left out before; then buckets hold equally many of all.

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
        kept.append(inner[extremes(values[inner], _buckets(inner, left // 2, ranks))])
    return np.unique(np.concatenate(kept))


def _buckets(
    inner: npt.NDArray[np.intp], count: int, ranks: npt.NDArray[np.float64] | None
) -> npt.NDArray[np.intp]:
    """The bucket of each of the points, from 0 to count - 1."""
    if ranks is None:
        return np.arange(len(inner)) * count // len(inner)
    first, last = ranks[inner[0]], ranks[inner[-1]]
    share = (ranks[inner] - first) / max(last - first, 1.0)
    return np.asarray(np.minimum(share * count, count - 1), dtype=np.intp)


def extremes(
    values: npt.NDArray[np.float64], buckets: npt.NDArray[np.intp]
) -> npt.NDArray[np.intp]:
    """Where each bucket is smallest and largest; ``buckets`` ascends."""
    starts = np.flatnonzero(np.r_[True, np.diff(buckets) > 0])
    ends = np.r_[starts[1:], len(buckets)]
    smallest, largest = (
        np.flatnonzero(values == np.repeat(of.reduceat(values, starts), ends - starts))
        for of in (np.minimum, np.maximum)
    )
    first = np.searchsorted(smallest, starts, "left")
    last = np.searchsorted(largest, ends, "left") - 1
    return np.concatenate([smallest[first], largest[last]])


def _thinned(indices: npt.NDArray[np.intp], room: int) -> npt.NDArray[np.intp]:
    if len(indices) <= room:
        return indices
    return (
        indices[np.linspace(0, len(indices) - 1, room).round().astype(int)] if room else indices[:0]
    )
