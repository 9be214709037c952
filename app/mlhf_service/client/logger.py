"""Log from a training loop of one's own: points are sent in the background.

``log`` puts a point into a queue in memory and returns. A thread sends batches with numbers, by
which the service writes each once. While the service is away, points wait in the queue, and the
thread tries again.
"""

import atexit
import logging
import math
import os
import platform
import secrets
import sys
import threading
import time
from collections import deque
from typing import Any

from mlhf_service.client.errors import Json, ServiceError
from mlhf_service.client.exchange import part
from mlhf_service.client.records import Run

log = logging.getLogger(__name__)

ALIASES = {
    "loss": "train_loss",
    "accuracy": "train_accuracy",
    "val_loss": "test_loss",
    "val_accuracy": "test_accuracy",
}
_PLACES = ("step", "samples", "epoch", "wall_seconds", "cpu_seconds")
_MOST_POINTS, _MOST_VALUES = 2000, 8000  # of a batch: less than a MiB
_SEND_EVERY_SECONDS = 1.0
_ALIVE_EVERY_SECONDS = 20.0
_LONGEST_PAUSE = 10.0
_MOST_WAITING = 2_000_000
_AGAIN = {None, 408, 429, 500, 502, 503, 504, 507}


class RunLogger:
    """A run that is trained here and stands in the service's lists; made by ``Client.run``.

    Attributes:
        run: The run as it was made; ``run.id``, and ``url``, the address of its page.
        stopped: Why nothing is sent any more, such as that the run was cancelled; else None.
    """

    def __init__(self, client: Any, spec: Json, finish_seconds: float = 60.0) -> None:
        self._client = client
        self._finish_seconds = finish_seconds
        headers = {"Idempotency-Key": secrets.token_hex(16)}
        self.run = Run(client.request_json("POST", "/v1/runs", json=spec, headers=headers))
        self.url = f"{client.url}/runs/{self.run['id']}"
        self.stopped: str | None = None
        self._path = f"/v1/runs/{part(self.run['id'])}"
        self._started, self._cpu = time.monotonic(), time.process_time()
        self._place: Json = {"step": 0, "samples": 0, "epoch": 0.0, "wall_seconds": 0.0}
        self._points: deque[Json] = deque()
        self._lost = 0
        self._sequence = 0
        self._wake, self._ending = threading.Event(), threading.Event()
        self._deadline = math.inf
        self._thread = threading.Thread(target=self._send_all, name="mlhf-log", daemon=True)
        self._thread.start()
        atexit.register(self.finish, "failed", "The program ended without finishing its run.")

    @property
    def id(self) -> str:
        return str(self.run["id"])

    def log(
        self,
        step: int | None = None,
        samples: int | None = None,
        epoch: float | None = None,
        wall_seconds: float | None = None,
        cpu_seconds: float | None = None,
        **values: Any,
    ) -> None:
        """Log what was measured. It does not wait for the service.

        Args:
            step: Counted on by one when absent.
            samples: Samples trained on so far; the step when absent.
            epoch: Epochs so far.
            wall_seconds: Seconds of training so far; since the run began when absent.
            cpu_seconds: CPU seconds of training so far; this process's when absent.
            values: Metrics, numbers or one-element tensors. ``loss``, ``accuracy``, ``val_loss``
                and ``val_accuracy`` are short for ``train_loss``, ``train_accuracy``,
                ``test_loss`` and ``test_accuracy``, which stand beside those of other runs.

        Raises ValueError where a value is no number, or a step goes back.
        """
        if not values:
            raise ValueError("log needs at least one metric, such as loss=0.5")
        last = self._place
        step = last["step"] + 1 if step is None else int(step)
        if step < last["step"]:
            raise ValueError(f"step {step} comes after step {last['step']}: steps ascend")
        samples = max(int(last["samples"]), step) if samples is None else int(samples)
        self._place = {
            "step": step,
            "samples": samples,
            "epoch": last["epoch"] if epoch is None else float(epoch),
            "wall_seconds": (
                time.monotonic() - self._started if wall_seconds is None else float(wall_seconds)
            ),
            "cpu_seconds": (
                time.process_time() - self._cpu if cpu_seconds is None else float(cpu_seconds)
            ),
        }
        named = {ALIASES.get(name, name): _number(name, value) for name, value in values.items()}
        if self.stopped is not None:
            return
        if len(self._points) >= _MOST_WAITING:
            self._lost += 1
            return
        self._points.append({**self._place, "values": named})

    def finish(self, status: str = "succeeded", error: str | None = None) -> None:
        """Send what waits, and end the run; a second call does nothing.

        It waits at most ``finish_seconds`` for a service that is away, and says what was lost.
        """
        if self._ending.is_set():
            return
        atexit.unregister(self.finish)
        self._status, self._error = status, error
        self._deadline = time.monotonic() + self._finish_seconds
        self._ending.set()
        self._wake.set()
        self._thread.join(self._finish_seconds + 60.0)
        left = len(self._points) + self._lost
        if self.stopped is not None or left:
            why = self.stopped or "the service did not answer"
            log.warning("run %s: %s; %d points were not written", self.id, why, left)

    def __enter__(self) -> "RunLogger":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, _: object) -> None:
        if kind is None:
            self.finish()
        elif issubclass(kind, KeyboardInterrupt):
            self.finish("cancelled")
        else:
            self.finish("failed", f"{kind.__name__}: {error}"[:2000])

    def _send_all(self) -> None:
        pause, sent_at = 0.5, time.monotonic()
        while self.stopped is None:
            self._wake.wait(_SEND_EVERY_SECONDS)
            idle = time.monotonic() - sent_at > _ALIVE_EVERY_SECONDS
            try:
                while self._points or idle:
                    self._send_batch()
                    idle, sent_at, pause = False, time.monotonic(), 0.5
                if self._ending.is_set():
                    body = {"status": self._status, "error": self._error}
                    self._client.request_json("POST", f"{self._path}/finish", json=body)
                    return
            except ServiceError as error:
                if error.status not in _AGAIN:
                    self.stopped = str(error)
                    return
                if time.monotonic() > self._deadline:
                    return
                self._ending.wait(pause) if not self._ending.is_set() else time.sleep(pause)
                pause = min(_LONGEST_PAUSE, pause * 2)

    def _send_batch(self) -> None:
        """Send the oldest points; they leave the queue once the service has them."""
        batch: list[Json] = []
        values = 0
        while len(batch) < min(_MOST_POINTS, len(self._points)) and values < _MOST_VALUES:
            batch.append(self._points[len(batch)])
            values += len(batch[-1]["values"])
        number = self._sequence + 1 if batch else 0
        body = {"sequence": number, "points": batch}
        told = self._client.request_json("POST", f"{self._path}/points", json=body)
        if batch:
            self._sequence = number
            for _ in batch:
                self._points.popleft()
        if told["status"] != "running":
            self.stopped = f"the run is {told['status']}"


def hardware() -> Json:
    """What this machine is, as far as that can be told without a package."""
    found: Json = {
        "device_name": _processor(),
        "host": platform.node(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        found["torch"] = str(torch.__version__)
        found["threads"] = torch.get_num_threads()
        if torch.cuda.is_available():
            found["device_name"] = torch.cuda.get_device_name()
    return found


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _number(name: str, value: Any) -> float | str:
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{name}={value!r:.80} is no number") from None
    if math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
