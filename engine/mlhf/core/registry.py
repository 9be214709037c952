"""Registries of components: found by name, their parameters checked, imported on first use.

Needs no torch, so that the service can list, describe and check what only the trainer runs.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Generic, TypeVar, cast

from pydantic import ValidationError

from mlhf.core.config import Strict
from mlhf.core.errors import SpecError
from mlhf.core.explain import explain, telling_field, unknown

Implementation = TypeVar("Implementation")

MAX_NESTING = 40


@dataclass(frozen=True)
class Spec(Generic[Implementation]):
    """A registered component, described without importing it.

    Registries derive their own specification from it: ``DatasetSpec``, ``ModelSpec``,
    ``OptimizerSpec``.

    Attributes:
        name: What configurations call it.
        description: One sentence.
        params: The model of its parameters.
        target: Where its implementation is: ``"package.module"`` for a module,
            ``"package.module:function"`` for something in it.
    """

    name: str
    description: str
    params: type[Strict]
    target: str

    def load(self) -> Implementation:
        """Return the implementation, imported on first use."""
        module, _, name = self.target.partition(":")
        found = import_module(module)
        return cast(Implementation, getattr(found, name) if name else found)


AnySpec = TypeVar("AnySpec", bound=Spec[Any])


class Registry(Mapping[str, AnySpec]):
    """Specifications by name, in the order in which they were given.

    Args:
        noun: What one entry is called in messages, such as ``"optimizer"``.
        specs: The entries.
    """

    def __init__(self, noun: str, specs: Iterable[AnySpec]) -> None:
        self._noun = noun
        self._specs = {spec.name: spec for spec in specs}

    def __getitem__(self, name: str) -> AnySpec:
        return self._specs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def __len__(self) -> int:
        return len(self._specs)

    def find(self, name: str) -> AnySpec:
        """Return the entry of that name.

        Raises:
            SpecError: at ``/name``, with the names that are known.
        """
        if name not in self._specs:
            raise SpecError("/name", unknown(self._noun, name, sorted(self._specs)))
        return self._specs[name]

    def parse(self, name: str, params: Mapping[str, Any]) -> Any:
        """Return checked parameters of the entry of that name, an instance of its ``params``.

        Raises:
            SpecError: at ``/name``, or under ``/params`` at the first mistake.
        """
        kind = self.find(name).params
        _refuse_deep(params)
        try:
            return kind.model_validate(dict(params))
        except ValidationError as error:
            pointer, told = _first_mistake(error, params)
            message = explain(told, kind.model_json_schema())
            pointer += telling_field(told)
            pointer += told.get("ctx", {}).get("pointer", "")  # of a validator that knows better
            raise SpecError("/params" + pointer, message) from None


def _first_mistake(error: ValidationError, params: Mapping[str, Any]) -> tuple[str, Any]:
    """Return the first field that is wrong, as a JSON pointer, and pydantic's error about it.

    A field of several types has an error for each. The one told is of the type that was meant:
    it points deepest into the value, or is about more than the type.
    """
    errors = error.errors(include_url=False)
    found = [
        (_pointer(each["loc"], params, each["type"] == "missing"), each)
        for each in errors
        if each["loc"][:1] == errors[0]["loc"][:1]
    ]
    return max(found, key=lambda it: (it[0].count("/"), not it[1]["type"].endswith("_type")))


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
