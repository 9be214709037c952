"""A bar that shows how far a job is, in a terminal or a notebook. It needs no package."""

import sys
from typing import TextIO

from mlhf_service.client.records import Job

_WIDTH = 24


class Bar:
    """One line that is written anew; where nobody looks, only its last state."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stderr
        self._live = self._out.isatty() or "ipykernel" in sys.modules
        self._length = 0

    def show(self, job: Job) -> None:
        line = describe(job)
        if self._live:
            self._out.write("\r" + line.ljust(self._length))
            self._length = len(line)
        if job.ended:
            self._out.write("\n" if self._live else line + "\n")
            error = job["error"]
            if job["status"] == "failed" and error:
                self._out.write(f"failed: {error.get('detail') or error.get('title')}\n")
        self._out.flush()


def describe(job: Job) -> str:
    """How far a job is, in one line."""
    progress, counts = job["progress"], job["runs"]
    fraction = progress["fraction"]
    full = round(_WIDTH * fraction)
    total = sum(counts.values())
    ended = counts["succeeded"] + counts["failed"] + counts["cancelled"]
    parts = [f"{job['name'][:40]} [{'█' * full}{'·' * (_WIDTH - full)}] {fraction:4.0%}"]
    parts.append(f"{job['status']}, {ended} of {total} runs")
    if progress.get("eta_seconds") is not None:
        parts.append(f"{progress['eta_seconds']:.0f} s left")
    if job["status"] == "queued" and job.get("waiting"):
        parts.append(job["waiting"])
    return "  ".join(parts)
