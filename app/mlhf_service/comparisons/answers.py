"""Answers about runs that have ended: made once, as long as nothing they are made of changes.

Whoever compares a hundred runs looks at them again: reloads the page, comes back to it from a
run, downloads the picture. Making the answer takes ten times as long as seeing that it still holds.
"""

import hashlib
from collections.abc import Callable, Sequence

from sqlalchemy.orm import Session

from mlhf_service.kit.kept import Kept
from mlhf_service.runs import chunks
from mlhf_service.runs.models import Run
from mlhf_service.runs.status import ACTIVE

_COLUMNS = [column.name for column in Run.__table__.columns]
_KEPT: Kept[str, bytes] = Kept(most_bytes=32 * 2**20)


def fingerprint(session: Session, runs: Sequence[Run], *asked: object) -> str | None:
    """A digest of all that an answer about runs is made of; None while one of them goes on.

    That is every column of each run, the rows of their curves, and what was asked.
    """
    if any(run.status in ACTIVE for run in runs):
        return None
    curves = chunks.digests(session, [run.id for run in runs])
    rows = [[getattr(run, name) for name in _COLUMNS] for run in runs]
    return hashlib.sha256(repr((asked, rows, curves)).encode()).hexdigest()


def kept(key: str | None, make: Callable[[], bytes]) -> bytes:
    """The answer of this fingerprint: as it was made before, or made now, and kept."""
    found = None if key is None else _KEPT.get(key)
    if found is None:
        found = make()
        if key is not None:
            _KEPT.put(key, found, len(found))
    return found
