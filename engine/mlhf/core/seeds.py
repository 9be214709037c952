"""Independent seeds derived from one seed. Needs no torch."""

import hashlib


def derive(seed: int, *purpose: str | int) -> int:
    """Return a seed for one purpose; those of different purposes are unrelated."""
    text = "/".join(str(item) for item in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
