"""Stub."""

from typing import Any


def training_bytes(summary: Any, info: Any, name: str, params: Any, batch_size: int) -> int:
    return 300 * 2**20
