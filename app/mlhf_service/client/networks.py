"""Modules of torch, traced here, so that only JSON and tensors travel to the service."""

import json
import tempfile
from pathlib import Path
from typing import Any

import mlhf
from mlhf_service.client.errors import Json, ServiceError


def is_network(model: Any) -> bool:
    """Whether a job's model is a module, or one that was traced, and not a name or JSON."""
    return hasattr(model, "state_dict") or hasattr(model, "to_json")


def traced(model: Any, example: Any) -> Any:
    """Return a module as a ``mlhf.models.graph.network.Network``.

    Args:
        model: A ``torch.nn.Module``, or what ``mlhf.trace`` or ``from_onnx`` made.
        example: Inputs for the module (see ``mlhf.trace``).

    Raises:
        ServiceError: without an example, or where torch is not installed.
        TraceError: the module cannot be written as a graph.
    """
    if not hasattr(model, "state_dict"):
        return model
    if example is None:
        raise ServiceError("a module is traced on example inputs: give example=, a batch of them")
    return mlhf.trace(model, example)  # imports torch


def form(network: Any) -> dict[str, tuple[str, bytes, str]]:
    """Return the files of an upload, as httpx takes them."""
    graph = json.dumps(network.to_json(), allow_nan=False).encode()
    files = {"graph": ("network.json", graph, "application/json")}
    if network.weights:
        with tempfile.TemporaryDirectory() as folder:
            path = network.save(Path(folder) / "network").with_suffix(".safetensors")
            files["weights"] = (path.name, path.read_bytes(), "application/octet-stream")
    return files


def as_model(made: Json) -> Json:
    """Return an uploaded network as a job's model."""
    return {"name": "graph", "params": {"network": made["id"]}}
