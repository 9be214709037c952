"""Opaque, prefixed ids that sort by creation time (48 bits of milliseconds, 80 random)."""

import secrets
import threading
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_LOCK = threading.Lock()
_last = 0


def new_id(prefix: str) -> str:
    """Return a fresh id such as ``job_01k...``, larger than any made before here."""
    global _last
    with _LOCK:
        value = (time.time_ns() // 1_000_000 << 80) | secrets.randbits(80)
        if value <= _last:
            value = _last + 1
        _last = value
    digits = []
    for _ in range(26):
        value, digit = divmod(value, 32)
        digits.append(_ALPHABET[digit])
    return f"{prefix}_{''.join(reversed(digits))}"
