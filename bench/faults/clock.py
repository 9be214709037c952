"""Steps of a machine's clock: of the whole service, its workers, its API, or the database.

A step is an hour forward or back, in the middle of a run; some seconds later the clock is right
again. What measures durations (the monotonic clock) does not step, as on a real machine.
"""

import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.faults.deployment import Deployment
from bench.faults.jobs import SPEC, ended, faults_of, undisturbed
from bench.faults.report import Report
from bench.faults.servers import PostgreSQL, Redis, Server
from bench.faults.stages import wait_for

_SECONDS = 6.0  # more than two leases
_STEPS = {"an hour forward": 3600, "an hour back": -3600}
_SOURCE = Path(__file__).with_name("stepped_clock.c")


def missing() -> str | None:
    """Why no clock can be set, if so."""
    return None if shutil.which("cc") else "no C compiler (cc) is installed: no clock can be set"


def run(folder: Path, report: Report) -> None:
    """Step each clock in both directions."""
    for whose in ("the service", "the workers", "the API", "the database"):
        names = {f"the clock of {whose} is set {how}": to for how, to in _STEPS.items()}
        left = {name: to for name, to in names.items() if name not in report.made}
        if not left:
            continue
        place = folder / whose.replace(" ", "-")
        with _deployment(place, whose, report) as deployment:
            expected = undisturbed(deployment)
            for name, to in left.items():
                report.special(name, _steps(deployment, place / "clock", to, name, expected))


def _steps(deployment: Deployment, clock: Path, to: int, key: str, expected: str) -> list[str]:
    jobs = [deployment.submit(SPEC, f"{key} {number}") for number in range(3)]  # one waits
    (run_id,) = deployment.patiently(lambda: deployment.client.job(jobs[0]))["run_ids"]
    wait_for(deployment, run_id, "running", random.Random(key))
    _set(clock, to)
    time.sleep(_SECONDS)
    _set(clock, 0)
    faults = []
    for job_id in jobs:
        faults += faults_of(deployment, ended(deployment, job_id), expected)
    return faults


@contextmanager
def _deployment(folder: Path, whose: str, report: Report) -> Iterator[Deployment]:
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    clock = folder / "clock"
    clock.write_bytes(bytes(8))
    library = folder / "stepped_clock.so"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, _SOURCE], check=True)
    steps = {"LD_PRELOAD": str(library), "MLHF_CLOCK_OFFSET": str(clock)}
    servers: dict[str, Server] = {}
    if whose != "the service" and PostgreSQL.missing() is None and Redis.missing() is None:
        database = PostgreSQL(folder / "pg")
        database.more = steps if whose == "the database" else {}
        servers = {"database": database, "broker": Redis(folder / "redis")}
    of_api = steps if whose in ("the service", "the API") else {}
    right = {"LD_PRELOAD": ""}
    of_workers = {"the workers": steps, "the API": right}.get(whose)
    with ExitStack() as stack:
        deployment = Deployment(folder, servers, of_api, of_workers)
        stack.callback(lambda: report.faults(deployment.end()))
        yield deployment


def _set(clock: Path, offset: int) -> None:
    """Step the clock of all who have mapped the file."""
    with clock.open("r+b") as file:
        file.write(offset.to_bytes(8, sys.byteorder, signed=True))
