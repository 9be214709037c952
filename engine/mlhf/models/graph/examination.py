"""The process that checks an uploaded network: ``python -m mlhf.models.graph.examination``.

A task on its standard input, one line of JSON on its standard output. It reads JSON and tensors
and nothing else: no pickle, no loader of torch.export, nothing that comes in is imported or
evaluated.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from mlhf.core import bounded
from mlhf.core.errors import DataError, SpecError, error_message
from mlhf.models.graph.checks import examine
from mlhf.models.graph.module import GraphModule
from mlhf.models.graph.sizes import GraphSizes
from mlhf.models.graph.spec import Graph


def examine_files(graph_file: Path, weights_file: Path | None) -> GraphSizes:
    """Check a graph, and that weights are its own and finite; returns its sizes.

    Raises:
        SpecError: the graph is wrong; the pointer is into it.
        DataError: the weights are broken or not the graph's.
    """
    graph = read_graph(graph_file.read_bytes())
    sizes = examine(graph)
    if weights_file is not None:
        check_weights(graph, weights_file)
    elif missing := [n for n, b in graph.buffers.items() if b.persistent and b.data is None]:
        raise DataError(f"the values of {', '.join(missing[:5])} are missing; send the weights too")
    return sizes


def read_graph(content: bytes) -> Graph:
    """Return a graph from its JSON.

    Raises:
        SpecError: it is none.
    """
    try:
        return Graph.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        pointer = "".join(f"/{str(step).replace('/', '~1')}" for step in first["loc"])
        raise SpecError(pointer, error_message(first)[:500]) from None


def check_weights(graph: Graph, path: Path) -> None:
    """Check names, shapes, dtypes and values, one tensor at a time.

    Raises:
        DataError: one is not as the graph has it, or not finite.
    """
    with torch.device("meta"):
        expected = GraphModule(graph).state_dict()
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
            if missing := sorted(set(expected) - names):
                raise DataError(f"the weights have no {', '.join(missing[:5])}")
            if further := sorted(names - set(expected)):
                raise DataError(f"the graph has no {', '.join(further[:5])}, as the weights have")
            for name, value in expected.items():
                shape = tuple(file.get_slice(name).get_shape())
                if shape != tuple(value.shape):
                    raise DataError(
                        f"{name} has the shape {shape} in the weights, {tuple(value.shape)} in "
                        "the graph"
                    )
                given = file.get_tensor(name)
                if given.dtype != value.dtype:
                    raise DataError(
                        f"{name} is {given.dtype} in the weights, {value.dtype} in the graph"
                    )
                if given.is_floating_point() and not math.isfinite(float(given.double().sum())):
                    raise DataError(f"{name} holds NaN or infinite values")
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"the weights are no safetensors file: {str(error)[:200]}") from None


def main() -> None:
    """Check what the task names, within its bounds."""
    bounded.enter_bounds()
    torch.set_num_threads(1)
    task = json.load(sys.stdin)
    said: dict[str, Any]
    try:
        weights = Path(task["weights"]) if task["weights"] else None
        sizes = examine_files(Path(task["graph"]), weights)
        said = {"sizes": sizes.model_dump(mode="json")}
    except SpecError as error:
        said = {"spec": [error.pointer, error.message]}
    except DataError as error:
        said = {"data": str(error)}
    except (RecursionError, MemoryError):
        said = {
            "spec": ["", "it is nested too deep, or asks for more memory than a check may take"]
        }
    sys.stdout.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main()
