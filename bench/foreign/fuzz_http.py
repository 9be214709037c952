"""Mutated graphs and ONNX files over HTTP: the service answers 4xx, or takes and trains them.

What is read of an ONNX file on the user's machine is sent as graph and weights, as a user sends
it; a file that is refused there is sent as it is in place of a graph, as by mistake.
"""

import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from safetensors.torch import save

from bench.foreign import fuzz_onnx
from mlhf.core.errors import DataError, SpecError
from mlhf.models.graph.errors import TraceError
from mlhf.models.graph.onnx_import import from_onnx

_TIMEOUT = 300.0
_ENDED = {"succeeded", "failed", "cancelled"}


class Sender:
    """A service, with a data set for graphs of samples (1, 4, 4) and three classes.

    Args:
        url: Where it listens.

    Attributes:
        slowest: Seconds by the clock of the slowest answer.

    Raises:
        httpx.HTTPError: it does not.
    """

    def __init__(self, url: str) -> None:
        self.slowest = 0.0
        self._http = httpx.Client(base_url=url, timeout=_TIMEOUT)
        self._jobs: list[str] = []
        rng = np.random.default_rng(0)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "data.npz"
            x = rng.standard_normal((48, 1, 4, 4)).astype(np.float32)
            np.savez(path, x=x, y=np.arange(48) % 3)
            answer = self._http.post(
                "/v1/datasets",
                data={"name": "fuzz", "format": "npz", "params": '{"layout": "chw"}'},
                files={"file": path.read_bytes()},
            )
        answer.raise_for_status()
        self._dataset = answer.json()["id"]

    def outcome(self, graph: str) -> str:
        """Return what came of a graph.

        Raises:
            AssertionError: the answer is neither 201 nor 4xx.
        """
        return self._sent({"graph": graph.encode()}, "graph")

    def onnx_outcome(self, model: Any, chance: random.Random) -> str:
        """Return what came of one mutant of an ONNX file. Raises as ``outcome``."""
        content = fuzz_onnx.mutated(model, chance)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "network.onnx"
            path.write_bytes(content)
            try:
                torch.manual_seed(0)
                network = from_onnx(path)
            except (DataError, TraceError, SpecError):
                return self._sent({"graph": content}, "onnx, refused at home,")
        graph = json.dumps(network.to_json()).encode()
        return self._sent({"graph": graph, "weights": save(network.weights)}, "onnx")

    def statuses(self, seconds: float) -> Counter[str]:
        """Wait for the jobs so long, and count what became of them, failures by their error."""
        deadline = time.monotonic() + seconds
        found: Counter[str] = Counter()
        for identity in self._jobs:
            while (status := self._get(f"/v1/jobs/{identity}")["status"]) not in _ENDED:
                if time.monotonic() > deadline:
                    break
                time.sleep(0.5)
            found[status] += 1
            if status == "failed":
                found.update(self._errors(identity))
        return found

    def _errors(self, identity: str) -> Iterator[str]:
        for run in self._get(f"/v1/jobs/{identity}")["run_ids"]:
            yield str(self._get(f"/v1/runs/{run}")["error"])[:200]

    def _get(self, path: str) -> dict[str, Any]:
        answer: dict[str, Any] = self._http.get(path).raise_for_status().json()
        return answer

    def _sent(self, files: dict[str, bytes], what: str) -> str:
        answer = self._post("/v1/networks", data={"name": "fuzz"}, files=files)
        if answer.status_code != 201:
            return f"{what} sent and refused"
        spec: dict[str, Any] = {
            "kind": "train",
            "model": {"name": "graph", "params": {"network": answer.json()["id"]}},
            "dataset": {"name": self._dataset},
            "optimizer": {"name": "adam"},
            "budget": {"steps": 2},
            "batch_size": 4,
        }
        job = self._post("/v1/jobs", json=spec)
        if job.status_code != 201:
            return f"{what} sent, its job refused"
        self._jobs.append(job.json()["id"])
        return f"{what} sent and a job"

    def _post(self, path: str, **options: Any) -> httpx.Response:
        began = time.monotonic()
        answer = self._http.post(path, **options)
        self.slowest = max(self.slowest, time.monotonic() - began)
        _check(answer)
        return answer


def _check(answer: httpx.Response) -> None:
    if answer.status_code != 201 and not 400 <= answer.status_code < 500:
        raise AssertionError(f"{answer.status_code}: {answer.text[:200]}")
