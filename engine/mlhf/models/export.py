"""A trained network as a file for other programs: ONNX, or torch.export's own format."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mlhf.core.errors import DataError
from mlhf.data.info import DataInfo
from mlhf.models.graph.module import GraphModule

_MOST_SAMPLES = 2**20


def export(module: nn.Module, info: DataInfo, path: str | Path, dtype: torch.dtype) -> Path:
    """Write a network, for batches of any size; it takes preprocessed inputs.

    Args:
        module: In evaluation mode, on the CPU.
        info: What it was trained on.
        path: Ends in ``.onnx`` (needs the packages onnx and onnxscript) or ``.pt2``, which
            ``torch.export.load`` reads.
        dtype: Of inputs that are no tokens.

    Returns:
        The path.

    Raises:
        DataError: the ending is another one, a package is missing, or torch cannot export it.
    """
    path = Path(path)
    if path.suffix not in (".onnx", ".pt2"):
        raise DataError(f"{path.name}: a network is exported to a file ending in .onnx or .pt2")
    example = torch.zeros(
        (2, *info.input_shape), dtype=torch.int64 if info.kind == "text" else dtype
    )
    batch = {0: torch.export.Dim("batch", min=1, max=_MOST_SAMPLES)}
    # A graph's module takes its inputs as *args, which torch.export sees as a tuple in a tuple.
    shapes: Any = ((batch,),) if isinstance(module, GraphModule) else (batch,)
    try:
        with torch.no_grad():
            program = torch.export.export(module, (example,), dynamic_shapes=shapes)
            if path.suffix == ".pt2":
                torch.export.save(program, path)
                return path
            named = _names(module(example))
            made = torch.onnx.export(
                program, input_names=["input"], output_names=named, verbose=False
            )
    except ModuleNotFoundError as error:
        raise DataError(
            f"exporting to ONNX needs the package {error.name}: pip install 'mlhf[onnx]'"
        ) from None
    except Exception as error:  # torch raises what it likes for what it cannot export
        raise DataError(f"torch cannot export this network: {_short(error)}") from error
    assert made is not None
    made.save(str(path))
    return path


def _names(outputs: Any) -> list[str]:
    if isinstance(outputs, Mapping):
        return [str(name) for name in outputs]
    if isinstance(outputs, list | tuple):
        return [f"output_{at}" for at in range(len(outputs))]
    return ["output"]


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:400]
