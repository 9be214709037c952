"""Whether meta-training saw what is judged: its images, or its network."""

from collections.abc import Iterator, Mapping
from typing import Any

from bench.judge.tasks import Judged
from mlhf.optimizers.learned.families import UNTRAINED
from mlhf.optimizers.learned.meta_checkpoint import load_meta_checkpoint


def overlap(meta_checkpoint: str, judged: Judged) -> list[str]:
    """Return what of a task the meta-checkpoint's lineage holds: ``data``, ``network``.

    Data count as seen unless meta-training kept to the part ``meta`` of that data set.
    """
    if meta_checkpoint == UNTRAINED:
        return []
    lineage = load_meta_checkpoint(meta_checkpoint, "mlhf").lineage
    found = set()
    for task in _tasks(lineage):
        dataset = task["dataset"]
        same = dataset["name"] == judged.task.dataset.name
        if same and dataset.get("params", {}).get("split") != "meta":
            found.add("data")
        if task["model"] == judged.task.model.model_dump():
            found.add("network")
    return sorted(found)


def _tasks(document: Any) -> Iterator[Mapping[str, Any]]:
    """Yield each part that has a model and a data set, however deep it lies."""
    if isinstance(document, Mapping):
        parts = document.get("model"), document.get("dataset")
        if all(isinstance(part, Mapping) and "name" in part for part in parts):
            yield document
        for part in document.values():
            yield from _tasks(part)
    elif isinstance(document, list | tuple):
        for part in document:
            yield from _tasks(part)
