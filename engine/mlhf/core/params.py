"""Parameters of registered components: checked once, with pointers to what is wrong.

Needs no torch.
"""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from mlhf.core.config import Strict
from mlhf.core.errors import SpecError, error_message

P = TypeVar("P", bound=Strict)

MAX_NESTING = 40


def parse_params(kind: type[P], params: Mapping[str, Any]) -> P:
    """Return ``params`` as an object of the class.

    Raises:
        SpecError: at the first mistake, under ``/params``.
    """
    _refuse_deep(params)
    try:
        return kind.model_validate(dict(params))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        keep_last = first["type"] == "missing"
        pointer = "/params" + _pointer(first["loc"], params, keep_last)
        raise SpecError(pointer, error_message(first)) from None


def _pointer(loc: tuple[int | str, ...], value: Any, keep_last: bool) -> str:
    """Return pydantic's location as a JSON pointer.

    Locations also name the union member that was tried. Those steps are not in the value, and
    are left out.
    """
    pointer = ""
    for at, step in enumerate(loc):
        if _holds(value, step):
            value = value[step]
        elif not (keep_last and at == len(loc) - 1):
            continue
        pointer += "/" + str(step).replace("~", "~0").replace("/", "~1")
    return pointer


def _holds(value: Any, step: int | str) -> bool:
    if isinstance(value, list | tuple):
        return isinstance(step, int) and step < len(value)
    return isinstance(value, Mapping) and step in value


def _refuse_deep(params: Any) -> None:
    """Bound the nesting before anything recursive walks the value."""
    level = [params]
    for _ in range(MAX_NESTING):
        level = [child for value in level for child in _children(value)]
        if not level:
            return
    raise SpecError("/params", f"nested deeper than {MAX_NESTING} levels")


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list | tuple) else ()
