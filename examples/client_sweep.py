"""Run a sweep on a service, follow it, and print what each optimizer needed.

mlhf serve --port 8000 &
python examples/client_sweep.py http://127.0.0.1:8000
"""

import sys
from pathlib import Path
from typing import Any

from mlhf_service.client import Client

SWEEP = {
    "kind": "sweep",
    "name": "example",
    "model": {"name": "mlp", "params": {"hidden": [32]}},
    "dataset": {"name": "digits"},
    "optimizers": [{"name": "adamw", "grid": {"lr": [0.003, 0.01]}}, {"name": "hf_adam"}],
    "seeds": [0, 1],
    "budget": {"epochs": 3},
}


def main(url: str, output: Path) -> dict[str, Any]:
    """Run the sweep, write its figure to ``output``, and return the comparison."""
    with Client(url) as client:
        print(f"{client.validate(SWEEP)['runs']} runs")
        job = client.submit(SWEEP)
        for event in client.events(job["id"]):
            if event["event"] == "status" and event["data"].get("run_id"):
                print(event["data"]["run_id"], event["data"]["status"])
        job = client.job(job["id"])
        print(job["id"], job["status"])

        comparison = client.compare(job["run_ids"], target=0.5)
        for group in comparison["groups"]:
            reached = group["to_target"]
            print(
                f"{group['label']}: final loss {group['final_loss']['mean']:.3f}, "
                f"{reached['samples']['mean']} samples to 0.5, {reached['missed']} missed it"
            )
        output.mkdir(parents=True, exist_ok=True)
        (output / "sweep.png").write_bytes(client.figure(job["run_ids"], target=0.5))
        client.download(job["run_ids"][0], "model.safetensors", output / "model.safetensors")
    return comparison


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000", Path("sweep-output"))
