"""One fault at a time: every kind of process × every stage of a run × kill and stop × seconds."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from bench.faults.deployment import Deployment
from bench.faults.jobs import SPEC, ended, faults_of
from bench.faults.recovery import seconds_to_get_on
from bench.faults.report import Report
from bench.faults.stages import STAGES, wait_for

# Those that their supervisor starts again at once: one cannot choose when.
_RESTARTED = ("trainer", "worker", "api", "spare")


@dataclass(frozen=True)
class Scenario:
    """A fault: ``kill`` (down so many seconds) or ``stop`` (for so many seconds)."""

    kind: str
    stage: str
    action: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.action} {self.kind} while {self.stage}, {self.seconds:g} s"


def scenarios(kinds: list[str], durations: tuple[float, ...]) -> Iterator[Scenario]:
    """Every fault that these kinds of processes can have."""
    for kind, stage, action, seconds in product(kinds, STAGES, ("kill", "stop"), durations):
        if action == "kill" and kind in _RESTARTED and seconds != durations[0]:
            continue
        if kind == "trainer" and stage == "queued":
            continue  # it has none yet
        yield Scenario(kind, stage, action, seconds)


def run(
    deployment: Deployment, scenario: Scenario, expected: str, key: str, report: Report
) -> None:
    """Disturb one job, wait for its end, and report."""
    rng = random.Random(key)
    job_id = deployment.submit(SPEC, key)
    job = deployment.patiently(lambda: deployment.client.job(job_id))
    (run_id,) = job["run_ids"]
    reached = wait_for(deployment, run_id, scenario.stage, rng)
    pids = deployment.pids(scenario.kind)
    if reached and pids and _make(deployment, scenario, pids, rng, report):
        report.recovered(scenario, seconds_to_get_on(deployment, [job_id]))
    else:
        report.missed(scenario)
    over = ended(deployment, job_id)
    report.faults(faults_of(deployment, over, expected))
    report.job(over["attempts"])


def _make(
    deployment: Deployment,
    scenario: Scenario,
    pids: list[int],
    rng: random.Random,
    report: Report,
) -> bool:
    pid = pids[0] if scenario.kind in deployment.servers else rng.choice(pids)
    if scenario.action == "kill":
        if made := deployment.kill(scenario.kind, pid, scenario.seconds):
            report.killed(scenario.kind, at_random=False)
    elif made := deployment.stop_for(scenario.kind, pid, scenario.seconds):
        report.stopped(scenario.kind)
    return made
