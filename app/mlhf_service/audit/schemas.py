"""The audit log as it is shown."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

Decision = Literal["done", "refused", "failed"]


class AuditView(BaseModel):
    """One request that changed something or was refused."""

    id: str
    at: datetime
    tenant: str = Field(description="Empty: nobody that was known.")
    key_id: str | None
    name: str
    address: str | None
    request_id: str | None
    method: str
    route: str | None
    path: str
    status: int
    decision: Decision = Field(
        description="refused: no valid key, or one that may not. failed: any other error."
    )
