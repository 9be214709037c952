"""From what a request carries to who asks: a key in its header, or the cookie of a log-in."""

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import OperationalError, TimeoutError
from sqlalchemy.orm import Session
from starlette.datastructures import Headers

from mlhf_service.context import Caller
from mlhf_service.database import Database
from mlhf_service.keys import logins, service
from mlhf_service.keys.logins import LOGIN
from mlhf_service.keys.service import Checked

log = logging.getLogger(__name__)

KEPT_SECONDS = 2.0  # a key that is revoked is refused after this at the latest, in every process
_MOST = 10_000
KEY, PERSON = "key", "person"  # what a session holds: a lookup, or what OIDC said


@dataclass(frozen=True)
class Identity:
    """Who sent a request.

    Attributes:
        caller: None: nobody that we know.
        by_cookie: Whether a browser sent it by itself, as it would for a page of another site.
        wrong: What was sent that is not valid.
    """

    caller: Caller | None
    by_cookie: bool = False
    wrong: str | None = None


class Authenticator:
    """Checks keys and sessions against the database, and keeps the answer for a moment."""

    def __init__(self, database: Database, kept_seconds: float = KEPT_SECONDS) -> None:
        self._database = database
        self._kept_seconds = kept_seconds
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, Caller]] = {}

    def identify(self, headers: Headers, session: Mapping[str, Any]) -> Identity:
        """Find the caller of a request. Blocks while the database answers."""
        sent = headers.get("authorization")
        if sent is not None:
            scheme, _, token = sent.partition(" ")
            if scheme.lower() != "bearer":
                return Identity(None, wrong="Send the key as: Authorization: Bearer mlhf_…")
            caller = self.by_token(token.strip())
            wrong = None if caller else "This key is not valid, or no longer."
            return Identity(caller, wrong=wrong)
        if KEY in session:
            return Identity(self._by_lookup(str(session[KEY])), by_cookie=True)
        if PERSON in session:
            return Identity(self._by_login(session[PERSON]), by_cookie=True)
        return Identity(None)

    def lookup(self, token: str) -> str | None:
        """What a session holds of a valid key: enough to find it, not enough to use it."""
        with self._database.read() as session:
            checked = service.check(session, token)
        return checked.lookup if checked is not None else None

    def by_token(self, token: str) -> Caller | None:
        # Kept under a digest: no key lies in memory longer than its request.
        kept_as = hashlib.sha256(token.encode()).hexdigest()
        return self._kept(kept_as, lambda session: service.check(session, token))

    def _by_lookup(self, lookup: str) -> Caller | None:
        return self._kept(lookup, lambda session: service.check_lookup(session, lookup))

    def _by_login(self, told: Mapping[str, Any]) -> Caller | None:
        """Who logged in by OIDC; a cookie from before log-ins were noted counts no more."""
        return self._kept(str(told.get(LOGIN)), lambda session: logins.check(session, told))

    def _kept(self, kept_as: str, check: Callable[[Session], Checked | None]) -> Caller | None:
        moment = time.monotonic()
        with self._lock:
            until, caller = self._known.get(kept_as, (0.0, None))
        if caller is not None and moment < until:
            return caller
        with self._database.read() as session:
            checked = check(session)
        if checked is None:
            with self._lock:
                self._known.pop(kept_as, None)
            return None
        if checked.due:
            self._note_use(checked)
        with self._lock:
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[kept_as] = moment + self._kept_seconds, checked.caller
        return checked.caller

    def _note_use(self, checked: Checked) -> None:
        try:
            with self._database.write() as session:
                service.note_use(session, checked.caller.key_id or "")
        except (OperationalError, TimeoutError):
            log.warning("the use of a key could not be recorded")
