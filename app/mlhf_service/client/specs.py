"""A job's specification from what is short to write."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlhf_service.client.errors import Json
from mlhf_service.client.job_files import read_job

_COMPONENTS = ("model", "dataset", "optimizer", "loss")


def specification(spec: Mapping[str, Any] | str | Path | None, fields: Json) -> Json:
    """The JSON object of a job.

    Args:
        spec: As the API takes it, or the path of a file that holds it in JSON or YAML.
        fields: Fields that are added, or that replace its own. A ``model``, ``dataset``,
            ``optimizer`` or ``loss`` may be a name, a data set also what ``upload`` returned;
            ``epochs``, ``steps`` and ``seconds`` are short for a ``budget``. Without ``kind`` a
            job with ``optimizers`` is a ``sweep``, with one ``optimizer`` a ``train``.
    """
    body: Json = dict(read_job(Path(spec)) if isinstance(spec, str | Path) else spec or {})
    fields = dict(fields)
    budget = {
        name: fields.pop(short)
        for short, name in (("epochs", "epochs"), ("steps", "steps"), ("seconds", "wall_seconds"))
        if short in fields
    }
    body |= fields
    if budget:
        body["budget"] = {**body.get("budget", {}), **budget}
    for name in _COMPONENTS:
        if name in body and not (name == "optimizer" and body.get("kind") == "meta_train"):
            body[name] = _component(body[name])
    if isinstance(body.get("optimizers"), list | tuple):
        body["optimizers"] = [_component(one) for one in body["optimizers"]]
    if "kind" not in body:
        if "optimizers" in body:
            body["kind"] = "sweep"
        elif "optimizer" in body:
            body["kind"] = "train"
    return body


def _component(value: Any) -> Any:
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, Mapping) and "id" in value:  # a data set
        return {"name": value["id"]}
    return value
