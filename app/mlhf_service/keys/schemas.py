"""Keys as clients see them. A secret is shown once, when it is made."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, Field

from mlhf.core.config import Strict
from mlhf_service.kit.text import PlainText

Scope = Literal["read", "write", "admin", "metrics"]
Limit = Annotated[int, Field(ge=0, le=2**62)]


class QuotaView(Strict):
    """The most that a key may have at a time; null: as its tenant."""

    jobs: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = Field(
        None, description="Jobs that have not ended."
    )
    queued_runs: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = Field(
        None, description="Runs that wait for a worker."
    )
    storage_bytes: Limit | None = Field(None, description="Stored files.")


class KeyCreate(Strict):
    """A key to be made, for the tenant of who asks."""

    name: PlainText
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=4)] = Field(
        default=["read"], description="`admin` includes all others, `write` includes `read`."
    )
    expires_at: AwareDatetime | None = None
    quota: QuotaView = Field(default_factory=QuotaView)


class RotateRequest(Strict):
    """How long the secret that is replaced stays valid."""

    overlap_seconds: Annotated[int, Field(ge=0, le=30 * 86_400)] = 86_400


class LoginView(BaseModel):
    """A person who has logged in by OpenID Connect, in one browser."""

    id: str
    tenant: str
    key_id: str = Field(description="The person, as what was made in the session names it.")
    name: str
    address: str | None
    agent: str | None = Field(description="What the browser calls itself.")
    created_at: datetime
    expires_at: datetime
    ended_at: datetime | None


class KeyView(BaseModel):
    """A key, without its secret."""

    id: str
    tenant: str
    name: str
    scopes: list[Scope]
    status: Literal["active", "expired", "revoked"]
    prefixes: list[str] = Field(description="How its secrets that are valid begin.")
    quota: QuotaView
    created_at: datetime
    created_by: str | None
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class NewKey(KeyView):
    """A key whose secret was just made: this is the only time that it is shown."""

    secret: str


class Me(BaseModel):
    """Who asks, as the service sees it."""

    tenant: str
    key_id: str | None
    name: str
    scopes: list[Scope]
