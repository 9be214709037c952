"""What is shown of a meta-checkpoint."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints

from mlhf.core.config import Strict

Alias = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.\-]{0,63}$")]


class MetaCheckpointView(BaseModel):
    """A meta-checkpoint and its lineage."""

    id: str
    name: str
    optimizer: str = Field(
        description="Whose networks these are: `mlhf` (its variant kronecker), `mlhf_paper` "
        "(its variant paper) or `l2l`."
    )
    source: Literal["shipped", "meta_train", "upload"]
    aliases: list[str] = Field(description="Names it can be asked for by, such as `default`.")
    job_id: str | None
    run_id: str | None
    parent_id: str | None = Field(description="The meta-checkpoint its training began from.")
    lineage: dict[str, Any] = Field(description="Tasks, data digests, iterations, seed, …")
    size: int
    sha256: str
    used_by: int = Field(description="How many runs used it; list them at /v1/runs.")
    created_at: datetime | None


class AliasRequest(Strict):
    """Which meta-checkpoint an alias shall name."""

    meta_checkpoint_id: Annotated[str, Field(max_length=40)]
