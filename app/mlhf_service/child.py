"""A child process that is kept running, with its output in a log file of bounded size."""

import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO

LOG_BYTES = 10 * 2**20
_LINE_BYTES = 64 * 1024
_SETTLED_SECONDS = 60.0
_MAX_BACKOFF_SECONDS = 10.0
_START_ATTEMPTS = 3


class Child:
    """A process to keep running.

    Args:
        name: What to call it; its log is ``<name>.log``.
        command: Program and arguments.
        environment: All of its environment variables.
        logs: The folder of its log; None sends what it prints to our standard output.
        pass_fds: File descriptors that it inherits.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        logs: Path | None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.name = name
        self.log_path = None if logs is None else logs / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.settled = False  # whether it has ever run as it should
        self.last_line = ""
        self.restart_at = 0.0
        self._command = command
        self._environment = environment
        self._pass_fds = pass_fds
        self._started_at = 0.0
        self._failures = 0  # since it last ran for a while
        self._failed_starts = 0
        self._reader: threading.Thread | None = None

    @property
    def cannot_start(self) -> bool:
        """Whether it has failed at every one of several starts, and never run."""
        return not self.settled and self._failed_starts >= _START_ATTEMPTS

    def start(self) -> None:
        self.process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=self._pass_fds,
            start_new_session=True,  # Ctrl-C goes to the supervisor, which stops us in order
        )
        self._started_at = time.monotonic()
        self._reader = threading.Thread(
            target=self._copy_output, args=(self.process.stdout,), name=self.name, daemon=True
        )
        self._reader.start()

    def collect(self) -> int | None:
        """Return the exit code of a process that has just ended, and plan the next start."""
        if self.process is None:
            return None
        code = self.process.poll()
        lived = time.monotonic() - self._started_at
        self.settled = self.settled or lived > _SETTLED_SECONDS
        if code is None:
            return None
        self._failures = 0 if lived > _SETTLED_SECONDS else self._failures + 1
        # One that was stopped or killed from outside did not fail by itself.
        if code not in (0, -signal.SIGTERM, -signal.SIGKILL):
            self._failed_starts += 1
        self.restart_at = time.monotonic() + self.backoff
        self.process = None
        if self._reader is not None:
            self._reader.join(timeout=1.0)  # its last line may still be in the pipe
        return code

    @property
    def backoff(self) -> float:
        """Seconds to wait before the next start."""
        return min(_MAX_BACKOFF_SECONDS, 0.2 * 2.0**self._failures)

    def _copy_output(self, output: IO[bytes]) -> None:
        """Write what the process prints to its log, until it ends."""
        file = _log_to(self.log_path)
        with output, closing(file) as log:
            while line := output.readline(_LINE_BYTES):
                text = line.decode(errors="replace").rstrip("\r\n")
                self.last_line = text.strip() or self.last_line
                log.handle(logging.makeLogRecord({"msg": text}))


def _log_to(path: Path | None) -> logging.Handler:
    if path is None:
        return logging.StreamHandler(sys.stdout)
    return _LogFile(path, maxBytes=LOG_BYTES, backupCount=1, delay=True)


class _LogFile(RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Drop the line: a full disk must not stop the reading of the pipe."""

    def close(self) -> None:
        with suppress(OSError):
            super().close()
