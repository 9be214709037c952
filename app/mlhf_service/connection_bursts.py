"""Connections that a burst of requests has opened, and that nobody needs after it.

SQLAlchemy's pool closes what is opened beyond its size at once, and what is within it never: the
first makes every burst open connections anew, the second keeps those of all processes open, of
which PostgreSQL bears a hundred.
"""

from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.pool import QueuePool

_FEW = 10  # that are always left


class Bursts:
    """How many connections of an engine were in use at once."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._most = 0
        event.listen(engine, "checkout", self._see)

    def _see(self, *_: Any) -> None:
        pool = self._engine.pool
        assert isinstance(pool, QueuePool)
        self._most = max(self._most, pool.checkedout())

    def close_idle(self) -> bool:
        """Close those that are not in use, where over twice as many are open as were used at once.

        That is: since the last call. Returns whether they were closed; the next ones are opened
        as they are needed.
        """
        pool = self._engine.pool
        assert isinstance(pool, QueuePool)
        most, self._most = self._most, pool.checkedout()
        if pool.checkedin() + pool.checkedout() <= max(2 * most, _FEW):
            return False
        self._engine.dispose()
        return True
