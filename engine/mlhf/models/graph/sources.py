"""A network from a user's Python or ONNX file, on the user's machine."""

import json
from pathlib import Path
from runpy import run_path
from typing import Any

import torch

from mlhf.core.errors import DataError
from mlhf.models.graph.network import Network
from mlhf.models.graph.onnx_import import from_onnx
from mlhf.models.graph.trace import trace


def network_from(source: str, shape: str | None, tokens: int | None) -> Network:
    """Return the network of ``FILE.py:FUNCTION`` or ``FILE.onnx``.

    Args:
        source: The function returns a module, or it and an example of its inputs.
        shape: Of one sample, such as ``"3,32,32"``, where there is no example.
        tokens: Samples are whole numbers below this one.

    Raises:
        DataError: there is no such file or function, or no example.
        TraceError: it cannot be written as a graph.
    """
    if source.endswith(".onnx"):
        return from_onnx(source, None if shape is None else _example(shape, tokens))
    module, example = _made(source)
    if example is None:
        if shape is None:
            raise DataError(
                f"{source} gives no example of its inputs: return (module, example), or give "
                "--shape"
            )
        example = _example(shape, tokens)
    return trace(module, example)


def _made(source: str) -> tuple[Any, Any]:
    path, _, name = source.rpartition(":")
    if not path or not Path(path).is_file():
        raise DataError(f"{source}: give it as FILE.py:FUNCTION, of a file that is there")
    found = run_path(path).get(name)
    if not callable(found):
        raise DataError(f"{path} has no function {name}")
    made = found()
    return made if isinstance(made, tuple) else (made, None)


def _example(shape: str, tokens: int | None) -> Any:
    try:
        sizes = json.loads(f"[{shape}]")
        if tokens is not None:
            return torch.randint(tokens, (4, *sizes))
        return torch.randn(4, *sizes)
    except (ValueError, TypeError, RuntimeError):
        raise DataError(f"{shape} is no shape: give numbers such as 3,32,32") from None
