"""Mutated graphs over HTTP: the service answers 4xx, or takes them and trains them."""

import tempfile
from pathlib import Path
from typing import Any

import httpx
import numpy as np

_TIMEOUT = 300.0


class Sender:
    """A service, with a data set for graphs of samples (1, 4, 4) and three classes.

    Args:
        url: Where it listens.

    Raises:
        httpx.HTTPError: it does not.
    """

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=_TIMEOUT)
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
        answer = self._http.post(
            "/v1/networks", data={"name": "fuzz"}, files={"graph": graph.encode()}
        )
        _check(answer)
        if answer.status_code != 201:
            return "sent and refused"
        spec: dict[str, Any] = {
            "kind": "train",
            "model": {"name": "graph", "params": {"network": answer.json()["id"]}},
            "dataset": {"name": self._dataset},
            "optimizer": {"name": "adam"},
            "budget": {"steps": 2},
            "batch_size": 4,
        }
        job = self._http.post("/v1/jobs", json=spec)
        _check(job)
        return "sent and a job" if job.status_code == 201 else "sent, its job refused"


def _check(answer: httpx.Response) -> None:
    if answer.status_code != 201 and not 400 <= answer.status_code < 500:
        raise AssertionError(f"{answer.status_code}: {answer.text[:200]}")
