"""Check networks in processes that have torch: a warm one, which forks another for each check.

This process never imports torch. The warm one (``mlhf.models.graph.examiner``) is started by the
first check, and ended when nobody has asked for a while. It ends when this process ends, however
that happens, as its socket closes then.
"""

import json
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mlhf.core import bounded
from mlhf.core.errors import DataError, SpecError
from mlhf.models.graph.sizes import GraphSizes
from mlhf_service.settings import Settings

_START_SECONDS = 120.0  # torch is imported, on a machine that may be busy
_SLACK_SECONDS = 5.0  # after the kernel should have ended it
_END_SECONDS = 0.5  # from a process's last word to when its end is seen
_MOST_ANSWER_BYTES = 64 * 2**20


class ExaminerLostError(RuntimeError):
    """No network can be checked here now; says why."""


@dataclass(frozen=True)
class Bounds:
    """What one check may take."""

    memory_bytes: int
    seconds: float


class Examiner:
    """Checks networks; any thread may. Files must lie below ``folder``.

    Args:
        settings: How processes are confined.
    """

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings, self._folder = settings, folder
        self._lock = threading.Lock()
        self._server: _Server | None = None
        self._asking = 0
        self._used_at = 0.0

    @property
    def pid(self) -> int | None:
        """The warm process, where there is one."""
        with self._lock:
            return self._server.process.pid if self._server is not None else None

    def examine(self, graph: Path, weights: Path | None, bounds: Bounds) -> GraphSizes:
        """Return the sizes of the network in these files.

        Raises:
            SpecError: the graph is wrong; the pointer is into it.
            DataError: the weights are not its own, or the check took too much.
            ExaminerLostError: there is no torch here, or its process cannot be started.
        """
        return sizes_of(self.ask(graph, weights, bounds))

    def ask(self, graph: Path, weights: Path | None, bounds: Bounds) -> dict[str, Any]:
        """Return the answer itself (``mlhf.models.graph.examination.answer``).

        Raises:
            DataError: the check took too much.
            ExaminerLostError: as ``examine``.
        """
        task = {
            "graph": str(graph),
            "weights": None if weights is None else str(weights),
            "memory_bytes": bounds.memory_bytes,
            "seconds": bounds.seconds,
        }
        with self._lock:
            self._asking += 1
        try:
            for _ in range(2):  # a warm one may have ended since it was last asked
                server = self._running()
                with suppress(_LostError):
                    answer = server.ask(task)
                    if answer is None:
                        raise DataError(
                            "the network could not be checked within "
                            f"{bounds.memory_bytes / 2**30:.1f} GiB of memory and "
                            f"{bounds.seconds:.0f} seconds; send a smaller one"
                        )
                    return answer
                self._give_up(server)
            raise ExaminerLostError("the process that checks networks ends when it is started")
        finally:
            with self._lock:
                self._asking -= 1
                self._used_at = time.monotonic()

    def stop(self) -> None:
        """End the warm process, and all checks with it."""
        with self._lock:
            server, self._server = self._server, None
        if server is not None:
            server.end()

    def stop_if_idle(self, seconds: float) -> None:
        """End the warm process where nobody has asked for so long."""
        with self._lock:
            if self._asking or time.monotonic() - self._used_at <= seconds:
                return
            server, self._server = self._server, None
        if server is not None:
            server.end()

    def _running(self) -> "_Server":
        with self._lock:
            if self._server is None or self._server.process.poll() is not None:
                if self._server is not None:
                    self._server.end()
                    self._server = None
                if not is_possible():
                    raise ExaminerLostError("this server has no torch, without which it cannot")
                self._server = _Server(self._settings, self._folder)
            return self._server

    def _give_up(self, server: "_Server") -> None:
        with self._lock:
            if self._server is server:
                self._server = None
        server.end()


def sizes_of(answer: dict[str, Any]) -> GraphSizes:
    """Return the sizes that an answer has. Raises SpecError and DataError where it has none."""
    if "spec" in answer:
        raise SpecError(*answer["spec"])
    if "data" in answer:
        raise DataError(answer["data"])
    return GraphSizes.model_validate(answer["sizes"])


def is_possible() -> bool:
    """Whether there is a torch here to check networks with."""
    return find_spec("torch") is not None


class _LostError(Exception):
    """The warm process ended, or does not answer."""


class _Server:
    """A warm process."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlhf.models.graph.examiner"],
                env=bounded.environment(),
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._requests.settimeout(_START_SECONDS)  # where its queue is full
        confinement = {"mode": settings.trainer_confinement, "memory_bytes": None, "cgroup": None}
        wanted = {"confinement": confinement, "folder": str(folder)}
        self._requests.sendall(json.dumps(wanted).encode())

    def ask(self, task: dict[str, Any]) -> dict[str, Any] | None:
        """Return the answer; None where the check was ended without one.

        Raises _LostError.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with ours:
            try:
                with theirs:
                    socket.send_fds(self._requests, [json.dumps(task).encode()], [theirs.fileno()])
            except OSError:
                raise _LostError from None
            if not _received(ours, 1, time.monotonic() + _START_SECONDS):
                raise _LostError
            deadline = time.monotonic() + task["seconds"] + _SLACK_SECONDS
            said = _received(ours, _MOST_ANSWER_BYTES, deadline)
        try:
            answer: dict[str, Any] = json.loads(said)
        except ValueError:  # it was ended: alone, or with the warm process
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(_END_SECONDS)
                raise _LostError from None
            return None
        return answer

    def end(self) -> None:
        """End it; its checks end with it."""
        self._requests.close()
        self.process.kill()
        self.process.wait()


def _received(channel: socket.socket, most: int, deadline: float) -> bytes:
    """What comes until the other side closes, or until there are so many bytes, or in time."""
    pieces, size = [], 0
    while size < most and (left := deadline - time.monotonic()) > 0:
        channel.settimeout(left)
        try:
            piece = channel.recv(min(2**20, most - size))
        except OSError:  # a TimeoutError is one
            break
        if not piece:
            break
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)
