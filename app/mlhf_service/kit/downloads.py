"""Files over HTTP: attachments with validators, digests and byte ranges (RFC 9110)."""

import base64
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from urllib.parse import quote

from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from mlhf.core.version import __version__
from mlhf_service.kit import problems
from mlhf_service.storage.folder import read_file

_RANGE = re.compile(r"\s*bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*", re.ASCII | re.IGNORECASE)
Read = Callable[[int, int], Iterator[bytes]]
_PLAIN_NAME = re.compile(r"[\w.\-]+", re.ASCII)


def is_single_range(header: str) -> bool:
    """Whether ``header`` asks for one well-formed byte range.

    Several ranges, other units and malformed ones are ignored, as the standard allows; so
    no request makes the server do more work than one for the whole file.
    """
    match = _RANGE.fullmatch(header)
    if match is None:
        return False
    first, last = match.groups()
    if first and last:
        return int(first) <= int(last)
    return bool(first or last)


def matches(if_none_match: str | None, etag: str) -> bool:
    """Whether an If-None-Match names ``etag`` (compared weakly, as the standard says)."""
    if if_none_match is None:
        return False
    names = {name.strip().removeprefix("W/") for name in if_none_match.split(",")}
    return etag.removeprefix("W/") in names or names == {"*"}


def file_headers(sha256: str, name: str) -> dict[str, str]:
    """The headers that every answer about a file carries."""
    digest = base64.b64encode(bytes.fromhex(sha256)).decode()
    return {
        "ETag": f'"{sha256}"',
        "Repr-Digest": f"sha-256=:{digest}:",
        "Cache-Control": "private, no-cache",
        "Content-Disposition": attachment(name),
    }


class Ranged(StreamingResponse):
    """A file's bytes from ``start`` up to ``stop``.

    Args:
        read: Gives the bytes from a start up to a stop in pieces; called when they are sent.
    """

    def __init__(
        self, read: Read, start: int, stop: int, status: int, headers: Mapping[str, str], kind: str
    ) -> None:
        super().__init__(iter(()), status, headers, kind)
        self.headers["Content-Length"] = str(stop - start)
        self._open = partial(read, start, stop)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "HEAD":
            # Opened before the answer starts, so that what is gone meanwhile can be told.
            self.body_iterator = iterate_in_threadpool(await run_in_threadpool(self._open))
        await super().__call__(scope, receive, send)


def send_range(
    request: Request, read: Read, *, size: int, sha256: str, name: str, content_type: str
) -> Response:
    """Answer with a file of ``size`` bytes, or the range of it that is asked for.

    304 where the client has it, 416 where the range begins after the end. ``read`` gives the
    bytes from a start up to a stop.
    """
    headers = file_headers(sha256, name) | {"Accept-Ranges": "bytes"}
    asked = request.headers
    if matches(asked.get("if-none-match"), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    wanted = asked.get("range", "")
    unchanged = asked.get("if-range", headers["ETag"]) == headers["ETag"]
    if request.method != "GET" or not unchanged or not is_single_range(wanted):
        return Ranged(read, 0, size, 200, headers, content_type)
    start, stop = _range_of(wanted, size)
    if start >= stop:
        problem = problems.RangeNotSatisfiable(f"The file has {size} bytes.")
        return problems.response(problem.document(), {"Content-Range": f"bytes */{size}"})
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    return Ranged(read, start, stop, 206, headers, content_type)


def _range_of(header: str, size: int) -> tuple[int, int]:
    """The start and the stop, in a file of ``size`` bytes, of what ``is_single_range``."""
    match = _RANGE.fullmatch(header)
    first, last = match.groups() if match else ("", "")
    if not first:
        return max(0, size - int(last or 0)), size
    return int(first), min(int(last) + 1, size) if last else size


def send_file(
    request: Request, path: Path, *, sha256: str, name: str, content_type: str
) -> Response:
    """Answer with a file of this machine, as ``send_range`` does."""
    return send_range(
        request,
        partial(read_file, path),
        size=path.stat().st_size,
        sha256=sha256,
        name=name,
        content_type=content_type,
    )


def send_bytes(
    request: Headers,
    content: bytes,
    content_type: str,
    name: str | None = None,
    extra: Mapping[str, str] | None = None,
) -> Response:
    """Answer with bytes just made; 304 where the client has the same already."""
    sha256 = hashlib.sha256(content).hexdigest()
    headers = file_headers(sha256, name or "") | dict(extra or {})
    if name is None:
        del headers["Content-Disposition"]
    if matches(request.get("if-none-match"), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=content_type)


def weak_etag(*parts: object) -> str:
    """An ETag of what an answer is made from, before it is made."""
    return f'W/"{hashlib.sha256(repr((__version__, *parts)).encode()).hexdigest()[:32]}"'


def attachment(name: str) -> str:
    """The Content-Disposition of a file to be saved."""
    name = name.rpartition("/")[2]
    if _PLAIN_NAME.fullmatch(name):
        return f'attachment; filename="{name}"'
    return f"attachment; filename*=utf-8''{quote(name, safe='')}"
