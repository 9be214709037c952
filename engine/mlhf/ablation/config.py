"""What an ablation measures, as data. Needs no torch: the service checks and shows it too."""

import re
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from mlhf.training.config import TrainConfig

Measure = Literal["l_p", "residual"]
MEASURES: dict[Measure, str] = {"l_p": "l_p", "residual": "‖r‖/‖b‖"}


@dataclass(frozen=True)
class Form:
    """One way to solve.

    Attributes:
        name: What tables call it.
        matrix: Which damping: ``learned`` is RNN_s, ``adam`` that of ``hf_adam``.
        preconditioner: ``none``; ``learned``, which is RNN_p; or ``damping``, one over the
            matrix's own damping.
        iterations: Of conjugate gradients.
    """

    name: str
    matrix: Literal["learned", "adam"]
    preconditioner: Literal["none", "learned", "damping"]
    iterations: int

    def stat(self, measure: Measure) -> str:
        """Return the name of a measure of its solve among a step's values."""
        return f"{measure}/{self.name}"

    def metric(self, measure: Measure) -> str:
        """Return the same as a metric of the service, whose names are plain words."""
        return f"{measure}_{re.sub('[^a-z0-9]+', '_', self.name.lower()).strip('_')}"


# The paper's four, then controls without RNN_p: one over RNN_s's damping as preconditioner of
# the same systems, and hf_adam's systems, in which nothing is learned.
FORMS = (
    Form("(1) no RNN_p, 20", "learned", "none", 20),
    Form("(2) no RNN_p, 4", "learned", "none", 4),
    Form("(3) RNN_p, 2", "learned", "learned", 2),
    Form("(4) RNN_p, 4", "learned", "learned", 4),
    Form("P = 1/s, 2", "learned", "damping", 2),
    Form("P = 1/s, 4", "learned", "damping", 4),
    Form("hf_adam: P = 1, 20", "adam", "none", 20),
    Form("hf_adam: P = 1, 4", "adam", "none", 4),
    Form("hf_adam: P = 1/s, 2", "adam", "damping", 2),
    Form("hf_adam: P = 1/s, 4", "adam", "damping", 4),
)
STEPPING = "(4) RNN_p, 4"


class AblationConfig(TrainConfig):
    """One trajectory: a run of the paper's ``mlhf``, all forms measured at each step."""

    task: str = Field(description="What tables and figures call it; seeds of one task share it.")
