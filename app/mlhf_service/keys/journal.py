"""Notes in the audit log of what changed something and of what was refused."""

import logging
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from mlhf_service.audit import service
from mlhf_service.database import Database

log = logging.getLogger(__name__)

_SAFE = {"GET", "HEAD", "OPTIONS"}
_REFUSED = (401, 403)
_TOO_MANY = 429


class Journal:
    """Writes the audit log. What is refused for being too much is not noted: it would be a flood.

    A note that cannot be written is written to the log instead; the request is answered.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def wants(self, method: str, status: int) -> bool:
        return status in _REFUSED or (method not in _SAFE and status != _TOO_MANY)

    def write(self, **entry: Any) -> None:
        try:
            with self._database.write() as session:
                service.add(session, **entry)
        except SQLAlchemyError as error:
            caller = entry.get("caller")
            log.error(
                "not in the audit log (%s): %s %s by %s: %s",
                type(error).__name__,
                entry["method"],
                entry["route"],
                caller.key_id if caller else "nobody",
                entry["status"],
            )
