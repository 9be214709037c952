"""The command that makes a network of a module or an ONNX file, on this machine."""

from pathlib import Path
from pkgutil import resolve_name
from typing import Annotated

import typer

from mlhf_service.cli import connection
from mlhf_service.cli.connection import AsJson
from mlhf_service.errors import StartError


def add_to(cli: typer.Typer) -> None:
    cli.command()(trace)


def trace(
    source: Annotated[
        str,
        typer.Argument(
            help="FILE.py:FUNCTION, which returns a torch.nn.Module, or it and an example of its "
            "inputs; or FILE.onnx."
        ),
    ],
    shape: Annotated[
        str | None, typer.Option(help="Of one sample, such as 3,32,32, where there is no example.")
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(min=1, help="The samples are whole numbers below this one.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Both files, without their endings.")] = Path(
        "network"
    ),
    as_json: AsJson = False,
) -> None:
    """Write a network as data: NAME.json and NAME.safetensors, to train and to upload."""
    from mlhf.core.errors import DataError
    from mlhf.models.graph.errors import TraceError

    network_from = resolve_name("mlhf.models.graph.sources:network_from")  # needs torch
    try:
        network = network_from(source, shape, tokens)
    except (TraceError, DataError) as error:
        raise StartError(str(error)) from None
    path = network.save(output)
    graph = network.graph
    if as_json:
        inputs = [{"name": each.name, "shape": list(each.shape)} for each in graph.inputs]
        connection.print_json({"path": str(path), "nodes": len(graph.nodes), "inputs": inputs})
        return
    named = ", ".join(f"{each.name} {each.shape}" for each in graph.inputs)
    typer.echo(f"{path}: {len(graph.nodes)} nodes; inputs of a sample: {named}")
