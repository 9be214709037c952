"""Latency of ``POST /v1/jobs`` while a job trains: median and 99th percentile.

    python -m bench.post_latency [--requests 300]

Starts ``mlhf serve`` in a temporary folder with one worker and one thread, keeps the worker
busy, and posts jobs one after another on a connection that stays open.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from mlhf_service.cli.demo import service
from mlhf_service.client import Client
from mlhf_service.settings import Settings

BUSY: dict[str, Any] = {
    "kind": "train",
    "model": {"name": "mlp", "params": {"hidden": [256, 256]}},
    "dataset": {"name": "digits"},
    "optimizer": {"name": "hf_adam"},
    "budget": {"wall_seconds": 600},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=300)
    requests = parser.parse_args().requests
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(_env_file=None, data_dir=Path(folder))
        with service(settings, workers=1) as (client, _):
            busy = client.submit(BUSY)
            while client.job(busy["id"])["progress"]["step"] == 0:
                time.sleep(0.2)
            times = sorted(measure(client, requests))
            running = client.job(busy["id"])["status"] == "running"
            client.act(busy["id"], "cancel")
    print(f"POST /v1/jobs, {requests} requests, a job running beside: {running}")
    print(f"median {statistics.median(times) * 1e3:6.2f} ms")
    print(f"p99    {times[int(0.99 * len(times))] * 1e3:6.2f} ms")
    print(f"max    {times[-1] * 1e3:6.2f} ms")


def measure(client: Client, requests: int) -> list[float]:
    times = []
    for number in range(requests + 20):
        spec = {**BUSY, "name": f"waiting {number}", "seed": number}
        began = time.perf_counter()
        client.submit(spec)
        times.append(time.perf_counter() - began)
    return times[20:]  # the first ones warm caches


if __name__ == "__main__":
    main()
