"""Disturb a service in every way, and count what was lost or doubled.

    python -m bench.faults [--kills 200] [--lanes 6] [--seed 0] [--minutes 60] [--journal FILE]

First one fault at a time: each kind of process, in each stage of a run, killed (and down for 0,
5 and 20 s where one can choose) and stopped for as long; then so many kills of each kind at
random, in bursts, several jobs running all the time. Half of the lanes are a service on SQLite
with a folder as broker, half one on PostgreSQL, Redis and S3 servers of their own. Beside them
the special ones: a full disk, deleted folders, doorbells (``special``), a store that misbehaves,
RabbitMQ, steps of clocks. Afterwards no job may be lost or have ended twice,
every curve has each step once, all weights are those of an undisturbed run, and no process is
left. The seed decides the choices; the machine decides the moments.

A round may be made in several parts: what is noted in the journal is not made again. Ends with
code 1 where something is wrong, and with 3 where the round is not complete.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bench.faults import clock, jobs, matrix, rabbitmq, special, store, storm
from bench.faults.deployment import Deployment, embedded, in_parts
from bench.faults.plan import SERVERS, Plan
from bench.faults.report import Report
from bench.faults.servers import S3, PostgreSQL, RabbitMQ, Redis

_EVERY_KIND = ["trainer", "spare", "worker", "api", "supervisor", "broker", "database", "store"]
_SPECIAL = ["special", "store", "rabbitmq", "clock"]  # faults that no random kill makes
_INCOMPLETE = 3
_SCENARIO_SECONDS, _KILL_SECONDS = 20.0, 3.0  # of a lane, about, on two free cores


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200, help="at random, of each kind")
    parser.add_argument(
        "--lanes", type=int, default=6, help="services side by side; 0: only the special faults"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60.0, help="at most")
    parser.add_argument("--only", nargs="*", default=_EVERY_KIND, choices=_EVERY_KIND)
    parser.add_argument("--seconds", nargs="*", type=float, default=[0.0, 5.0, 20.0])
    parser.add_argument("--no-matrix", action="store_true", help="only at random")
    parser.add_argument("--special", nargs="*", default=_SPECIAL, choices=_SPECIAL)
    parser.add_argument("--journal", type=Path, help="what is noted there is not made again")
    options = parser.parse_args()
    report = Report(options.journal)
    if report.seconds:
        print(f"so far, by {options.journal}:\n{report.text()}\n")
    until = time.monotonic() + 60.0 * options.minutes
    missing = PostgreSQL.missing() or Redis.missing()
    if missing:
        print(f"{missing}: no server is disturbed")
    elif S3.missing():
        print(f"{S3.missing()}: the store is a folder, and not disturbed")
        options.only = [kind for kind in options.only if kind != "store"]
    makers = [embedded] if missing else [in_parts, embedded]
    # Half of them with one worker: a start takes a third less of the machine.
    lanes = [partial(makers[n % len(makers)], workers=2 - n // 2 % 2) for n in range(options.lanes)]
    kinds = [kind for kind in options.only if not missing or kind not in SERVERS]
    plan = _what_is_left(options, kinds, report)
    print(_estimate(options, plan), flush=True)

    running: list[Deployment] = []

    def leave(*_: object) -> None:
        report.close()
        for deployment in running:
            deployment.kill_all()
        print(f"stopped; so far:\n{report.text()}", flush=True)
        os._exit(130)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)

    def lane(number: int) -> None:
        with tempfile.TemporaryDirectory(prefix="mlhf-faults-") as name:
            Path(name).chmod(0o755)  # PostgreSQL runs as another user
            deployment = lanes[number](Path(name) / f"lane-{number}")
            running.append(deployment)
            try:
                _carry_out(deployment, number, plan, options.seed, report, until)
            except Exception as error:
                report.faults([f"lane {number}: {type(error).__name__}: {error}"])
                traceback.print_exc()
                _show_logs(deployment)
            finally:
                report.faults(deployment.end())

    @contextmanager
    def kept(make: Callable[[Path], Deployment], folder: Path) -> Iterator[Deployment]:
        deployment = make(folder)
        running.append(deployment)
        try:
            yield deployment
        finally:
            report.faults(deployment.end())

    def specials() -> None:
        for name, run in parts.items():
            with tempfile.TemporaryDirectory(prefix="mlhf-faults-") as folder:
                Path(folder).chmod(0o755)
                try:
                    run(Path(folder))
                except Exception as error:
                    report.faults([f"{name}: {type(error).__name__}: {error}"])
                    traceback.print_exc()

    def signals_apart(folder: Path) -> None:
        with kept(embedded, folder / "special") as deployment:
            special.run(deployment, jobs.undisturbed(deployment), report, folder / "small")

    def of_store(folder: Path) -> None:
        with kept(store.on_flaky_store, folder / "store") as deployment:
            store.run(deployment, jobs.undisturbed(deployment), report)

    def of_rabbitmq(folder: Path) -> None:
        with kept(rabbitmq.on_rabbitmq, folder / "rabbitmq") as deployment:
            rabbitmq.run(deployment, jobs.undisturbed(deployment), options.seed, report)

    def of_clocks(folder: Path) -> None:
        clock.run(folder, report)

    lacks = {
        of_store: missing or S3.missing(),
        of_rabbitmq: missing or RabbitMQ.missing(),
        of_clocks: clock.missing(),
    }
    for why in filter(None, lacks.values()):
        print(f"{why}: no such faults")
    every = {
        "special": signals_apart,
        "store": of_store,
        "rabbitmq": of_rabbitmq,
        "clock": of_clocks,
    }
    parts = {
        name: run for name, run in every.items() if name in options.special and not lacks.get(run)
    }

    with ThreadPoolExecutor(len(lanes) + 1) as pool:
        done = [pool.submit(lane, number) for number in range(len(lanes))]
        if parts:
            done.append(pool.submit(specials))
        for each in done:
            each.result()
    report.close()
    print(report.text())
    if not lanes or not (plan.scenarios or plan.kills):
        return int(bool(report.wrong))
    print(f"not made yet: {len(plan.scenarios)} single faults, {plan.kills.total()} kills")
    return 1 if report.wrong else _INCOMPLETE


def _what_is_left(options: argparse.Namespace, kinds: list[str], report: Report) -> Plan:
    scenarios = [] if options.no_matrix else matrix.scenarios(kinds, tuple(options.seconds))
    return Plan(
        (each for each in scenarios if str(each) not in report.made),
        Counter(dict.fromkeys(kinds, options.kills)) - report.at_random,
        random.Random(options.seed),
    )


def _estimate(options: argparse.Namespace, plan: Plan) -> str:
    scenarios, kills = len(plan.scenarios), plan.kills.total()
    seconds = scenarios * _SCENARIO_SECONDS + kills * _KILL_SECONDS
    minutes = seconds / max(1, options.lanes) / 60
    return (
        f"seed {options.seed}: {scenarios} single faults, then {kills} kills at random, in "
        f"{options.lanes} lanes; about {minutes:.0f} minutes on two free cores"
    )


def _carry_out(
    deployment: Deployment, lane: int, plan: Plan, seed: int, report: Report, until: float
) -> None:
    expected = jobs.undisturbed(deployment)
    while time.monotonic() < until and (one := plan.next_scenario(deployment.kinds)):
        matrix.run(deployment, one, expected, f"{seed}-{lane}-{one}", report)
    name = f"{seed}-{report.at_random.total()}-storm-{lane}"  # each part of a round another
    storm.run(deployment, plan, expected, name, report, until)


def _show_logs(deployment: Deployment) -> None:
    for path in [deployment.folder / "serve.log", *(deployment.data / "logs").glob("*.log")]:
        lines = path.read_text(errors="replace").splitlines()[-15:]
        print(f"--- {path.name}", *lines, sep="\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
