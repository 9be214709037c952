"""An orthonormal matrix of which a few columns are given, and the others are arbitrary."""

import torch
from torch import Tensor

from mlhf.optimizers.protocol import State
from mlhf.optimizers.state import restored


class Rotation:
    """U = Π H diag(V, I), the identity until the first ``set``.

    H = I − Y T Yᵀ is a product of Householder reflections, one for each given column, in its
    compact form (Schreiber & Van Loan 1989), and V rotates H's first columns. The reflections
    mix the first coordinates with the others. Π exchanges coordinates so that those are ones
    with a gradient; it is the identity where all have one. U is never formed as an n × n
    matrix: it is multiplied by in four products with n × k matrices.
    """

    def __init__(self) -> None:
        self._exchanged: Tensor | None = None  # Π, (2, k): pairs of coordinates
        self._reflectors: Tensor | None = None  # Y, (n, k), unit lower trapezoidal
        self._scales: Tensor | None = None  # of the reflections, (k,)
        self._triangle: Tensor | None = None  # T, (k, k), upper triangular
        self._vectors: Tensor | None = None  # V

    def exchange(self, live: Tensor | None, count: int) -> None:
        """Set Π so that the first ``count`` coordinates are among the live ones; None: all are."""
        self._exchanged = None if live is None else _exchanges(live, count)

    def exchanged(self, tensor: Tensor, left: bool = True) -> Tensor:
        """Multiply by Π from the left (rows), or the right, in place; it is its own inverse."""
        if self._exchanged is not None:
            to, source = self._exchanged.flatten(), self._exchanged.flip(0).flatten()
            if left:
                tensor[to] = tensor[source]
            else:
                tensor[:, to] = tensor[:, source]
        return tensor

    def reflect_to(self, columns: Tensor | None) -> None:
        """Set H so that its first columns span those of Π times these, (n, k); None: H = I."""
        if columns is None:
            self._reflectors = self._scales = self._triangle = None
            return
        packed, scales = torch.geqrf(columns)
        # Contiguous, as a checkpoint gives it back: products depend on the layout.
        self._set_reflections(packed.contiguous(), scales)

    def _set_reflections(self, packed: Tensor, scales: Tensor) -> None:
        reflectors = packed.tril(-1)
        reflectors.diagonal().fill_(1)
        reflectors *= scales != 0  # a reflection of scale 0 is the identity
        self._reflectors, self._scales = reflectors, scales
        inverse = (reflectors.T @ reflectors).triu(1)  # of T
        inverse.diagonal().copy_(torch.where(scales == 0, 1, 1 / scales))
        identity = torch.eye(len(scales), dtype=packed.dtype, device=packed.device)
        triangle = torch.linalg.solve_triangular(inverse, identity, upper=True)
        self._triangle = triangle.contiguous()

    @property
    def moves(self) -> bool:
        """Whether Π is more than the identity."""
        return self._exchanged is not None

    @property
    def is_identity(self) -> bool:
        """Whether nothing was set yet: then U, Π included, is the identity."""
        return self._vectors is None and self._reflectors is None

    @property
    def span(self) -> Tensor:
        """Π times H's first columns, (n, k)."""
        assert self._reflectors is not None
        assert self._triangle is not None
        k = self._reflectors.shape[1]
        columns = -self._reflectors @ (self._triangle @ self._reflectors[:k].T)
        columns.diagonal().add_(1)
        return self.exchanged(columns)

    def set_vectors(self, vectors: Tensor | None) -> None:
        """Set V, (k, k); None for the identity."""
        self._vectors = None if vectors is None else vectors.contiguous()

    def apply(
        self, matrix: Tensor, *, left: bool, transposed: bool, overwrite: bool = False
    ) -> Tensor:
        """Return UM, UᵀM, MU or MUᵀ, with the shape of M; in its place where that is allowed."""
        if self.is_identity:
            return matrix
        matrix = matrix if overwrite else matrix.clone()
        if left != transposed:
            matrix = self._lead(matrix, left, transposed)
            return self.exchanged(self._reflect(matrix, left, transposed), left)
        matrix = self._reflect(self.exchanged(matrix, left), left, transposed)
        return self._lead(matrix, left, transposed)

    def _lead(self, matrix: Tensor, left: bool, transposed: bool) -> Tensor:
        """Multiply by diag(V, I), in place."""
        if self._vectors is not None:
            vectors = self._vectors.T if transposed else self._vectors
            leading = matrix[: len(vectors)] if left else matrix[:, : len(vectors)]
            leading.copy_(vectors @ leading if left else leading @ vectors)
        return matrix

    def _reflect(self, matrix: Tensor, left: bool, transposed: bool) -> Tensor:
        """Multiply by H, in place."""
        if self._reflectors is None or self._triangle is None:
            return matrix
        triangle = self._triangle.T if transposed else self._triangle
        if left:
            return matrix.addmm_(
                self._reflectors, triangle @ (self._reflectors.T @ matrix), alpha=-1
            )
        return matrix.addmm_((matrix @ self._reflectors) @ triangle, self._reflectors.T, alpha=-1)

    @property
    def reflection(self) -> tuple[Tensor, Tensor] | None:
        """Y and T where U is Π H alone, and H no identity; None elsewhere."""
        if self._vectors is not None or self._reflectors is None or self._triangle is None:
            return None
        return self._reflectors, self._triangle

    def state_dict(self) -> State:
        reflections = None
        if self._reflectors is not None and self._scales is not None:
            reflections = [self._reflectors, self._scales]
        return {
            "exchanged": self._exchanged,
            "reflections": reflections,
            "vectors": self._vectors,
        }

    def load_state_dict(self, state: State, like: Tensor) -> None:
        exchanged = state.get("exchanged")  # older checkpoints have none
        self._exchanged = None if exchanged is None else exchanged.to(like.device, copy=True)
        self.reflect_to(None)
        if state["reflections"] is not None:
            packed, scales = (t.to(like, copy=True) for t in state["reflections"])
            self._set_reflections(packed.contiguous(), scales)
        self._vectors = restored(state["vectors"], like)


def both_sides(
    left: Rotation, right: Rotation, matrix: Tensor, *, there: bool, overwrite: bool = False
) -> Tensor | None:
    """Return U_Lᵀ M U_R, or U_L M U_Rᵀ, in one pass over M where it would take two.

    H_L M H_R is M less one product of rank 2k.

    Args:
        left: U_L.
        right: U_R.
        matrix: M, (n, m).
        there: Which of the two.
        overwrite: Whether M may be lost.

    Returns:
        None where a basis is more than reflections, or none.
    """
    first, second = left.reflection, right.reflection
    if first is None or second is None:
        return None
    (y, t), (z, u) = first, second
    if there:
        if (left.moves or right.moves) and not overwrite:
            matrix, overwrite = matrix.clone(), True
        matrix = right.exchanged(left.exchanged(matrix), left=False)
        t = t.T
    else:
        u = u.T
    above = t @ (y.T @ matrix)  # H_L M = M − Y above
    beside = torch.addmm(matrix @ z, y, above @ z, alpha=-1) @ u
    factors = torch.cat([y, beside], 1), torch.cat([above, z.T])
    if overwrite:
        result = matrix.addmm_(*factors, alpha=-1)
    else:
        result = torch.addmm(matrix, *factors, alpha=-1)
    return result if there else right.exchanged(left.exchanged(result), left=False)


def _exchanges(live: Tensor, count: int) -> Tensor | None:
    """Return pairs of coordinates, (2, k), whose exchange makes the first ``count`` live."""
    first = torch.ones(count, dtype=torch.bool, device=live.device)
    first[live[live < count]] = False
    dead = first.nonzero().squeeze(1)
    return torch.stack([dead, live[live >= count][: len(dead)]]) if len(dead) else None
