"""Files over HTTP: attachments with validators, digests and byte ranges (RFC 9110)."""

import base64
import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.responses import FileResponse, Response
from starlette.types import Message, Receive, Scope, Send

from mlhf_service.kit import problems

_RANGE = re.compile(r"\s*bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*", re.ASCII | re.IGNORECASE)
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
    return etag in names or names == {"*"}


def file_headers(sha256: str, name: str) -> dict[str, str]:
    """The headers that every answer about a file carries."""
    digest = base64.b64encode(bytes.fromhex(sha256)).decode()
    return {
        "ETag": f'"{sha256}"',
        "Repr-Digest": f"sha-256=:{digest}:",
        "Cache-Control": "private, no-cache",
        "Content-Disposition": _attachment(name),
    }


class Download(FileResponse):
    """Starlette's file response, with ranges of our policy and errors as problem documents."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wanted = Headers(scope=scope).get("range", "")
        if scope["method"] != "GET" or not is_single_range(wanted):
            headers = [(name, value) for name, value in scope["headers"] if name != b"range"]
            scope = {**scope, "headers": headers}
        satisfiable = True

        async def unless_refused(message: Message) -> None:
            nonlocal satisfiable
            satisfiable = satisfiable and message.get("status") != 416
            if satisfiable:
                await send(message)

        await super().__call__(scope, receive, unless_refused)
        if not satisfiable:
            size = self.headers["content-length"]
            problem = problems.RangeNotSatisfiable(f"The file has {size} bytes.")
            refusal = problems.response(problem.document(), {"Content-Range": f"bytes */{size}"})
            await refusal(scope, receive, send)


def send_file(
    request: Headers, path: Path, *, sha256: str, name: str, content_type: str
) -> Response:
    """Answer with a file, or the range of it that is asked for; 304 where the client has it."""
    headers = file_headers(sha256, name)
    if matches(request.get("if-none-match"), headers["ETag"]):
        return Response(status_code=304, headers=headers | {"Accept-Ranges": "bytes"})
    return Download(path, headers=headers, media_type=content_type, stat_result=os.stat(path))


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


def _attachment(name: str) -> str:
    name = name.rpartition("/")[2]
    if _PLAIN_NAME.fullmatch(name):
        return f'attachment; filename="{name}"'
    return f"attachment; filename*=utf-8''{quote(name, safe='')}"
