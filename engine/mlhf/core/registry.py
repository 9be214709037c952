"""Registries of components: specifications by name, their implementations imported on first use.

Needs no torch, so that the service can list, describe and check what only the trainer runs.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Generic, TypeVar, cast

from mlhf.core.config import Strict
from mlhf.core.errors import SpecError

Implementation = TypeVar("Implementation")


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
            known = ", ".join(sorted(self._specs))
            raise SpecError("/name", f"unknown {self._noun} {name!r}; known: {known}")
        return self._specs[name]
