"""The commands of ``mlhf``: those that run a service, and those that use one."""

from typing import Annotated

import typer

import mlhf
from mlhf_service.cli import client_commands, service_commands

cli = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Train networks with Hessian-free and first-order optimizers, and compare them.",
)
service_commands.add_to(cli)
client_commands.add_to(cli)


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
