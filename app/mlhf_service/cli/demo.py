"""The demonstration: a real service, a real sweep over HTTP, a table and a picture."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from mlhf_service.cli.health import describe
from mlhf_service.cli.live import follow
from mlhf_service.cli.tables import print_comparison
from mlhf_service.client import Client, ServiceError
from mlhf_service.client.errors import Json
from mlhf_service.data_folder import prepare
from mlhf_service.errors import StartError
from mlhf_service.settings import Settings

_START_SECONDS = 60.0
_STOP_SECONDS = 60.0
TARGET = 0.05


def sweep(seeds: int, epochs: int) -> Json:
    """The job of the demonstration: six optimizers on scikit-learn's handwritten digits.

    The first-order learning rates reach the target soonest of the grid that
    bench.demo_rates prints, on other seeds; the Hessian-free ones run at their defaults.
    ``mlhf``'s shipped networks were meta-trained on 60 % of these training images, and on other
    data and networks: a fair comparison takes the digits' split ``compare``.
    """
    return {
        "kind": "sweep",
        "name": "demo: optimizers on handwritten digits",
        "tags": {"demo": "digits"},
        "model": {"name": "mlp", "params": {"hidden": [128, 64]}},
        "dataset": {"name": "digits"},
        "optimizers": [
            {"name": "momentum", "params": {"lr": 0.1}},
            {"name": "adam", "params": {"lr": 1e-2}},
            {"name": "adamw", "params": {"lr": 1e-2}},
            {"name": "hf"},
            {"name": "hf_adam"},
            {"name": "mlhf"},
        ],
        "seeds": list(range(seeds)),
        "budget": {"epochs": epochs},
        "batch_size": 128,
        "target": {"metric": "train_loss", "value": TARGET},
    }


def run(settings: Settings, output: Path, seeds: int, epochs: int) -> None:
    """Start a service, submit the sweep, follow it, show the comparison, stop the service."""
    console = Console()
    began = time.monotonic()
    output.mkdir(parents=True, exist_ok=True)
    console.print(f"[bold]1/4[/bold] Starting the service (data in {describe(settings.root)}) …")
    workers = max(1, min(2, os.cpu_count() or 1))
    with service(settings, workers) as (client, service_log):
        console.print(f"      It answers at {client.url}, pages included.")
        spec = sweep(seeds, epochs)
        console.print("[bold]2/4[/bold] Checking and submitting the sweep over HTTP …")
        checked = client.validate(spec)
        job = client.submit(spec)
        console.print(
            f"      {job['id']}: {checked['runs']} runs, a network of "
            f"{checked['parameters']:,} parameters, {checked['total_steps']} steps each."
        )
        console.print("[bold]3/4[/bold] Training …")
        ended = follow(client, job["id"], console)
        if ended["status"] != "succeeded":
            raise ServiceError(f"the demo's job ended as {ended['status']}; see {service_log}")
        console.print("[bold]4/4[/bold] Comparing, by samples and by seconds …\n")
        ids = ended["run_ids"]
        print_comparison(client.compare(ids), console)
        console.print("mlhf was meta-trained on 60 % of these training images, among other tasks.")
        _write(client, ids, output)
    seconds = time.monotonic() - began
    files = ", ".join(path.name for path in sorted(output.iterdir()) if path.is_file())
    console.print(f"\nDone in {seconds:.0f} s. In {describe(output)}/: {files}")
    console.print(f"To browse these runs: make serve DATA_DIR={describe(settings.root)}")


def _write(client: Client, ids: list[str], output: Path) -> None:
    (output / "curves.png").write_bytes(client.figure(ids, "png"))
    csv = client.figure(ids, "csv")
    (output / "comparison.csv").write_bytes(csv)
    client.download(ids[-1], "model.safetensors", output / "model.safetensors")
    client.download(ids[-1], "model.json", output / "model.json")


@contextmanager
def service(settings: Settings, workers: int) -> Iterator[tuple[Client, Path]]:
    """A service of its own on a free port, stopped at the end whatever happens.

    Yields its client and the file with its output. Each trainer has one thread.
    """
    prepare(settings)
    log = settings.logs_dir / "demo-service.log"
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "mlhf_service.cli.main",
        "serve",
        "--port",
        str(port),
        "--data-dir",
        str(settings.root),
        "--workers",
        str(workers),
        "--threads",
        "1",
    ]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONSAFEPATH": "1"},  # the user's folder may hold an app/
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        with Client(f"http://127.0.0.1:{port}") as client:
            _wait_until_ready(client, process, log)
            yield client, log
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()


def free_port() -> int:
    """A port of the loopback address that is free at this moment."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(client: Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            last = log.read_text(errors="replace").strip().rpartition("\n")[2]
            raise StartError(f"the service did not start: {last or log}")
        try:
            client.get("/readyz")
            return
        except ServiceError:
            time.sleep(0.1)
    raise StartError(f"the service did not answer within {_START_SECONDS:.0f} s; see {log}")
