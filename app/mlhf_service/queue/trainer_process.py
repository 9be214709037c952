"""The trainer process: runs the engine, and is controlled by files and signals."""

import json
import logging
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Protocol

from mlhf.core import events
from mlhf.core.process import EXIT_CANNOT_WRITE, EXIT_INTERRUPTED
from mlhf_service.queue.leases import Claim
from mlhf_service.queue.spare import ForkRequest, Spare, SpareLostError

log = logging.getLogger(__name__)

_PASSED_ON = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "TZ",
    "LD_LIBRARY_PATH",
    "PYTHONPATH",  # the engine that this process has
    "CUDA_VISIBLE_DEVICES",
    "XDG_CACHE_HOME",
    "MPLCONFIGDIR",
    "TORCHINDUCTOR_CACHE_DIR",
)
# Read at once, so that memory stays bounded after an outage: events, and bytes of them.
_BATCH, _BATCH_BYTES = 2000, 4 << 20
_KEPT_LOGS = 200  # of trainers that printed something
_FORK_SECONDS = 1.0  # a spare that is ready answers in milliseconds


class _Process(Protocol):
    """What is needed of ``subprocess.Popen``, and of a trainer that was adopted."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None: ...

    def poll(self) -> int | None: ...

    def wait(self) -> int: ...


class TrainerProcess:
    """One engine process in its own session, its folder, and its events so far.

    The process gets no database, broker or storage address, and dies with this one.

    Args:
        spare: Gives the process where it can; it is started again once this run has begun.
    """

    def __init__(self, folder: Path, log_path: Path, spare: Spare | None = None) -> None:
        self.folder = folder
        self.log_path = log_path
        self.offset = 0
        self._events = folder / "events.jsonl"
        self._spare = spare
        self._environment: dict[str, str] = {}
        self._request: ForkRequest | None = None  # until its process is known
        self._process: _Process | None = None

    def start(
        self,
        claim: Claim,
        config: dict[str, Any],
        files: Mapping[str, Path],
        checkpoint_seconds: float,
        data_cache: dict[str, Any] | None = None,
        confinement: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the run's folder anew and start the engine on it.

        Args:
            files: What the configuration and the claim refer to, by its path in the folder.
            data_cache: The fields of the engine's ``DataCache``.
            confinement: What the process may not do (``queue.limits``).
        """
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "checkpoints").mkdir(parents=True)
        self._events.touch()
        for name, source in files.items():
            shutil.copyfile(source, self.folder / name)
        run: dict[str, Any] = {
            "kind": claim.kind,
            "config": config,
            "resume": checkpoint_name(claim),
            "checkpoint_seconds": checkpoint_seconds,
            "data_cache": data_cache,
            "parent_pid": os.getpid(),
        }
        if confinement is not None:
            run["confinement"] = confinement
        (self.folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        self._environment = trainer_environment(config.get("threads") or 1)
        with self.log_path.open("wb") as output:
            if self._spare is not None:
                self._request = self._spare.fork(self.folder, self._environment, output)
            if self._request is None:
                self._process = _spawn(self.folder, self._environment, output)
        self._connect(_FORK_SECONDS)

    def exit_code(self) -> int | None:
        """None while it runs or starts; negative for the signal that ended it."""
        self._connect()
        return self._process.poll() if self._process else None

    def wait(self, seconds: float) -> None:
        """Wait so long, or until it ends."""
        pidfd = None
        if self._process is not None:
            with suppress(ProcessLookupError):
                pidfd = os.pidfd_open(self._process.pid)
        try:
            select.select([] if pidfd is None else [pidfd], [], [], seconds)
        finally:
            if pidfd is not None:
                os.close(pidfd)

    def read(self) -> list[tuple[events.Event, int]]:
        """The events written since the last call, each with the spool's offset after it.

        Raises FileNotFoundError where somebody has deleted the folder.
        """
        batch = []
        for event, offset in events.read(self._events, self.offset):
            batch.append((event, offset))
            if len(batch) >= _BATCH or offset - self.offset >= _BATCH_BYTES:
                break
        if batch:
            self.offset = batch[-1][1]
        if self._spare is not None and any(event["type"] == "points" for event, _ in batch):
            self._spare.start(self._environment)  # now it does not delay this run's start
        return batch

    def ask_to_stop(self) -> None:
        """Have it finish its step, write a checkpoint, and exit."""
        self._withdraw()
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it and everything it started, and wait until it has ended."""
        self._withdraw()
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
            end_orphans(self._process.pid)

    def strike(self) -> None:
        """Kill it from another thread; the one that it belongs to finds it ended."""
        process = self._process
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def remove(self) -> None:
        """Delete its folder and its log if that is empty, and the oldest of many logs."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if not self._printed():
            self.log_path.unlink(missing_ok=True)
        prune_logs(self.log_path.parent)

    def describe_exit(self) -> str:
        """Why it ended without an event that says so, for the job's log."""
        code = self.exit_code()
        if code is None:
            return "the trainer was stopped"
        if code == -signal.SIGKILL:
            return (
                "the trainer was killed (signal 9): by hand, or because memory ran out. If it "
                "was memory, a smaller network or batch_size helps, or fewer runs at a time on "
                "the worker's machine"
            )
        if code < 0:
            log = f"; its log is logs/trainers/{self.log_path.name}" if self._printed() else ""
            return f"the trainer crashed ({signal.Signals(-code).name}){log}"
        if code == EXIT_CANNOT_WRITE:
            return "the trainer could not write to its folder: the worker's disk is full"
        return f"the trainer ended with exit code {code}"

    def _connect(self, seconds: float = 0.0) -> None:
        """Learn the process that was asked of the spare; start one anew if there is none."""
        if self._request is None:
            return
        try:
            pid = self._request.answer(seconds)
        except SpareLostError as error:
            log.warning("%s: a trainer starts without it", error)
            self._request = None
            with self.log_path.open("wb") as output:
                self._process = _spawn(self.folder, self._environment, output)
            return
        if pid is not None:
            self._request, self._process = None, _Adopted(pid)

    def _withdraw(self) -> None:
        """End what has not begun."""
        if self._request is not None:
            self._request.withdraw()
            self._request, self._process = None, _NeverBegun()

    def _printed(self) -> bool:
        return self.log_path.exists() and self.log_path.stat().st_size > 0

    def _signal(self, number: int) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        # It leads a session of its own: its process group is its process id.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def prune_logs(folder: Path, keep: int = _KEPT_LOGS) -> None:
    """Delete all but the newest ``keep`` logs. Several workers may do so at once."""
    written = []
    for path in folder.glob("*.log"):
        with suppress(FileNotFoundError):
            written.append((path.stat().st_mtime, path))
    for _, path in sorted(written, reverse=True)[keep:]:
        path.unlink(missing_ok=True)


def checkpoint_name(claim: Claim) -> str | None:
    """The path, in the trainer's folder, of the checkpoint that it resumes from."""
    if claim.checkpoint is None:
        return None
    return f"checkpoints/step-{claim.checkpoint.step:09d}.safetensors"


def trainer_environment(threads: int) -> dict[str, str]:
    """All variables of a trainer's environment: no address or password is among them."""
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return environment | {
        "OMP_NUM_THREADS": str(threads),
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",
    }


def _spawn(
    folder: Path, environment: Mapping[str, str], output: IO[bytes]
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "mlhf.runner", str(folder)],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )


def end_orphans(group: int) -> None:
    """End what a trainer that has ended had started: this process has adopted it."""
    with suppress(ChildProcessError):
        while group > 1:
            if os.waitpid(-group, os.WNOHANG) == (0, 0):  # there are some, and they run
                os.killpg(group, signal.SIGKILL)
                os.waitpid(-group, 0)


class _Adopted:
    """A process that another one forked, and whose parent this one is."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        return self._collect(os.WNOHANG)

    def wait(self) -> int:
        code = self._collect(0)
        assert code is not None
        return code

    def _collect(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


class _NeverBegun:
    """A trainer that was asked to stop before it began."""

    pid = -1
    returncode: int | None = EXIT_INTERRUPTED

    def poll(self) -> int:
        return EXIT_INTERRUPTED

    wait = poll
