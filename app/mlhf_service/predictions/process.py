"""The process that predicts: started when it is needed, kept warm, ended when it is idle."""

import json
import logging
import os
import selectors
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import Any

from mlhf_service.kit.problems import Invalid, Unavailable
from mlhf_service.settings import Settings

log = logging.getLogger(__name__)

_START_SECONDS = 120.0  # torch is imported
_PASSED_ON = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "PYTHONPATH", "TMPDIR", "VIRTUAL_ENV")


class PredictorProcess:
    """One process. Requests take turns; one that takes too long ends the process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._turn = threading.Lock()
        self._rest = b""
        self._used_at = 0.0

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to a request. Raises Invalid and Unavailable."""
        seconds = self._settings.predict_seconds
        if not self._turn.acquire(timeout=seconds):
            raise Unavailable(
                "Other predictions are being made. Try again.", None, {"Retry-After": "5"}
            )
        try:
            started = self._running()
            self._send(request)
            answer = self._receive(seconds + (_START_SECONDS if started else 0.0))
        finally:
            self._used_at = time.monotonic()
            self._turn.release()
        if "error" in answer:
            asked = "/rows" if "rows" in request else "/file"
            raise Invalid.at("/format" if "export" in request else asked, answer["error"])
        found: dict[str, Any] = answer["ok"]
        return found

    def stop(self) -> None:
        with self._turn:
            self._end()

    def stop_if_idle(self, seconds: float) -> None:
        """End it where nobody has asked for so long."""
        if self._process is None or not self._turn.acquire(blocking=False):
            return
        try:
            if time.monotonic() - self._used_at > seconds:
                self._end()
        finally:
            self._turn.release()

    def _running(self) -> bool:
        """Have a process; returns whether it had to be started."""
        if self._process is not None and self._process.poll() is None:
            return False
        self._end()
        settings = self._settings
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        threads = settings.trainer_threads
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mlhf.predictor"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**environment, "OMP_NUM_THREADS": str(threads)},
            start_new_session=True,
        )
        confinement = {
            "mode": settings.trainer_confinement,
            "memory_bytes": settings.predictor_memory_bytes,
            "rlimit": True,
            "cgroup": None,
        }
        self._send(
            {"threads": threads, "confinement": confinement, "folder": str(settings.predictor_dir)}
        )
        return True

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise self._gone() from None

    def _receive(self, seconds: float) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        deadline = time.monotonic() + seconds
        descriptor = self._process.stdout.fileno()
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while b"\n" not in self._rest:
                left = deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    self._end()
                    raise Unavailable(
                        f"The prediction took longer than {self._settings.predict_seconds:g} s "
                        "(MLHF_PREDICT_SECONDS). Send fewer rows."
                    )
                piece = os.read(descriptor, 2**20)
                if not piece:
                    raise self._gone()
                self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _gone(self) -> Unavailable:
        code = None if self._process is None else self._process.poll()
        log.warning("the predictor ended (%s)", code)
        self._end()
        return Unavailable(
            "The process that predicts ended: the inputs may need more memory than "
            "MLHF_PREDICTOR_MEMORY_BYTES, or torch is not installed where the API runs."
        )

    def _end(self) -> None:
        process, self._process, self._rest = self._process, None, b""
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(OSError):  # what was not yet written
                        pipe.close()
