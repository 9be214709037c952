"""What ``POST /v1/networks`` of a small network takes: median, 90th percentile, the first.

    python -m bench.network_post [--requests 20] [--api-processes 1]

Starts ``mlhf serve`` without workers in a temporary folder, and posts one after another. CPU
seconds are those of all processes of the service together, which say more than the clock where
other work is under way; memory is what the processes beside the API hold when nobody asks.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import torch
from torch import nn

import mlhf
from mlhf_service.cli.demo import service
from mlhf_service.settings import Settings

_TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Post, and print what it took."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=20)
    parser.add_argument("--api-processes", type=int, default=1)
    given = parser.parse_args()
    graph = json.dumps(mlhf.trace(_network(), torch.randn(2, 1, 8, 8)).to_json())
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            _env_file=None, data_dir=Path(folder), api_processes=given.api_processes
        )
        with service(settings, workers=0) as (client, _):
            address = str(client.url)
            took = [_post(address, graph) for _ in range(given.requests)]
            beside = [f"{name} {mib:.0f} MiB" for name, mib in _memory(os.getpid())]
    seconds, processor = zip(*took, strict=True)
    print(f"the first: {seconds[0]:.2f} s, {processor[0]:.2f} s of CPU")
    for name, values in (("seconds", seconds[1:]), ("CPU seconds", processor[1:])):
        ordered = sorted(values)
        middle, late = ordered[len(ordered) // 2], ordered[int(0.9 * len(ordered))]
        print(f"{name}, {len(ordered)} more: median {middle:.3f}, 90th percentile {late:.3f}")
    print("resident: " + ", ".join(beside))


def _network() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(128, 32), nn.ReLU(), nn.Linear(32, 10)),
    )


def _post(address: str, graph: str) -> tuple[float, float]:
    before, began = _processor_seconds(), time.perf_counter()
    answer = httpx.post(
        f"{address}/v1/networks",
        data={"name": "small"},
        files={"graph": graph.encode()},
        timeout=300.0,
    )
    took = time.perf_counter() - began
    answer.raise_for_status()
    return took, _processor_seconds() - before


def _processor_seconds() -> float:
    """CPU seconds of all descendants, those that have ended among them."""
    return sum(sum(map(int, stat[11:15])) for _, stat in _descendants(os.getpid())) / _TICKS


def _memory(pid: int) -> Iterator[tuple[str, float]]:
    page = os.sysconf("SC_PAGE_SIZE")
    for name, stat in _descendants(pid):
        yield name, int(stat[21]) * page / 2**20


def _descendants(pid: int) -> Iterator[tuple[str, list[Any]]]:
    """Name and fields (from ``state`` on) of each process below this one."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = entry.read_text()
        except OSError:
            continue
        name, _, rest = text.partition("(")[2].rpartition(") ")
        found[int(entry.parent.name)] = (name, rest.split())
    ours = {pid}
    while more := {p for p, (_, f) in found.items() if int(f[1]) in ours and p not in ours}:
        ours |= more
    for each in ours - {pid}:
        yield found[each]


if __name__ == "__main__":
    main()
