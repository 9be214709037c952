"""Whether a worker still hears the doorbell.

After a broker was away, and away again within seconds, Celery's consumer may be connected and
take no message (celery/celery#8030, #10302). The sweeper's rings then reach nobody, and runs wait
for ever before an idle worker. So the worker looks by itself, now and then: where a run waits that
it could take, it rings its own bell, which may have been lost. If it does not hear that either, its
consumer is deaf, and Celery's main process starts anew.
"""

import logging
import threading
import time
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

log = logging.getLogger(__name__)

_LOOK_SECONDS = 5.0
_DEAF_SECONDS = 20.0  # with a ring at each look


class Hearing:
    """Looks from a thread of its own whether runs wait that this idle worker could take.

    Args:
        could_claim: Asks the database.
        ring: Sends a doorbell. Raises where the broker is away: then nobody is deaf.
        start_anew: What a deaf worker does.
        clock: Counts seconds.
    """

    def __init__(
        self,
        could_claim: Callable[[], bool],
        ring: Callable[[], None],
        start_anew: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._could_claim, self._ring = could_claim, ring
        self._start_anew, self._clock = start_anew, clock
        self._lock = threading.Lock()
        self._answering = 0
        self._waits_since: float | None = None

    def __enter__(self) -> None:
        """A doorbell is being answered."""
        with self._lock:
            self._answering += 1
            self._waits_since = None

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._answering -= 1

    def start(self) -> None:
        threading.Thread(target=self._loop, name="hearing", daemon=True).start()

    def look(self) -> None:
        """Look once. Raises what the database raises."""
        if self._answering or not self._could_claim():
            self._waits_since = None
            return
        with self._lock:
            if self._answering:
                return
            if self._waits_since is None:
                self._waits_since = self._clock()
            waited = self._clock() - self._waits_since
        try:
            self._ring()
        except Exception as error:  # whatever the broker's client raises
            self._waits_since = None
            log.warning("broker away: %s", type(error).__name__)
            return
        if waited >= _DEAF_SECONDS:
            log.error(
                "a run has waited for %.0f s before this idle worker: the broker's messages do "
                "not reach it any more; it starts anew",
                waited,
            )
            self._start_anew()

    def _loop(self) -> None:
        while True:
            time.sleep(_LOOK_SECONDS)
            try:
                self.look()
            except SQLAlchemyError as error:
                self._waits_since = None
                log.warning("database away: %s", type(error).__name__)
