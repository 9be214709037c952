"""Commands for webhooks: addresses to which the service sends what happens."""

import time
from typing import Annotated, Any

import typer

from mlhf_service.cli import connection
from mlhf_service.cli.connection import DEFAULT_URL, AsJson, Key, Url

_POLL_SECONDS = 0.2
_MOST_SHOWN = 500

Ids = Annotated[list[str], typer.Argument(help="Ids of webhooks (wh_…).")]
Id = Annotated[str, typer.Argument(help="Id of a webhook (wh_…).")]


def add_to(cli: typer.Typer) -> None:
    webhooks = typer.Typer(no_args_is_help=True, help="Addresses to which events are sent, signed.")
    webhooks.command("list")(hooks)
    webhooks.command("test")(try_out)
    for command in (add, delete, enable, deliveries):
        webhooks.command()(command)
    cli.add_typer(webhooks, name="webhooks")


def hooks(url: Url = DEFAULT_URL, key: Key = None, as_json: AsJson = False) -> None:
    """List the webhooks."""
    from mlhf_service.cli.tables import print_table

    with connection.connect(url, key) as client:
        found = client.find("webhooks", _MOST_SHOWN)
    if as_json:
        connection.print_json(found)
        return
    rows = [
        [
            hook["id"],
            hook["url"],
            "on" if hook["enabled"] else hook["disabled_reason"] or "off",
            ", ".join([*hook["events"], *map(_condition, hook["metrics"])]),
        ]
        for hook in found
    ]
    print_table(["webhook", "address", "", "is sent"], rows)


def add(
    address: Annotated[str, typer.Argument(help="Where to send events: https://…")],
    event: Annotated[
        list[str] | None,
        typer.Option(help="job.<status>, run.<status>, job.* or run.*. [default: ends of jobs]"),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="Such as 'train_loss below 0.1', or 'batch_loss not_finite'."),
    ] = None,
    description: Annotated[str, typer.Option(help="A word on it.")] = "",
    url: Url = DEFAULT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Have events sent to an address. Prints the secret that signs them, once."""
    body: dict[str, Any] = {"url": address, "description": description}
    if event or metric:
        body["events"] = event or []
    if metric:
        body["metrics"] = [_metric(text) for text in metric]
    with connection.connect(url, key) as client:
        made = client.request_json("POST", "/v1/webhooks", json=body)
    if as_json:
        connection.print_json(made)
        return
    typer.echo(made["id"])
    typer.echo(f"secret, not shown again: {made['secret']}")


def delete(ids: Ids, url: Url = DEFAULT_URL, key: Key = None, as_json: AsJson = False) -> None:
    """Delete webhooks with their deliveries."""
    with connection.connect(url, key) as client:
        for identity in ids:
            client.request("DELETE", _path(identity))
            if not as_json:
                typer.echo(f"deleted {identity}")
    if as_json:
        connection.print_json({"deleted": ids})


def enable(identity: Id, url: Url = DEFAULT_URL, key: Key = None, as_json: AsJson = False) -> None:
    """Enable a webhook again that was disabled; what has waited is sent."""
    with connection.connect(url, key) as client:
        hook = client.request_json("PATCH", _path(identity), json={"enabled": True})
    if as_json:
        connection.print_json(hook)
    else:
        typer.echo(f"enabled {identity}")


def try_out(
    identity: Id,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for its answer.")] = 30.0,
    url: Url = DEFAULT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Send an event webhook.test, and say what was answered."""
    with connection.connect(url, key) as client:
        sent = client.request_json("POST", _path(identity) + "/test")
        deadline = time.monotonic() + wait
        # Whether or not it is sent again later: the first attempt is the test.
        while sent["status"] == "pending" and not sent["error"] and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            found = client.get(_path(identity) + "/deliveries", limit=_MOST_SHOWN)["data"]
            sent = next((one for one in found if one["id"] == sent["id"]), sent)
    arrived = sent["status"] == "delivered"
    if as_json:
        connection.print_json(sent)
    elif arrived:
        typer.echo(f"{sent['id']}: delivered, answered with {sent['response_status']}")
    else:
        why = sent["error"] or "not sent yet: does a supervisor (mlhf serve, api or worker) run?"
        typer.echo(f"{sent['id']}: {why}")
    if not arrived:
        raise typer.Exit(1)


def deliveries(
    identity: Id,
    status: Annotated[str | None, typer.Option(help="pending, delivered or failed.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=_MOST_SHOWN)] = 20,
    url: Url = DEFAULT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Show what was sent, or is to be sent, to a webhook, the newest first."""
    from mlhf_service.cli.tables import print_table

    with connection.connect(url, key) as client:
        found = client.get(_path(identity) + "/deliveries", status=status, limit=limit)["data"]
    if as_json:
        connection.print_json(found)
        return
    rows = [
        [
            one["created_at"][:19],
            one["type"],
            one["status"],
            one["attempts"],
            one["response_status"] or "",
            one["error"] or "",
        ]
        for one in found
    ]
    print_table(["made", "event", "", "attempts", "answer", "error"], rows)


def _condition(metric: dict[str, Any]) -> str:
    value = "" if metric["value"] is None else f" {metric['value']:g}"
    return f"{metric['metric']} {metric['when']}{value}"


def _metric(text: str) -> dict[str, Any]:
    """``train_loss below 0.1`` as the API has it. Raises ServiceError for what is no condition."""
    from mlhf_service.client import ServiceError

    match text.split():
        case [metric, "not_finite"]:
            return {"metric": metric, "when": "not_finite"}
        case [metric, ("below" | "above") as when, value]:
            try:
                return {"metric": metric, "when": when, "value": float(value)}
            except ValueError:
                pass
    raise ServiceError(
        f"--metric {text!r} is no condition: use 'METRIC below NUMBER', 'METRIC above NUMBER' or "
        "'METRIC not_finite'"
    )


def _path(identity: str) -> str:
    """Raises ServiceError for what is no id of a webhook."""
    from urllib.parse import quote

    from mlhf_service.client import ServiceError

    if not identity.startswith("wh_"):
        raise ServiceError(f"{identity} is no id of a webhook: they begin as wh_…")
    return f"/v1/webhooks/{quote(identity, safe='')}"
