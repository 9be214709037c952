"""An equation in place of a data set: its points, and where its solution is known."""

from typing import Any

import torch
from torch import Tensor

from mlhf.data.pde.family import describe, measured_points, solution_values
from mlhf.data.pde.params import PdeParams
from mlhf.training.pde.equations import scaling
from mlhf.training.pde.points import Batch, Draws

_HELD_OUT_SEED = 0  # the same points for every run


class PdeData:
    """What a run needs of an equation.

    Attributes:
        params: The equation.
        info: Its sizes: points of a step, and of the test.
        preprocessing: How a prediction's inputs are scaled, as JSON values.
        sha256: None: there are no files.
        test: Points (n, d) and the solution there (n,), in float64; None where it is unknown.
        held_out: Points of the groups that no step takes.
    """

    sha256: str | None = None

    def __init__(self, params: PdeParams, seed: int) -> None:
        self.params = params
        self.info = describe(params, None)
        middle, half = scaling(params.box)
        self.preprocessing: dict[str, Any] = {
            "kind": "table",
            "mean": middle,
            "std": half,
            "target_mean": [0.0],
            "target_std": [1.0],
            "columns": [{"name": name, "categories": None} for name in params.coordinates.names],
        }
        self.draws = Draws(params, seed)
        self.test: tuple[Tensor, Tensor] | None = None
        if params.has_solution:
            points = measured_points(params)
            values = solution_values(params, points)
            self.test = torch.tensor(points), torch.tensor(values)
        self.held_out: Batch = Draws(params, _HELD_OUT_SEED).draw(-1, "uniform")

    def size(self, split: str) -> int:
        """Return how many points a step takes (``train``), or the test has (``test``)."""
        return self.info.train_samples if split == "train" else self.info.test_samples

    def batch(
        self, split: str, indices: Tensor, device: torch.device | str = "cpu"
    ) -> tuple[Tensor, Tensor]:
        """Refuse: points belong to groups, and a step takes all of them (``Draws``).

        Raises:
            ValueError: always.
        """
        raise ValueError("the points of an equation are drawn in groups, not sample by sample")
