"""What the service adds to a run: the same training through HTTP and by the engine alone.

    python -m bench.service_overhead [--epochs 400] [--repeats 2]

Both are timed from the outside, start-up included: a trainer process by itself, and a job from
its POST to its end, in turns, with one thread each. The training clocks are compared too: that
is what the service adds to the steps themselves.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from mlhf.core import events
from mlhf_service.cli.demo import service
from mlhf_service.client import Client
from mlhf_service.settings import Settings

SPEC: dict[str, Any] = {
    "model": {"name": "mlp", "params": {"hidden": [512, 256]}},
    "dataset": {"name": "digits"},
    "optimizer": {"name": "hf_adam"},
    "batch_size": 128,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    spec = {**SPEC, "budget": {"epochs": options.epochs}}
    alone, served = [], []
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(_env_file=None, data_dir=Path(folder) / "data")
        with service(settings, workers=1) as (client, _):
            for repeat in range(options.repeats):
                alone.append(by_the_engine(spec, Path(folder) / f"alone-{repeat}"))
                served.append(by_the_service(client, spec))
                print(f"{repeat}: engine {alone[-1][0]:.2f} s, service {served[-1][0]:.2f} s")
    outside = [s[0] / a[0] - 1 for a, s in zip(alone, served, strict=True)]
    inside = [s[1] / a[1] - 1 for a, s in zip(alone, served, strict=True)]
    print(f"overhead from POST to end:      median {statistics.median(outside):+.2%}")
    print(f"overhead on the training clock: median {statistics.median(inside):+.2%}")


def by_the_engine(spec: dict[str, Any], folder: Path) -> tuple[float, float]:
    """Return the seconds of the process, and of its training clock."""
    folder.mkdir()
    run = {"config": {**spec, "threads": 1, "device": "cpu"}, "checkpoint_seconds": 15.0}
    (folder / "run.json").write_text(json.dumps(run))
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "mlhf.runner", str(folder)], check=True)
    seconds = time.perf_counter() - began
    written = [event for event, _ in events.read(folder / "events.jsonl")]
    return seconds, float(written[-1]["totals"]["wall_seconds"])


def by_the_service(client: Client, spec: dict[str, Any]) -> tuple[float, float]:
    """Return the seconds of the job, and of its training clock."""
    began = time.perf_counter()
    job = client.submit({"kind": "train", **spec, "resources": {"threads": 1}})
    for _ in client.events(job["id"]):
        pass  # the stream ends with the job
    seconds = time.perf_counter() - began
    run = client.get(f"/v1/runs/{job['run_ids'][0]}")
    assert run["status"] == "succeeded", run["error"]
    return seconds, float(run["totals"]["wall_seconds"])


if __name__ == "__main__":
    main()
