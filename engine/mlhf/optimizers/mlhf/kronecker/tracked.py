"""The leading eigenvectors of a factor that is too large to be kept.

Of a running mean of outer products over n coordinates only a sketch of k rows is kept, S with
SᵀS ≈ F, and F's diagonal. It costs k n numbers in place of n², and an update takes products with
(k + m) rows in place of ones with n.
"""

import torch
from torch import Tensor

from mlhf.curvature.eigh import eigh
from mlhf.optimizers.mlhf.kronecker.rotation import Rotation
from mlhf.optimizers.protocol import State
from mlhf.optimizers.state import restored


class TrackedEigenbasis:
    """The leading eigenvectors of a running mean, completed by an arbitrary orthonormal basis.

    Each update replaces the sketch by the best one of rank k for its own mean with the new rows
    (incremental singular value decomposition; Brand 2006). What it leaves out is known by its
    trace, from the diagonal: each direction of the rest gets the mean of it. More new rows than k
    are mixed to k first.

    Args:
        count: k, how many eigenvectors at most.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._sketch: Tensor | None = None  # S, (k, n), its rows orthogonal, the largest first
        self._updates = 0
        self._rotation = Rotation()

    def limit(self, count: int) -> None:
        """Have at most so many eigenvectors; before the first update."""
        if self._sketch is None:
            self._count = min(self._count, count)

    def include(self, rows: Tensor, kept: float) -> None:
        """Update the running mean.

        Args:
            rows: X, (m, n), whose XᵀX is the new factor.
            kept: The weight that the mean before keeps.
        """
        rows = _mixed(rows, self._count, self._updates)
        self._updates += 1
        if self._sketch is not None:
            rows = torch.cat([self._sketch * kept**0.5, rows * (1 - kept) ** 0.5])
        # In float64: in float32 the vectors of a matrix of low rank may not be finite.
        values, vectors = eigh((rows @ rows.T).double())
        known = values > torch.finfo(rows.dtype).eps * values[-1]  # others are rounding
        leading = torch.where(known, vectors, 0)[:, -self._count :].flip(1).T
        self._sketch = leading.to(rows) @ rows

    def refresh(self, factor: Tensor) -> Tensor:
        """Move U to the sketch's directions.

        Args:
            factor: F's diagonal, (n,).
        """
        size = len(factor)
        if self._sketch is None:
            return factor
        live = factor != 0
        alive = None if bool(live.all()) else live.nonzero().squeeze(1)
        sketch = self._sketch
        count = min(len(sketch), size if alive is None else len(alive))
        lengths = sketch[:count].norm(dim=1)
        self._rotation.exchange(alive, count)
        tiny = torch.finfo(lengths.dtype).tiny
        columns = (sketch[:count] / lengths.clamp_min(tiny).unsqueeze(1)).T.contiguous()
        self._rotation.reflect_to(self._rotation.exchanged(columns))
        self._rotation.set_vectors(None)
        values = lengths.square()
        rest = (factor.sum() - values.sum()).clamp_min(0) / max(1, size - count)
        return torch.cat([values, rest.expand(size - count)])

    def rotate(
        self, matrix: Tensor, *, left: bool, transposed: bool, overwrite: bool = False
    ) -> Tensor:
        return self._rotation.apply(matrix, left=left, transposed=transposed, overwrite=overwrite)

    @property
    def rotation(self) -> Rotation:
        """U."""
        return self._rotation

    def numbers(self, size: int) -> int:
        return size + 2 * self._count * size + self._count**2

    @property
    def state(self) -> list[object]:
        return [self, self._rotation]

    def state_dict(self) -> State:
        own = {"sketch": self._sketch, "updates": self._updates}
        return {**self._rotation.state_dict(), **own}

    def load_state_dict(self, state: State, like: Tensor) -> None:
        self._rotation.load_state_dict(state, like)
        self._updates = int(state.get("updates", 0))
        self._sketch = restored(state.get("sketch"), like)
        if self._sketch is not None:
            self._count = len(self._sketch)

    def adopt(self, factor: Tensor) -> None:
        """Take over a factor that was kept in full, (n, n), as older checkpoints have it."""
        generator = torch.Generator().manual_seed(0)
        random = torch.randn(len(factor), 2 * self._count, generator=generator).to(factor)
        span = torch.linalg.qr(factor @ random)[0]
        values, vectors = eigh(span.T @ factor @ span)
        rows = (span @ vectors * values.clamp_min(0).sqrt()).T
        self._sketch = rows[-self._count :].flip(0).contiguous()


def _mixed(rows: Tensor, most: int, seed: int) -> Tensor:
    """Return at most so many rows whose XᵀX is nearly that of the rows in expectation.

    Each row is added with a random sign to one of them (a count sketch; Clarkson & Woodruff 2013).
    They are scaled to the trace of the rows: what a sketch leaves out is known by it.
    """
    if len(rows) <= most:
        return rows
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(2, (len(rows), 1), generator=generator).to(rows) * 2 - 1
    signed, whole = rows * signs, len(rows) // most * most
    mixed = signed[:whole].view(-1, most, rows.shape[1]).sum(0)
    mixed[: len(rows) - whole] += signed[whole:]
    tiny = torch.finfo(rows.dtype).tiny
    return mixed * (rows.square().sum() / mixed.square().sum().clamp_min(tiny)).sqrt()
