"""In which stage a run is, seen in its spool folder: faster than any request could tell."""

import random
import time
from pathlib import Path

from bench.faults.deployment import Deployment

STAGES = ("queued", "starting", "running", "checkpointing", "finishing")


def wait_for(
    deployment: Deployment, run_id: str, stage: str, rng: random.Random, seconds: float = 60.0
) -> bool:
    """Wait until a run is in a stage, and a random moment more; False where it was missed."""
    if stage == "queued":
        return True
    deadline = time.monotonic() + seconds
    seen: set[str] | None = None
    while time.monotonic() < deadline:
        folder = _folder(deployment, run_id)
        text = _events(folder) if folder else b""
        if folder is None:
            pass
        elif stage == "starting" or (stage == "running" and b'"type":"points"' in text):
            time.sleep(rng.uniform(0.0, 1.0))
            return True
        elif stage == "finishing" and (folder / "artifacts").exists():
            time.sleep(rng.uniform(0.0, 0.2))
            return True
        elif stage == "checkpointing" and b'"type":"points"' in text:
            there = _names(folder / "checkpoints")
            if seen is not None and there - seen:
                time.sleep(rng.uniform(0.0, 0.02))
                return True
            seen = there
        time.sleep(0.003)
    return False


def _folder(deployment: Deployment, run_id: str) -> Path | None:
    """The folder of its newest attempt that runs now."""
    found = list(deployment.spool.glob(f"{run_id}-*"))
    return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _events(folder: Path) -> bytes:
    try:
        return (folder / "events.jsonl").read_bytes()
    except OSError:
        return b""


def _names(folder: Path) -> set[str]:
    try:
        return {path.name for path in folder.iterdir()}
    except OSError:
        return set()
