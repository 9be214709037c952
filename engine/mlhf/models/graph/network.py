"""A graph with its weights, as two files: NAME.json and NAME.safetensors."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mlhf.core.errors import DataError
from mlhf.models.graph.module import GraphModule
from mlhf.models.graph.spec import Graph


@dataclass(frozen=True)
class Network:
    """A network as data.

    Attributes:
        graph: What it computes.
        weights: Its parameters and persistent buffers; empty: none came with it.
    """

    graph: Graph
    weights: dict[str, Tensor]

    def module(self) -> GraphModule:
        """Return it as a module, with its weights, in training mode.

        Raises:
            SpecError: the graph cannot be built.
            DataError: the weights are not the graph's.
        """
        module = GraphModule(self.graph)
        if self.weights:
            load_weights(module, self.weights)
        return module

    def to_json(self) -> dict[str, Any]:
        """Return the graph as JSON values."""
        return to_json(self.graph)

    def save(self, path: str | Path) -> Path:
        """Write both files, with their endings put to ``path``; returns the first."""
        described = Path(path).with_suffix(".json")
        described.write_text(json.dumps(self.to_json(), allow_nan=False) + "\n")
        if self.weights:
            # Copies, as safetensors refuses tensors that share memory (tied ones do).
            weights = {
                n: t.detach().to("cpu", copy=True).contiguous() for n, t in self.weights.items()
            }
            save_file(weights, described.with_suffix(".safetensors"))
        return described


def to_json(graph: Graph) -> dict[str, Any]:
    """Return a graph as JSON values, without what is as by default."""
    described: dict[str, Any] = graph.model_dump(mode="json", exclude_defaults=True)
    return {"format": graph.format, **described}


def read_network(path: str | Path) -> Network:
    """Read what ``Network.save`` wrote; the weights may be absent.

    Raises:
        DataError: a file is missing or broken.
    """
    described = Path(path)
    try:
        graph = Graph.model_validate_json(described.read_bytes())
        file = described.with_suffix(".safetensors")
        return Network(graph, load_file(file) if file.exists() else {})
    except FileNotFoundError:
        raise DataError(f"the network's file {described.name} is missing") from None
    except (ValidationError, ValueError, SafetensorError) as error:
        raise DataError(f"the network's files are broken: {str(error)[:300]}") from None


def load_weights(module: torch.nn.Module, weights: dict[str, Tensor]) -> None:
    """Put weights into a module.

    Raises:
        DataError: they are not its own: names, shapes or dtypes differ, or are not finite.
    """
    expected = module.state_dict()
    if missing := sorted(set(expected) - set(weights)):
        raise DataError(f"the weights have no {', '.join(missing[:5])}")
    if further := sorted(set(weights) - set(expected)):
        raise DataError(f"the graph has no {', '.join(further[:5])}, which the weights have")
    for name, value in expected.items():
        given = weights[name]
        if given.shape != value.shape or given.dtype != value.dtype:
            raise DataError(
                f"{name} is {given.dtype} of shape {tuple(given.shape)} in the weights, "
                f"{value.dtype} of shape {tuple(value.shape)} in the graph"
            )
    module.load_state_dict(weights)
