"""Many faults at random, in bursts, while jobs run all the time.

A burst is up to 64 faults of one kind or of several, each some moments after the one before, so
that a process is also killed while it starts, while others are down or stopped, and while what
the fault before left is put right. What a burst needs not show it does not wait for: to be killed
a process need only live. After one burst in ten the service is left alone until a job gets
on, which is measured; after the last one until all jobs have ended.
"""

import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx

from bench.faults.deployment import Deployment
from bench.faults.jobs import SPEC, ended, faults_of
from bench.faults.plan import SERVERS, Plan
from bench.faults.recovery import seconds_to_get_on
from bench.faults.report import Report
from mlhf_service.client import ServiceError
from mlhf_service.client.records import TERMINAL

_AT_ONCE = 4  # jobs: while some wait after a lost attempt, others have a trainer
_STOPS = 0.15  # of all faults
_SIZES = (1, 4, 8, 16, 32, 64)
_OF_ONE_KIND = 0.4  # of all bursts
_LEFT_ALONE = 0.1  # of all bursts
_GAP_SECONDS = (0.02, 1.0)  # between two faults, all magnitudes alike
_PATIENCE_SECONDS = 2.0


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
        # Where the service does not answer, those that there are will do.
        while len(active) < _AT_ONCE and (not active or _answers(deployment)):
            active.append(deployment.submit(SPEC, f"{name}-{count}"))
            count += 1
        faults = _burst(deployment, plan, rng, report, until)
        if faults and rng.random() < _LEFT_ALONE:
            report.got_on(faults, seconds_to_get_on(deployment, active))
        if _answers(deployment):
            active = [
                job_id for job_id in active if not _has_ended(deployment, job_id, expected, report)
            ]
    for job_id in active:
        job = ended(deployment, job_id)
        report.faults(faults_of(deployment, job, expected))
        report.job(job["attempts"])


def _burst(
    deployment: Deployment, plan: Plan, rng: random.Random, report: Report, until: float
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
        if not made or action == "stop":
            plan.put_back(kind)
        if not made:
            return
        faults.append((kind, action))
        report.killed(kind) if action == "kill" else report.stopped(kind)

    size = rng.choice(_SIZES)
    kinds = _kinds(deployment, plan, rng)
    with ThreadPoolExecutor(size) as pool:
        made = []
        for _ in range(size):
            shortest, longest = _GAP_SECONDS
            time.sleep(shortest * (longest / shortest) ** rng.random())
            kind = _next_that_lives(deployment, plan, kinds, rng)
            if kind is None or time.monotonic() > until:
                break
            action = "stop" if rng.random() < _STOPS else "kill"
            made.append(pool.submit(make, kind, action, random.Random(rng.random())))
        for each in made:
            each.result()
    return faults


def _kinds(deployment: Deployment, plan: Plan, rng: random.Random) -> Sequence[str]:
    """Of what a burst is: of one kind, or of several.

    Were it always of all, most would die with their supervisor and few by themselves.
    """
    left = [kind for kind in deployment.kinds if plan.left([kind])]
    if not left or rng.random() < _OF_ONE_KIND:
        return left and rng.choices(left, [plan.left([kind]) for kind in left])
    return rng.sample(left, rng.randint(min(2, len(left)), len(left)))


def _next_that_lives(
    deployment: Deployment, plan: Plan, kinds: Sequence[str], rng: random.Random
) -> str | None:
    """Take one of these kinds that lives within some seconds; None where none does."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while plan.left(kinds):
        alive = [kind for kind in deployment.alive() if kind in kinds]
        if kind := plan.next_kill(alive, rng):
            return kind
        if time.monotonic() > deadline:
            return None
        deployment.keep_running()
        time.sleep(0.1)
    return None


def _one(kind: str, pids: list[int], rng: random.Random) -> int:
    return pids[0] if kind in SERVERS else rng.choice(pids)


def _answers(deployment: Deployment) -> bool:
    """Whether the service answers at once."""
    try:
        return httpx.get(f"http://127.0.0.1:{deployment.port}/healthz", timeout=1).is_success
    except httpx.HTTPError:
        return False


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
