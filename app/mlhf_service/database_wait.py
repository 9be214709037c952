"""Wait at start for a database that does not answer yet."""

import logging
import random
import time
from collections.abc import Callable

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from mlhf_service.database import Database, is_away

log = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
# A server that is not ready says so with these words; any other refusal will be the same later.
_NOT_READY = ("starting up", "shutting down", "recovery", "not yet accepting", "too many", "slots")


def wait_for(
    database: Database,
    seconds: float,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Wait until the database answers, at most ``seconds``; says so once. Returns whether it does.

    Returns at once where waiting is of no use: on SQLite, and where the server answers that it
    will not have us. Whoever uses the database next raises what is wrong.
    """
    if database.is_sqlite:
        return True
    began, pause = time.monotonic(), _FIRST_PAUSE
    told = False
    while True:
        try:
            with database.engine.connect() as connection:
                connection.execute(text("select 1"))
        except SQLAlchemyError as error:
            reason = _first_line(error)
            left = began + seconds - time.monotonic()
            if left <= 0 or not (is_away(error) and _may_come_back(str(error))):
                return False
        else:
            if told:
                log.warning("The database answers. Going on.")
            return True
        if not told:
            told = True
            where = database.url.render_as_string(hide_password=True)
            log.warning(
                "The database %s does not answer (%s). Waiting for it, for up to %.0f s.",
                where,
                reason,
                seconds,
            )
        sleep(min(left, pause * random.uniform(0.8, 1.2)))
        pause = min(2 * pause, _LONGEST_PAUSE)


def _first_line(error: SQLAlchemyError) -> str:
    original = getattr(error, "orig", None) or error
    return str(original).strip().partition("\n")[0]


def _may_come_back(message: str) -> bool:
    return "FATAL" not in message or any(words in message for words in _NOT_READY)
