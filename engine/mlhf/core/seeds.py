"""Independent random streams of one seed."""

import hashlib


def derive(seed: int, *purpose: str | int) -> int:
    """Return a seed for one purpose; those of different purposes are unrelated."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
