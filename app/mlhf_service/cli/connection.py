"""What all commands that use a service share: its address, a key, JSON instead of tables."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:  # httpx is slow to import: --version and --help do without
    from mlhf_service.client import Client

Url = Annotated[
    str, typer.Option("--url", envvar="MLHF_URL", help="The service's address.", show_default=True)
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        envvar="MLHF_KEY",
        help="A key of the service, or @FILE that holds one. What stands on a command line others "
        "on the machine can read: prefer MLHF_KEY.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
DEFAULT_URL = "http://127.0.0.1:8000"


def connect(url: str, key: str | None) -> "Client":
    """A client of the service at ``url``."""
    from mlhf_service.client import Client

    return Client(url, key=key)


def print_json(found: Any) -> None:
    """Print as indented JSON."""
    typer.echo(json.dumps(found, indent=2, ensure_ascii=False))


def show(found: list[Any], as_json: bool, columns: list[str], rows: list[list[Any]]) -> None:
    """Print a list as a table, or as the JSON that the API gave."""
    from mlhf_service.cli.tables import print_table

    if as_json:
        print_json(found)
    else:
        print_table(columns, rows)


def number(value: Any) -> str:
    """Four significant digits; a dash where there is nothing."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
