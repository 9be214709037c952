"""Check an uploaded network: its graph, and the weights that came with it.

It reads JSON and tensors and nothing else: no pickle, no loader of torch.export, nothing that
comes in is imported or evaluated.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

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
        first = error.errors(include_url=False)[0]
        steps = (str(step).replace("~", "~0").replace("/", "~1") for step in first["loc"])
        pointer = "".join(f"/{step}" for step in steps)
        pointer += first.get("ctx", {}).get("pointer", "")
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


def answer(task: Mapping[str, Any]) -> dict[str, Any]:
    """Check the files ``graph`` and ``weights``, a path or None.

    Returns:
        ``sizes``, a ``GraphSizes``; or ``spec``, pointer and message of what is wrong in the
        graph; or ``data``, what is wrong with the weights.
    """
    try:
        weights = Path(task["weights"]) if task["weights"] else None
        return {"sizes": examine_files(Path(task["graph"]), weights).model_dump(mode="json")}
    except SpecError as error:
        return {"spec": [error.pointer, error.message]}
    except DataError as error:
        return {"data": str(error)}
    except (RecursionError, MemoryError):
        return {
            "spec": ["", "it is nested too deep, or asks for more memory than a check may take"]
        }
