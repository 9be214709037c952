"""The commands of ``mlhf``: those that run a service, and those that use one."""

from typing import Annotated

import typer

import mlhf
from mlhf_service.cli import (
    backup_commands,
    client_commands,
    housekeeping_commands,
    import_commands,
    key_commands,
    list_commands,
    look_commands,
    mlflow_command,
    network_commands,
    project_commands,
    service_commands,
    webhook_commands,
)

cli = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Train networks with Hessian-free and first-order optimizers, and compare them.",
)
service_commands.add_to(cli)
backup_commands.add_to(cli)
housekeeping_commands.add_to(cli)
client_commands.add_to(cli)
list_commands.add_to(cli)
look_commands.add_to(cli)
mlflow_command.add_to(cli)
import_commands.add_to(cli)
key_commands.add_to(cli)
webhook_commands.add_to(cli)
network_commands.add_to(cli)
project_commands.add_to(cli)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"mlhf {mlhf.__version__}")
        raise typer.Exit


@cli.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass
