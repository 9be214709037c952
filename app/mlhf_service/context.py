"""One transaction together with its caller, the settings and the stored files."""

from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from mlhf_service.settings import Settings
from mlhf_service.storage.protocol import Storage

LOCAL = "local"  # the tenant of a service without keys, and of all it made

READ, WRITE, ADMIN, METRICS = "read", "write", "admin", "metrics"
SCOPES = (READ, WRITE, ADMIN, METRICS)
_INCLUDED = {ADMIN: {READ, WRITE, METRICS}, WRITE: {READ}}


@dataclass(frozen=True)
class Quota:
    """The most that there may be at a time; None: no limit.

    Attributes:
        jobs: Jobs that have not ended.
        queued_runs: Runs that wait for a worker.
        storage_bytes: Data sets, meta-checkpoints and files of runs.
    """

    jobs: int | None = None
    queued_runs: int | None = None
    storage_bytes: int | None = None


@dataclass(frozen=True)
class Caller:
    """Who asks: what is made belongs to its tenant, and is counted on its key.

    Attributes:
        key_id: The key's, or that of a person who logged in by OIDC; None without keys.
        name: What a person knows it by.
        scopes: What it may do; ``admin`` includes all, ``write`` includes ``read``.
        quota: Of this key alone; the deployment's settings limit its tenant.
    """

    tenant: str = LOCAL
    key_id: str | None = None
    name: str = LOCAL
    scopes: frozenset[str] = frozenset({ADMIN})
    quota: Quota = Quota()

    def may(self, scope: str) -> bool:
        return scope in self.scopes or any(scope in _INCLUDED.get(own, ()) for own in self.scopes)


@dataclass(frozen=True)
class Context:
    """Passed down by the code that opened the session; only that code commits it."""

    session: Session
    settings: Settings
    storage: Storage
    caller: Caller = field(default_factory=Caller)
