"""Parse the JSON of the database's columns."""

import json
from typing import Any

from pydantic_core import from_json


def parsed(text: str | bytes) -> Any:
    """The value of a JSON text: as ``json.loads``, but faster.

    Pydantic's parser refuses what Python's takes, such as an escaped lone surrogate (of a file's
    name that is not UTF-8): what was stored is read all the same. Raises ValueError for no JSON.
    """
    try:
        return from_json(text)
    except ValueError:
        return json.loads(text)
