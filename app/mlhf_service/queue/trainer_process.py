"""The trainer process: runs the engine, and is controlled by files and signals."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from mlhf.core import events
from mlhf.core.process import EXIT_CANNOT_WRITE
from mlhf_service.queue.leases import Claim

_PASSED_ON = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "TZ",
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
    "XDG_CACHE_HOME",
    "MPLCONFIGDIR",
    "TORCHINDUCTOR_CACHE_DIR",
)
_BATCH = 2000  # events read at once, so that memory stays bounded after an outage
_KEPT_LOGS = 200  # of trainers that printed something


class TrainerProcess:
    """One engine process in its own session, its folder, and its events so far.

    The process gets no database, broker or storage address, and dies with this one.
    """

    def __init__(self, folder: Path, log_path: Path) -> None:
        self.folder = folder
        self.log_path = log_path
        self.offset = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(
        self,
        claim: Claim,
        config: dict[str, Any],
        files: Mapping[str, Path],
        checkpoint_seconds: float,
    ) -> None:
        """Write the run's folder anew and start the engine on it.

        Args:
            files: What the configuration and the claim refer to, by its path in the folder.
        """
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "checkpoints").mkdir(parents=True)
        for name, source in files.items():
            shutil.copyfile(source, self.folder / name)
        run = {
            "kind": claim.kind,
            "config": config,
            "resume": checkpoint_name(claim),
            "checkpoint_seconds": checkpoint_seconds,
            "parent_pid": os.getpid(),
        }
        (self.folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("wb") as log:
            self._process = _spawn(self.folder, config.get("threads") or 1, log)

    def exit_code(self) -> int | None:
        """None while it runs; negative for the signal that ended it."""
        return self._process.poll() if self._process else None

    def read(self) -> list[tuple[events.Event, int]]:
        """The events written since the last call, each with the spool's offset after it."""
        path = self.folder / "events.jsonl"
        if not path.exists():
            return []
        batch = []
        for event, offset in events.read(path, self.offset):
            batch.append((event, offset))
            if len(batch) >= _BATCH:
                break
        if batch:
            self.offset = batch[-1][1]
        return batch

    def ask_to_stop(self) -> None:
        """Have it finish its step, write a checkpoint, and exit."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it and everything it started, and wait until it has ended."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

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


def _spawn(folder: Path, threads: int, log: IO[bytes]) -> subprocess.Popen[bytes]:
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environment |= {
        "OMP_NUM_THREADS": str(threads),
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "mlhf.runner", str(folder)],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
