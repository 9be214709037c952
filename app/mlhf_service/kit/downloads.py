"""Files over HTTP: attachments with validators, digests and byte ranges (RFC 9110)."""

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import BinaryIO
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.responses import Response, StreamingResponse

from mlhf_service.kit.problems import RangeNotSatisfiable

_CHUNK = 256 * 1024
_RANGE = re.compile(r"\s*bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*", re.ASCII | re.IGNORECASE)
_PLAIN_NAME = re.compile(r"[\w.\-]+", re.ASCII)


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The first byte wanted and the one after the last, or None for the whole file.

    Several ranges, other units and malformed ones are ignored, as the standard allows; so
    no request makes the server do more work than one for the whole file.

    Raises:
        RangeNotSatisfiable: The range is well-formed, but no byte of the file is in it.
    """
    match = _RANGE.fullmatch(header or "")
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        start, end = max(size - int(last), 0), size
    else:
        start, end = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < start:
            return None
    if start >= size:
        raise RangeNotSatisfiable(
            f"The file has {size} bytes.", None, {"Content-Range": f"bytes */{size}"}
        )
    return start, end


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


def send_file(
    request: Headers,
    file: BinaryIO,
    *,
    size: int,
    sha256: str,
    name: str,
    content_type: str,
    head: bool = False,
) -> Response:
    """Answer with an open file, or a part of it; the file is closed when it is sent."""
    headers = file_headers(sha256, name) | {"Accept-Ranges": "bytes"}
    if matches(request.get("if-none-match"), headers["ETag"]):
        file.close()
        return Response(status_code=304, headers=headers)
    part = None
    if not head and request.get("if-range", headers["ETag"]) == headers["ETag"]:
        try:
            part = byte_range(request.get("range"), size)
        except RangeNotSatisfiable:
            file.close()
            raise
    start, end = part or (0, size)
    headers["Content-Length"] = str(end - start)
    if part is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    if head:
        file.close()
        return Response(headers=headers, media_type=content_type)
    return StreamingResponse(
        _read(file, start, end), 206 if part else 200, headers, media_type=content_type
    )


def send_bytes(
    request: Headers,
    content: bytes,
    content_type: str,
    name: str | None = None,
    extra: Mapping[str, str] | None = None,
) -> Response:
    """Answer with what was just made; 304 where the client has the same already."""
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


def _read(file: BinaryIO, start: int, end: int) -> Iterator[bytes]:
    with file:
        file.seek(start)
        while start < end:
            chunk = file.read(min(_CHUNK, end - start))
            if not chunk:
                return
            start += len(chunk)
            yield chunk
