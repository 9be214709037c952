"""Many faults at random, in bursts, while jobs run all the time.

A burst is up to 64 faults of any kinds within seconds, so that a process is also killed while it
starts, while others are down or stopped, and while what the fault before left is put right. After
most bursts the service is left alone until a job gets on; how long that takes is measured.
"""

import random
import time
from concurrent.futures import ThreadPoolExecutor

from bench.faults.deployment import Deployment
from bench.faults.jobs import SPEC, ended, faults_of
from bench.faults.plan import SERVERS, Plan
from bench.faults.recovery import seconds_to_get_on
from bench.faults.report import Report
from mlhf_service.client import ServiceError
from mlhf_service.client.records import TERMINAL

_AT_ONCE = 4  # jobs
_STOPS = 0.2  # of all faults
_SIZES = (1, 2, 4, 8, 16, 32, 64)
_LEFT_ALONE = 0.8  # of all bursts
_PATIENCE_SECONDS = 3.0


def run(
    deployment: Deployment, plan: Plan, expected: str, name: str, report: Report, until: float
) -> None:
    """Kill at random until nothing is left that can be killed here, or until that time.

    Args:
        plan: How often to kill each kind; shared with other lanes.
        expected: The SHA-256 of the weights of an undisturbed run.
        name: Of the lane; with the suite's seed it decides every random choice.
        until: By the monotonic clock.
    """
    rng = random.Random(name)
    active: list[str] = []
    count = 0
    while plan.left(deployment.kinds) and time.monotonic() < until:
        while len(active) < _AT_ONCE:
            active.append(deployment.submit(SPEC, f"{name}-{count}"))
            count += 1
        faults = _burst(deployment, plan, rng, report)
        if faults and rng.random() < _LEFT_ALONE:
            report.got_on(faults, seconds_to_get_on(deployment, active))
        active = [
            job_id for job_id in active if not _has_ended(deployment, job_id, expected, report)
        ]
    for job_id in active:
        job = ended(deployment, job_id)
        report.faults(faults_of(deployment, job, expected))
        report.job(job["attempts"])


def _burst(
    deployment: Deployment, plan: Plan, rng: random.Random, report: Report
) -> list[tuple[str, str]]:
    """Make some faults; returns those that were made, each a kind and an action."""
    faults: list[tuple[str, str]] = []

    def make(kind: str, action: str, chance: random.Random) -> None:
        if not (pids := deployment.pids(kind)):
            made = False  # it is down just now
        elif action == "kill":
            down = chance.choice([0.0, 0.0, 1.0, 4.0])
            made = deployment.kill(kind, _one(kind, pids, chance), down)
        else:
            made = deployment.stop_for(kind, _one(kind, pids, chance), chance.uniform(0.05, 5.0))
        if not made:
            if action == "kill":
                plan.put_back(kind)
            return
        faults.append((kind, action))
        report.killed(kind) if action == "kill" else report.stopped(kind)

    size = rng.choice(_SIZES)
    # Chosen ahead: of what lives at some moment most would be supervisors and servers, which are
    # never down for long.
    kinds = [plan.next_kill(deployment.kinds, rng) for _ in range(size)]
    with ThreadPoolExecutor(size) as pool:
        made = []
        for kind in filter(None, kinds):
            time.sleep(rng.uniform(0.05, 0.5))
            if not _is_up(deployment, kind):
                plan.put_back(kind)
                continue
            chance = random.Random(rng.random())
            if rng.random() < _STOPS:
                plan.put_back(kind)
                made.append(pool.submit(make, kind, "stop", chance))
            else:
                made.append(pool.submit(make, kind, "kill", chance))
        for each in made:
            each.result()
    return faults


def _is_up(deployment: Deployment, kind: str) -> bool:
    """Whether there is one within some seconds."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while kind not in deployment.alive():
        if time.monotonic() > deadline:
            return False
        deployment.keep_running()
        time.sleep(0.1)
    return True


def _one(kind: str, pids: list[int], rng: random.Random) -> int:
    return pids[0] if kind in SERVERS else rng.choice(pids)


def _has_ended(deployment: Deployment, job_id: str, expected: str, report: Report) -> bool:
    try:
        job = deployment.client.job(job_id)
    except ServiceError:
        return False
    if job["status"] not in TERMINAL:
        return False
    report.faults(faults_of(deployment, job, expected))
    report.job(job["attempts"])
    return True
