"""The registries of the engine, as entries with JSON Schemas."""

from collections.abc import Mapping
from functools import cache
from typing import Any, Protocol

from mlhf.core.config import Strict
from mlhf.core.explain import unknown
from mlhf.data.specs import DATASETS
from mlhf.losses.specs import LOSSES
from mlhf.models.specs import MODELS
from mlhf.optimizers.specs import OPTIMIZERS
from mlhf_service.catalogue.schemas import Entry
from mlhf_service.kit.problems import NotFound


class _Spec(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def params(self) -> type[Strict]: ...


_UPLOADS = {name: spec for name, spec in DATASETS.items() if not spec.builtin}
_KINDS: dict[str, Mapping[str, Any]] = {
    "model": MODELS,
    "optimizer": OPTIMIZERS,
    "format": _UPLOADS,
    "loss": LOSSES,
}


@cache
def entries(kind: str) -> tuple[Entry, ...]:
    """All entries of a kind: ``model``, ``optimizer``, ``loss``, or ``format`` (of uploads)."""
    return tuple(_entry(spec) for spec in _KINDS[kind].values())


def find(kind: str, name: str) -> Entry:
    for entry in entries(kind):
        if entry.name == name:
            return entry
    raise NotFound(f"{unknown(kind, name, list(_KINDS[kind]))}.")


def _entry(spec: _Spec) -> Entry:
    return Entry(
        name=spec.name,
        description=spec.description,
        params_schema=spec.params.model_json_schema(),
    )
