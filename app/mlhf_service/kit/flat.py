"""Nested objects as rows of a table."""

import json
from collections.abc import Iterator, Mapping
from typing import Any


def flat(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """A nested object as rows: each leaf by its path, lists of plain values in one row."""
    for key, value in values.items():
        name = f"{path}.{key}" if path else str(key)
        if isinstance(value, list) and any(isinstance(item, dict) for item in value):
            value = {str(index): item for index, item in enumerate(value)}
        if isinstance(value, dict) and value:
            yield from flat(value, name)
        elif isinstance(value, str):
            yield name, value
        else:
            yield name, json.dumps(value, ensure_ascii=False)
