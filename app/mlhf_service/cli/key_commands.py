"""``mlhf keys``: keys of any tenant, made directly in the database by who runs the service."""

import json
import re
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:  # slow to import: each command imports what it needs
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from sqlalchemy.orm import Session

    from mlhf_service.keys.schemas import KeyView, NewKey


class Scope(StrEnum):
    READ = "read"
    WRITE = "write"
    ADMIN = "admin"
    METRICS = "metrics"


Decision = Literal["done", "refused", "failed"]
DataDir = Annotated[Path | None, typer.Option(help="Folder for all state. [default: .mlhf]")]
Json = Annotated[bool, typer.Option("--json", help="As JSON.")]
KeyId = Annotated[str, typer.Argument(help="Id of a key: key_…")]
_SPAN = re.compile(r"(\d{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

keys = typer.Typer(no_args_is_help=True, help="Keys, directly in the service's database.")


def add_to(cli: typer.Typer) -> None:
    cli.add_typer(keys, name="keys")
    cli.command()(audit)


@keys.command()
def create(
    name: Annotated[str, typer.Option(help="What it is for.")],
    scope: Annotated[list[Scope] | None, typer.Option(help="Several times for several.")] = None,
    tenant: Annotated[
        str, typer.Option(help="Whose: tenants see nothing of each other.")
    ] = "local",
    expires: Annotated[str | None, typer.Option(help="After so long: 90d, 12h, 30m.")] = None,
    quota_jobs: Annotated[int | None, typer.Option(min=0, help="Jobs not ended.")] = None,
    quota_queued_runs: Annotated[int | None, typer.Option(min=0, help="Runs waiting.")] = None,
    quota_storage_bytes: Annotated[int | None, typer.Option(min=0, help="Stored files.")] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Make a key and show its secret, this once."""
    from mlhf_service.access_settings import tenant_name
    from mlhf_service.context import Quota
    from mlhf_service.database import now
    from mlhf_service.errors import StartError
    from mlhf_service.keys import service
    from mlhf_service.kit.text import is_plain

    try:
        tenant_name(tenant)
    except ValueError as error:
        raise StartError(f"--tenant {tenant!r}: {error}") from None
    if not is_plain(name):
        raise StartError("--name: 1 to 200 characters, none of them control characters")
    ends = now() + _span(expires, "--expires") if expires is not None else None
    with _session(data_dir) as session:
        made = service.create(
            session,
            name=name,
            tenant=tenant,
            scopes=scope or [Scope.READ],
            expires_at=ends,
            quota=Quota(quota_jobs, quota_queued_runs, quota_storage_bytes),
        )
        _note(session, "create", made.tenant, made.id)
    _show_new(made, as_json)


@keys.command("list")
def list_keys(
    tenant: Annotated[str | None, typer.Option(help="Only of this one.")] = None,
    with_ended: Annotated[bool, typer.Option("--all", help="Also what is over.")] = False,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """List the keys of all tenants, without their secrets."""
    from mlhf_service.keys import repository, service

    with _session(data_dir) as session:
        rows = session.scalars(repository.search(with_ended, tenant)).all()
        found = [service.view(row) for row in rows]
    if as_json:
        typer.echo(json.dumps([one.model_dump(mode="json") for one in found], indent=2))
        return
    for one in found:
        typer.echo(_line(one))
    if not found:
        typer.echo("No keys. Make one: mlhf keys create --name NAME --scope admin")


@keys.command()
def revoke(key_id: KeyId, data_dir: DataDir = None, as_json: Json = False) -> None:
    """End a key for good."""
    from mlhf_service.keys import service

    with _session(data_dir) as session:
        ended = service.revoke(session, key_id)
        _note(session, "revoke", ended.tenant, key_id)
    typer.echo(ended.model_dump_json(indent=2) if as_json else _line(ended))


@keys.command()
def rotate(
    key_id: KeyId,
    overlap: Annotated[str, typer.Option(help="How long the old secret stays valid.")] = "1d",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Give a key a new secret, and show it, this once."""
    from mlhf_service.keys import service

    with _session(data_dir) as session:
        made = service.rotate(session, key_id, _span(overlap, "--overlap"))
        _note(session, "rotate", made.tenant, key_id)
    _show_new(made, as_json)


def audit(
    tenant: Annotated[str | None, typer.Option(help="Only of this one; '' is nobody.")] = None,
    key: Annotated[str | None, typer.Option(help="Only of the key of this id.")] = None,
    decision: Annotated[Decision | None, typer.Option(help="Only what was decided so.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 50,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Show what changed something or was refused, of all tenants, the newest first."""
    from mlhf_service.audit import service
    from mlhf_service.audit.models import AuditEntry

    statement = service.search(key, decision, tenant).order_by(AuditEntry.id.desc()).limit(limit)
    with _session(data_dir) as session:
        found = [service.view(entry) for entry in session.scalars(statement)]
    if as_json:
        typer.echo(json.dumps([one.model_dump(mode="json") for one in found], indent=2))
        return
    for one in found:
        who = f"{one.tenant or '-'}  {one.key_id or '-'}  {one.name}"
        what = f"{one.method} {one.path}  {one.status} {one.decision}"
        typer.echo(f"{one.at:%Y-%m-%d %H:%M:%S}  {one.address or '-'}  {who}  {what}")


def _note(session: "Session", action: str, tenant: str, key_id: str) -> None:
    """What is done here is in the audit log too, as done by nobody's key."""
    from mlhf_service.audit import service
    from mlhf_service.context import Caller

    who = Caller(tenant, None, "command line")
    path = f"/v1/keys/{key_id}"
    service.add(session, caller=who, method="CLI", route=f"keys {action}", path=path, status=200)


def _session(data_dir: Path | None) -> "AbstractContextManager[Session]":
    """A transaction on the migrated database; a problem becomes a sentence."""
    from contextlib import contextmanager

    from mlhf_service.cli.service_commands import settings_with
    from mlhf_service.data_folder import prepare
    from mlhf_service.database import Database, explained
    from mlhf_service.errors import StartError
    from mlhf_service.kit.problems import Problem
    from mlhf_service.migrate import migrate

    @contextmanager
    def opened() -> "Iterator[Session]":
        settings = settings_with(data_dir=data_dir)
        prepare(settings)
        database = Database(settings.database)
        try:
            migrate(database)
            with explained(database), database.write() as session:
                yield session
        except Problem as problem:
            raise StartError(problem.detail) from None
        finally:
            database.dispose()

    return opened()


def _span(text: str, option: str) -> timedelta:
    from mlhf_service.errors import StartError

    match = _SPAN.fullmatch(text)
    if match is None:
        raise StartError(f"{option} {text!r} is not a time such as 90d, 12h, 30m or 0s")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _show_new(made: "NewKey", as_json: bool) -> None:
    if as_json:
        typer.echo(made.model_dump_json(indent=2))
        return
    typer.echo(_line(made))
    typer.echo("The secret, which is not stored and not shown again:")
    typer.echo(made.secret)


def _line(key: "KeyView") -> str:
    begins = " ".join(f"{prefix}…" for prefix in key.prefixes) or "-"
    used = _day(key.last_used_at, "never used", "used ")
    ends = _day(key.expires_at, "no end", "until ")
    scopes = ",".join(key.scopes)
    return f"{key.id}  {key.tenant}  {scopes}  {key.status}  {ends}  {used}  {begins}  {key.name}"


def _day(moment: datetime | None, otherwise: str, before: str) -> str:
    return otherwise if moment is None else f"{before}{moment:%Y-%m-%d}"
