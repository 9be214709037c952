"""What can be done with keys. Nothing here commits: the request or the command does, once."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from mlhf_service.context import ADMIN, LOCAL, Caller, Quota
from mlhf_service.database import now
from mlhf_service.keys import repository, secrets
from mlhf_service.keys.models import ApiKey, KeySecret
from mlhf_service.keys.schemas import KeyView, NewKey, QuotaView
from mlhf_service.kit.ids import new_id
from mlhf_service.kit.problems import Conflict, Invalid, NotFound

_NOTED_EVERY = timedelta(seconds=60)


@dataclass(frozen=True)
class Checked:
    """A valid key.

    Attributes:
        due: Whether its use is to be recorded: that is done once a minute.
    """

    lookup: str
    caller: Caller
    due: bool


def create(
    session: Session,
    *,
    name: str,
    tenant: str,
    scopes: Sequence[str],
    expires_at: datetime | None = None,
    quota: Quota | None = None,
    created_by: str | None = None,
) -> NewKey:
    """Make a key. Its secret is in the answer, and nowhere else."""
    if expires_at is not None and expires_at <= now():
        raise Invalid.at("/expires_at", "is in the past")
    quota = quota or Quota()
    key = ApiKey(
        id=new_id("key"),
        tenant=tenant,
        name=name,
        scopes=sorted(set(scopes)),
        created_at=now(),
        created_by=created_by,
        expires_at=expires_at,
        quota_jobs=quota.jobs,
        quota_queued_runs=quota.queued_runs,
        quota_storage_bytes=quota.storage_bytes,
    )
    token = _add_secret(key)
    session.add(key)
    session.flush()
    return _with_secret(key, token)


def create_first(session: Session) -> NewKey | None:
    """A key for who sets a service up; None where there is one already that can make others."""
    if repository.is_there_an_admin(session):
        return None
    return create(session, name="first key", tenant=LOCAL, scopes=[ADMIN])


def rotate(session: Session, key_id: str, overlap: timedelta) -> NewKey:
    """Give a key a new secret; those it has end after ``overlap``, or sooner as planned."""
    key = _find(session, key_id, lock=True)
    if _status(key) != "active":
        raise Conflict(f"The key is {_status(key)}: make a new one.")
    ends = now() + overlap
    for secret in key.secrets:
        secret.expires_at = min(secret.expires_at or ends, ends)
    token = _add_secret(key)
    session.flush()
    return _with_secret(key, token)


def revoke(session: Session, key_id: str, by: str | None = None) -> KeyView:
    """End a key for good. Revoking it again is no error."""
    key = _find(session, key_id, lock=True)
    if key_id == by:
        raise Conflict("This is the key that you ask with: revoke it with another one.")
    key.revoked_at = key.revoked_at or now()
    session.flush()
    return view(key)


def find(session: Session, key_id: str) -> KeyView:
    return view(_find(session, key_id))


def check(session: Session, token: str) -> Checked | None:
    """The key that a client sent; None where it is not valid."""
    lookup = secrets.lookup_of(token)
    secret = repository.by_lookup(session, lookup) if lookup else None
    if secret is None:
        secrets.matches(token, "")  # takes as long as with one that is known
        return None
    if not secrets.matches(token, secret.sha256) or not _is_valid(secret):
        return None
    return _checked(secret)


def check_lookup(session: Session, lookup: str) -> Checked | None:
    """The key whose secret has this lookup, with which somebody logged in, while it is valid."""
    secret = repository.by_lookup(session, lookup)
    return _checked(secret) if secret is not None and _is_valid(secret) else None


def note_use(session: Session, key_id: str) -> None:
    """Record that a key was used."""
    repository.touch(session, key_id, now())


def view(key: ApiKey) -> KeyView:
    return KeyView.model_validate(_shown(key))


def _with_secret(key: ApiKey, token: str) -> NewKey:
    return NewKey.model_validate({**_shown(key), "secret": token})


def _shown(key: ApiKey) -> dict[str, object]:
    status = _status(key)
    valid = [s for s in key.secrets if status == "active" and not _is_over(s.expires_at)]
    return {
        "id": key.id,
        "tenant": key.tenant,
        "name": key.name,
        "scopes": key.scopes,
        "status": status,
        "prefixes": [f"mlhf_{secret.lookup}_" for secret in valid],
        "quota": QuotaView(
            jobs=key.quota_jobs,
            queued_runs=key.quota_queued_runs,
            storage_bytes=key.quota_storage_bytes,
        ),
        "created_at": key.created_at,
        "created_by": key.created_by,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "last_used_at": key.last_used_at,
    }


def _add_secret(key: ApiKey) -> str:
    token = secrets.new_token()
    lookup = secrets.lookup_of(token) or ""
    key.secrets.append(KeySecret(lookup=lookup, sha256=secrets.digest(token), created_at=now()))
    return token


def _find(session: Session, key_id: str, lock: bool = False) -> ApiKey:
    key = repository.get(session, key_id, lock)
    if key is None:
        raise NotFound("There is no key of this id.")
    return key


def _checked(secret: KeySecret) -> Checked:
    key = secret.key
    quota = Quota(key.quota_jobs, key.quota_queued_runs, key.quota_storage_bytes)
    caller = Caller(key.tenant, key.id, key.name, frozenset(key.scopes), quota)
    due = key.last_used_at is None or key.last_used_at < now() - _NOTED_EVERY
    return Checked(secret.lookup, caller, due)


def _is_valid(secret: KeySecret) -> bool:
    return not _is_over(secret.expires_at) and _status(secret.key) == "active"


def _status(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if _is_over(key.expires_at) else "active"


def _is_over(moment: datetime | None) -> bool:
    return moment is not None and moment <= now()
