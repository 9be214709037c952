"""What a client is shown of an ablation."""

from pydantic import BaseModel, Field

from mlhf_service.runs.metrics import Number


class Spread(BaseModel):
    """A value over seeds; NaN where a seed diverged."""

    mean: Number
    lowest: Number
    highest: Number


class AblationRow(BaseModel):
    """One form of solving on one task: means over all steps, then over seeds."""

    task: str
    damping: str = Field(description="`learned`: RNN_s. `adam`: that of hf_adam, not learned.")
    form: str
    seeds: int
    steps: int
    l_p: Spread = Field(description="Lower is better; does not compare between dampings.")
    part: Spread = Field(
        description="l_p as a part of the longest solve's of the same damping, taken step by "
        "step: higher is better."
    )
    residual: Spread = Field(description="‖r‖/‖b‖: lower is better.")


class Ablation(BaseModel):
    """The table of an ablation, of those of its runs that have ended so far."""

    job_id: str
    runs: int = Field(description="Trajectories of the job: tasks × seeds.")
    done: int = Field(description="Those of them that the table is of.")
    rows: list[AblationRow]
