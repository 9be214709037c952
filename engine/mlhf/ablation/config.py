"""What an ablation measures, as data. Needs no torch: the service checks and shows it too."""

import re
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from mlhf.training.config import TrainConfig

Measure = Literal["l_p", "residual"]
MEASURES: dict[Measure, str] = {"l_p": "l_p", "residual": "‖r‖/‖b‖"}


@dataclass(frozen=True)
class SolverVariant:
    """One way to solve a step's linear system.

    Attributes:
        name: What tables call it.
        matrix: Which damping: ``learned`` is RNN_s, ``adam`` that of ``hf_adam``.
        preconditioner: ``none``; ``learned``, which is RNN_p; or ``damping``, one over the
            matrix's own damping.
        iterations: Iterations of conjugate gradients.
    """

    name: str
    matrix: Literal["learned", "adam"]
    preconditioner: Literal["none", "learned", "damping"]
    iterations: int

    def stat(self, measure: Measure) -> str:
        """Return the key of a measure of its solve in a step's values."""
        return f"{measure}/{self.name}"

    def metric(self, measure: Measure) -> str:
        """Return the name of the same measure as a metric of the service."""
        return f"{measure}_{re.sub('[^a-z0-9]+', '_', self.name.lower()).strip('_')}"


# The paper's four, then controls without RNN_p: the same systems preconditioned by one over
# RNN_s's damping, and hf_adam's systems, in which nothing is learned.
SOLVER_VARIANTS = (
    SolverVariant("(1) no RNN_p, 20", "learned", "none", 20),
    SolverVariant("(2) no RNN_p, 4", "learned", "none", 4),
    SolverVariant("(3) RNN_p, 2", "learned", "learned", 2),
    SolverVariant("(4) RNN_p, 4", "learned", "learned", 4),
    SolverVariant("P = 1/s, 2", "learned", "damping", 2),
    SolverVariant("P = 1/s, 4", "learned", "damping", 4),
    SolverVariant("hf_adam: P = 1, 20", "adam", "none", 20),
    SolverVariant("hf_adam: P = 1, 4", "adam", "none", 4),
    SolverVariant("hf_adam: P = 1/s, 2", "adam", "damping", 2),
    SolverVariant("hf_adam: P = 1/s, 4", "adam", "damping", 4),
)
STEPPING = "(4) RNN_p, 4"


class AblationConfig(TrainConfig):
    """One trajectory: a run of the paper's ``mlhf``, all variants measured at each step."""

    task: str = Field(description="What tables and figures call it; seeds of one task share it.")
