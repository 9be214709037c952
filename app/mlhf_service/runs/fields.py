"""What runs can be asked for by: a field's name, and where its values are."""

from collections.abc import Iterator
from functools import cache

from sqlalchemy import ColumnElement, and_, exists, func, literal, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from mlhf.core.explain import unknown
from mlhf.models.specs import MODELS
from mlhf.optimizers.specs import OPTIMIZERS
from mlhf_service.kit.problems import Invalid
from mlhf_service.runs.metrics import METRICS
from mlhf_service.runs.models import Run
from mlhf_service.runs.schemas import FieldKind
from mlhf_service.runs.values import BEST, TAGS, TOTALS, RunValue

# Columns of the runs' own table, by the name of the query language.
ATTRIBUTES: dict[str, InstrumentedAttribute[object]] = {
    "id": Run.id,
    "job_id": Run.job_id,
    "name": Run.name,
    "kind": Run.kind,
    "status": Run.status,
    "model": Run.model,
    "dataset": Run.dataset,
    "optimizer": Run.optimizer,
    "attempts": Run.attempt,
    "created_at": Run.created_at,
    "started_at": Run.started_at,
    "finished_at": Run.finished_at,
    "notes": Run.notes,
}
TIMES = ("created_at", "started_at", "finished_at")
NUMBERS = ("attempts",)
# As others write them: MLflow's names of what a field is.
_PREFIXES = ("params.", "parameters.", "param.", "metrics.", "metric.", "attributes.", "attribute.")
_OF_TAGS = ("tag.", "tags.")
_NAMED = ("batch_size", "seed", "device", "threads", "budget.epochs", "budget.steps")
_ALIASES = {"wall_seconds": "seconds", "step": "steps", "epoch": "epochs", "job": "job_id"}


def canonical(name: str) -> str:
    """A field's one name: without MLflow's prefixes, and without ``.last``."""
    if (tag := next((p for p in _OF_TAGS if name.startswith(p)), None)) is not None:
        return TAGS + name.removeprefix(tag)
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    name = name.removesuffix(".last")
    return _ALIASES.get(name, name)


@cache
def _always_known() -> frozenset[str]:
    """Fields that there may be although no run has them yet."""
    components = [("optimizer", spec.params) for spec in OPTIMIZERS.values()]
    components += [("model", spec.params) for spec in MODELS.values()]
    parameters = [f"{kind}.{name}" for kind, params in components for name in params.model_fields]
    metrics = [name + suffix for name in METRICS for suffix in ("", BEST)]
    return frozenset([*ATTRIBUTES, *_NAMED, *TOTALS, *metrics, *parameters, "project"])


def kind(name: str) -> FieldKind:
    """Where the values of a field come from."""
    if name in ATTRIBUTES or name == "project":
        return "attribute"
    if name.startswith(TAGS):
        return "tag"
    if name in TOTALS:
        return "total"
    return "metric" if name.removesuffix(BEST) in METRICS else "param"


def find(session: Session, name: str, pointer: str) -> str:
    """The canonical name of a field; raises Invalid for one that no run has."""
    found = canonical(name)
    if found in _always_known() or found.startswith(TAGS):
        return found
    if "\0" not in found and session.scalar(select(RunValue.key).where(_has(found)).limit(1)):
        return found
    known = sorted({*ATTRIBUTES, *TOTALS, *keys(session)})
    # A parameter alone, such as lr, most likely means the optimizer's.
    ends = [each for each in known if each.endswith(f".{found}")]
    if ends:
        detail = f"unknown field {name!r}; did you mean {ends[0]!r}?"
    else:
        detail = unknown("field", name, known)
    raise Invalid.at(pointer, f"{detail} (GET /v1/runs/fields lists all)")


def _has(key: str) -> ColumnElement[bool]:
    return RunValue.key == key


def keys(session: Session) -> list[str]:
    """All names of values that the caller's runs have, in order.

    The index is entered once for each name: ``select distinct`` would read every value.
    """
    return list(_keys(session))


def _keys(session: Session) -> Iterator[str]:
    last = ""
    while True:
        following = session.scalar(select(func.min(RunValue.key)).where(RunValue.key > last))
        if following is None:
            return
        yield following
        last = following


def is_number(session: Session, key: str) -> bool:
    """Whether any run has a number of this name."""
    found = select(literal(1)).where(RunValue.key == key, RunValue.number.is_not(None)).limit(1)
    return session.scalar(found) is not None


def has_value(key: str, *conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    """Whether a run has a value of this name that meets the conditions."""
    met = and_(RunValue.run_id == Run.id, RunValue.key == key, *conditions)
    # Of the run alone: a statement that sorts by another value has that table too.
    return exists().where(met).correlate(Run)
