"""How soon a run starts: from POST to its first point, and many short runs after each other.

    python -m bench.load.start [--jobs 15] [--runs 12] [--pause 4]

Starts ``mlhf serve`` in a temporary folder with one worker and one thread a trainer. First it
posts small jobs one by one, with a pause before each as on an idle machine, and reads each job's
stream of events; then it posts a sweep of runs of five steps. Prints medians, and the machine's
load: the numbers that are stated are of an idle machine.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlhf_service.cli.demo import service
from mlhf_service.client import Client
from mlhf_service.settings import Settings

SPEC: dict[str, Any] = {
    "model": {"name": "mlp", "params": {"hidden": [64, 32]}},
    "dataset": {"name": "digits"},
    "budget": {"steps": 5},
    "batch_size": 64,
}


def main() -> None:
    """Measure and print both."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=15, help="Jobs that are posted one by one.")
    parser.add_argument("--runs", type=int, default=12, help="Runs of the sweep; 0: none.")
    parser.add_argument("--pause", type=float, default=4.0, help="Seconds before each job.")
    options = parser.parse_args()
    print(f"load before: {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(_env_file=None, data_dir=Path(folder))
        with service(settings, workers=1) as (client, _):
            times = []
            for number in range(options.jobs):
                time.sleep(options.pause)
                times.append(one_job(client, number))
            show("POST answered", [answered for answered, _, _ in times])
            show("POST to the first point", [point for _, point, _ in times])
            show("POST to the job's end", [end for _, _, end in times])
            if options.runs:
                time.sleep(options.pause)
                seconds = many_runs(client, options.runs)
                print(f"{options.runs} runs of five steps: {seconds:.2f} s")


def one_job(client: Client, seed: int) -> tuple[float, float, float]:
    """Return the seconds from sending a job to its answer, its first point, and its end."""
    began = time.perf_counter()
    job = client.submit({"kind": "train", **SPEC, "optimizer": {"name": "adam"}, "seed": seed})
    answered = time.perf_counter() - began
    first = None
    for event in client.events(job["id"]):
        if first is None and event["event"] == "metrics":
            first = time.perf_counter() - began
    assert first is not None, client.job(job["id"])
    return answered, first, time.perf_counter() - began


def many_runs(client: Client, runs: int) -> float:
    """Return the seconds from sending a sweep of so many runs to its end."""
    began = time.perf_counter()
    sweep = {"kind": "sweep", **SPEC, "optimizers": [{"name": "adam"}], "seeds": list(range(runs))}
    job = client.submit(sweep)
    for _ in client.events(job["id"]):
        pass
    seconds = time.perf_counter() - began
    assert client.job(job["id"])["status"] == "succeeded"
    return seconds


def show(name: str, seconds: Sequence[float]) -> None:
    """Print the median and the ends of what was measured."""
    median = statistics.median(seconds)
    print(f"{name}: median {median:.3f} s ({min(seconds):.3f} to {max(seconds):.3f})")


if __name__ == "__main__":
    main()
