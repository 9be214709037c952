"""What can be asked of the service: each a generator of requests (see ``exchange``)."""

import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from mlhf_service.client.downloads import Download
from mlhf_service.client.errors import Json, ServiceError, WaitTimeoutError
from mlhf_service.client.exchange import Exchange, Operation, Pause, address, given, part
from mlhf_service.client.records import (
    TERMINAL,
    Job,
    Predictions,
    Record,
    Run,
    identities,
    identity,
)
from mlhf_service.client.rows import batches, json_rows
from mlhf_service.client.tables import Comparison, Curves

What = str | Mapping[str, Any]
R = TypeVar("R", bound=Record)
_PAGE = 500
_PREDICT_SECONDS = 600.0  # the first prediction starts a process


def get(exchange: Exchange, path: str, **params: Any) -> Operation[Any]:
    return (yield from exchange.json("GET", path, params=given(params)))


def submit(exchange: Exchange, body: Json, key: str | None) -> Operation[Job]:
    headers = {"Idempotency-Key": key or secrets.token_hex(16)}
    return Job((yield from exchange.json("POST", "/v1/jobs", json=body, headers=headers)))


def validate(exchange: Exchange, body: Json) -> Operation[Record]:
    params = {"validate_only": "true"}
    return Record((yield from exchange.json("POST", "/v1/jobs", json=body, params=params)))


def job(exchange: Exchange, what: What) -> Operation[Job]:
    return Job((yield from get(exchange, f"/v1/jobs/{part(identity(what))}")))


def run(exchange: Exchange, what: What) -> Operation[Run]:
    return Run((yield from get(exchange, f"/v1/runs/{part(identity(what))}")))


def act(exchange: Exchange, what: What, action: str) -> Operation[Job]:
    path = f"/v1/jobs/{part(identity(what))}/{action}"
    return Job((yield from exchange.json("POST", path)))


def delete(exchange: Exchange, what: What, force: bool, cancel: bool) -> Operation[None]:
    params = {name: "true" for name, is_set in (("force", force), ("cancel", cancel)) if is_set}
    yield from exchange.request("DELETE", address(identity(what)), params=params)


def archive(exchange: Exchange, what: What, undo: bool) -> Operation[Json]:
    action = "unarchive" if undo else "archive"
    shown: Json = yield from exchange.json("POST", f"{address(identity(what))}/{action}")
    return shown


def page(
    exchange: Exchange, resource: str, kind: type[R], limit: int, cursor: str | None, filters: Json
) -> Operation[tuple[list[R], str | None]]:
    """One page of a list, and the cursor of the next."""
    path = f"/v1/{resource}"
    found = yield from get(exchange, path, limit=min(_PAGE, limit), cursor=cursor, **filters)
    return [kind(one) for one in found["data"]], found.get("next_cursor")


def find(
    exchange: Exchange, resource: str, kind: type[R], limit: int | None, filters: Json
) -> Operation[list[R]]:
    """The first ``limit`` items of a list, or all, from as many pages as that takes."""
    found: list[R] = []
    cursor: str | None = None
    while limit is None or len(found) < limit:
        most = _PAGE if limit is None else limit - len(found)
        items, cursor = yield from page(exchange, resource, kind, most, cursor, filters)
        found += items
        if cursor is None:
            break
    return found


def wait(
    exchange: Exchange,
    what: What,
    on_change: Callable[[Job], None] | None,
    poll_seconds: float,
    timeout: float | None,
) -> Operation[Job]:
    started = time.monotonic()
    while True:
        found = yield from job(exchange, what)
        if on_change is not None:
            on_change(found)
        if found["status"] in TERMINAL:
            return found
        if timeout is not None and time.monotonic() - started > timeout:
            why = f" ({found['waiting']})" if found.get("waiting") else ""
            raise WaitTimeoutError(
                f"{found['id']} is still {found['status']}{why} after {timeout:.0f} s, "
                f"{found['progress']['fraction']:.0%} done"
            )
        yield Pause(poll_seconds)


def curves(
    exchange: Exchange, what: What, metric: str | list[str] | None, x: str, max_points: int | None
) -> Operation[Curves]:
    path = f"/v1/runs/{part(identity(what))}/curves"
    return Curves((yield from get(exchange, path, metric=metric, x=x, max_points=max_points)))


def predict(exchange: Exchange, what: What, rows: Any) -> Operation[Predictions]:
    """Predictions of any number of rows, from as many requests as that takes."""
    path = f"/v1/models/{part(identity(what))}/predict"
    found: Predictions | None = None
    for batch in batches(json_rows(rows)):
        options = {"json": {"rows": batch}, "timeout": _PREDICT_SECONDS}
        more = Predictions((yield from exchange.json("POST", path, **options)))
        if found is None:
            found = more
        else:
            found["predictions"] += more["predictions"]
            found["names"] = None if found["names"] is None else found["names"] + more["names"]
    assert found is not None  # there is at least one batch
    return found


def predict_file(exchange: Exchange, what: What, source: Path, target: Path) -> Operation[Path]:
    """Predictions of a file's rows, as a file of the same format."""
    path = f"/v1/models/{part(identity(what))}/predict-file"
    try:
        file = {"file": (source.name, source.read_bytes())}
    except OSError as error:
        raise ServiceError(f"cannot read {source}: {error.strerror}") from None
    data = {"format": source.suffix.lstrip(".").lower()}
    options = {"data": data, "files": file, "timeout": _PREDICT_SECONDS}
    content = (yield from exchange.request("POST", path, **options)).content
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    return target


def export(exchange: Exchange, what: What, target: Path) -> Operation[Path]:
    """The trained network of a run in the format of ``target``'s ending."""
    path = f"/v1/models/{part(identity(what))}/export"
    body = {"format": target.suffix.lstrip(".").lower()}
    answer = yield from exchange.request("POST", path, json=body, timeout=_PREDICT_SECONDS)
    with Download(target) as download:
        download.write(answer.content)
        return download.finish("")


def compared(what: What | Iterable[What]) -> Json:
    """The parameters that choose what is compared: one job, or runs."""
    ids = identities(what)
    if len(ids) == 1 and ids[0].startswith("job_"):
        return {"job": ids[0]}
    return {"run": ids}


def compare(exchange: Exchange, what: What | Iterable[What], params: Json) -> Operation[Comparison]:
    wanted = compared(what)
    return Comparison((yield from get(exchange, "/v1/comparisons", **wanted, **params)))


def figure(exchange: Exchange, what: What | Iterable[What], params: Json) -> Operation[bytes]:
    wanted = given({**compared(what), **params})
    return (yield from exchange.request("GET", "/v1/comparisons", params=wanted)).content
