"""A configuration given as a mapping, checked. Needs no torch."""

from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from mlhf.core.config import Strict
from mlhf.core.errors import SpecError
from mlhf.core.explain import explain

Config = TypeVar("Config", bound=Strict)


def checked(
    kind: type[Config], config: Config | Mapping[str, Any], members: Collection[str] = ()
) -> Config:
    """Return a configuration as an object of its class.

    Args:
        kind: The class.
        config: An object of it, or JSON values.
        members: Names that pydantic gives to members of unions; pointers leave them out.

    Raises:
        SpecError: with a pointer to the first mistake.
    """
    if isinstance(config, kind):
        return config
    try:
        return kind.model_validate(dict(config))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        pointer = "".join(f"/{part}" for part in first["loc"] if part not in members)
        message = explain(first, kind.model_json_schema())
        raise SpecError(pointer, f"{message.removesuffix('.')}.") from error
