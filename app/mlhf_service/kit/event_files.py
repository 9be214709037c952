"""TensorBoard's event files: scalars as TFRecords of ``Event`` messages, written and read.

The few fields that scalars need are coded here, by the encoding of Protocol Buffers, so that
neither tensorboard nor tensorflow has to be installed. Tests compare it with tensorboard's own.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_MOST_BYTES = 64 * 2**20  # of a record
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FLOAT, _DOUBLE = 1, 2  # DataType of a tensor


@dataclass(frozen=True)
class Scalar:
    """One value of one tag."""

    tag: str
    step: int
    wall_time: float
    value: float


class EventFileError(ValueError):
    """Not an event file, or one that is damaged."""


def _table() -> list[int]:
    rows = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
        rows.append(byte)
    return rows


_CRC_TABLE = _table()


def _masked_crc(data: bytes) -> int:
    """CRC-32C (Castagnoli), masked as TFRecords have it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC_TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def write(scalars: Iterable[Scalar]) -> Iterator[bytes]:
    """An event file of these scalars, in pieces; the first event names the version."""
    yield _record(_key(1, _FIXED64) + struct.pack("<d", 0.0) + _bytes(3, b"brain.Event:2"))
    for one in scalars:
        value = _bytes(1, one.tag.encode()) + _key(2, _FIXED32) + struct.pack("<f", one.value)
        yield _record(
            _key(1, _FIXED64)
            + struct.pack("<d", one.wall_time)
            + _key(2, _VARINT)
            + _varint(one.step)
            + _bytes(5, _bytes(1, value))
        )


def read(content: bytes) -> Iterator[Scalar]:
    """The scalars of an event file. Raises EventFileError.

    A last record that is cut off, as in a file that is still being written, is left out.
    """
    at = 0
    while at + 12 <= len(content):
        length, crc = struct.unpack_from("<QI", content, at)
        if _masked_crc(content[at : at + 8]) != crc or length > _MOST_BYTES:
            raise EventFileError(f"no record of an event file at byte {at}")
        end = at + 12 + length
        if end + 4 > len(content):
            return
        yield from _event(content[at + 12 : end])
        at = end + 4


def _event(data: bytes) -> Iterator[Scalar]:
    wall_time, step, summaries = 0.0, 0, []
    for field, value in _fields(data):
        if field == 1 and isinstance(value, bytes) and len(value) == 8:
            (wall_time,) = struct.unpack("<d", value)
        elif field == 2 and isinstance(value, int):
            step = value
        elif field == 5 and isinstance(value, bytes):
            summaries.append(value)
    for summary in summaries:
        for field, value in _fields(summary):
            if field == 1 and isinstance(value, bytes):
                tag, number = _value(value)
                if tag and number is not None:
                    yield Scalar(tag, step, wall_time, number)


def _value(data: bytes) -> tuple[str, float | None]:
    tag, number = "", None
    for field, value in _fields(data):
        if not isinstance(value, bytes):
            continue
        if field == 1:
            tag = value.decode(errors="replace")
        elif field == 2 and len(value) == 4:
            (number,) = struct.unpack("<f", value)
        elif field == 8:
            number = _tensor(value)
    return tag, number


def _tensor(data: bytes) -> float | None:
    """The value of a tensor of one float or double; None for any other."""
    kind, content = 0, b""
    for field, value in _fields(data):
        if field == 1 and isinstance(value, int):
            kind = value
        elif field in (4, 5, 6) and isinstance(value, bytes):
            content = value
    form = {_FLOAT: "<f", _DOUBLE: "<d"}.get(kind)
    if form is None or len(content) != struct.calcsize(form):
        return None
    (number,) = struct.unpack(form, content)
    return float(number)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        kind = key & 7
        if kind == _VARINT:
            number, at = _read_varint(data, at)
            yield key >> 3, number
            continue
        if kind == _BYTES:
            size, at = _read_varint(data, at)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise EventFileError("a record of an event file is damaged")
        if at + size > len(data):
            raise EventFileError("a record of an event file is damaged")
        yield key >> 3, data[at : at + size]
        at += size


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value - (1 << 64) if value >= 1 << 63 else value), at
    raise EventFileError("a record of an event file is damaged")


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    crcs = [struct.pack("<I", _masked_crc(part)) for part in (length, data)]
    return length + crcs[0] + data + crcs[1]


def _key(field: int, kind: int) -> bytes:
    return _varint(field << 3 | kind)


def _bytes(field: int, content: bytes) -> bytes:
    return _key(field, _BYTES) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
