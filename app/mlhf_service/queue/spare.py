"""The worker's spare: a process with torch imported, from which trainers start at once.

It is the engine's fork server (``mlhf.fork_server``), one a worker. It is started ahead, and dies
with the worker. Whoever asks it for a trainer must be able to do without: it may have died, hang,
or be of another version than this process, after an upgrade.
"""

import json
import logging
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

from mlhf.core.process import adopt_orphans
from mlhf.core.version import __version__

log = logging.getLogger(__name__)

_PATIENCE_SECONDS = 60.0  # from asking it to an answer: it may be importing still
_RETRY_SECONDS = 1.0  # after one that never answered; twice as long after each more
_MOST_RETRY_SECONDS = 60.0
_ANSWER_BYTES = 1024


class SpareLostError(Exception):
    """The spare gave no trainer, and none is on its way. Says why."""


class ForkRequest:
    """A trainer that was asked for. Until ``answer`` has returned its id it does nothing."""

    def __init__(self, spare: "Spare", channel: socket.socket) -> None:
        self._spare = spare
        self._channel = channel
        self._deadline = time.monotonic() + _PATIENCE_SECONDS

    def answer(self, seconds: float = 0.0) -> int | None:
        """Wait for the trainer, at most so long; returns its id once it has begun.

        Raises SpareLostError where there will be none.
        """
        if not select.select([self._channel], [], [], seconds)[0]:
            if time.monotonic() < self._deadline:
                return None
            raise self._lost("does not answer")
        try:
            said = self._channel.recv(_ANSWER_BYTES)
            answer = json.loads(said) if said else {}
            if not said:
                raise self._lost("ended before it gave a trainer")
            if answer["version"] != __version__:
                raise self._lost(f"is of version {answer['version']}, not {__version__}")
            self._channel.send(b"1")
        except OSError:
            raise self._lost("ended before its trainer began") from None
        self.withdraw()
        self._spare.answered = True
        return int(answer["pid"])

    def withdraw(self) -> None:
        """Want it no more: a trainer that has not begun ends."""
        self._channel.close()

    def _lost(self, why: str) -> SpareLostError:
        self.withdraw()
        self._spare.give_up()
        return SpareLostError(f"the spare {why}")


class Spare:
    """A fork server to take trainers from. Use it from one thread that lives as long as it.

    Attributes:
        answered: Whether it has ever given a trainer since it was started.
    """

    def __init__(self) -> None:
        self.answered = False
        self._process: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket | None = None
        self._environment: dict[str, str] = {}
        self._start_after = 0.0
        self._never_answered = 0  # of the last ones in a row

    @property
    def pid(self) -> int | None:
        """Its process id, while it is alive."""
        return self._process.pid if self._process is not None and self._alive() else None

    def start(self, environment: Mapping[str, str]) -> None:
        """Start it, unless it is alive with this environment. Does not wait for it."""
        if self._alive() and self._environment == environment:
            return
        if self._process is not None and not self._alive():
            self.give_up()
        if time.monotonic() < self._start_after:
            return
        self.stop()
        self._environment = dict(environment)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                adopt_orphans()
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "mlhf.fork_server", str(os.getpid())],
                    env=self._environment,
                    stdin=theirs.fileno(),
                    start_new_session=True,
                )
            except OSError as error:
                log.warning("no spare can be started: %s", error)
                ours.close()
                return
        self._requests = ours

    def fork(
        self, folder: Path, environment: Mapping[str, str], output: IO[bytes]
    ) -> ForkRequest | None:
        """Ask for a trainer of a run's folder; None where this spare cannot give one.

        A run with another environment needs another process: what is imported has read it.
        """
        if self._requests is None or not self._alive() or self._environment != environment:
            return None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                self._requests.setblocking(False)  # one that hangs has a full queue at last
                message = json.dumps({"folder": str(folder)}).encode()
                socket.send_fds(self._requests, [message], [theirs.fileno(), output.fileno()])
            except OSError:
                ours.close()
                return None
        return ForkRequest(self, ours)

    def stop(self) -> None:
        """End it. Trainers that it gave go on."""
        if self._process is None:
            return
        if self._requests is not None:
            self._requests.close()
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        self._process, self._requests, self.answered = None, None, False

    def give_up(self) -> None:
        """End it, and start no other for a while if it has never given a trainer.

        One that was killed while it started is no reason to have none for long; an installation
        in which none can start is.
        """
        self._never_answered = 0 if self.answered else self._never_answered + 1
        if self._never_answered:
            wait = _RETRY_SECONDS * 2.0 ** min(self._never_answered - 1, 16)
            self._start_after = time.monotonic() + min(wait, _MOST_RETRY_SECONDS)
        self.stop()

    def _alive(self) -> bool:
        return self._process is not None and self._process.poll() is None
