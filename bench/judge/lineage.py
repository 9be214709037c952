"""Whether meta-training saw the data or the network of a task it is judged on."""

from collections.abc import Iterator, Mapping
from typing import Any

from bench.judge.tasks import BenchmarkTask
from mlhf.optimizers.learned.families import UNTRAINED
from mlhf.optimizers.learned.meta_checkpoint import load_meta_checkpoint


def overlap(meta_checkpoint: str, task: BenchmarkTask) -> list[str]:
    """Return which of ``data`` and ``network`` of a task the meta-checkpoint's lineage names.

    Data count as seen unless meta-training used only the part ``meta`` of that data set.
    """
    if meta_checkpoint == UNTRAINED:
        return []
    lineage = load_meta_checkpoint(meta_checkpoint, "mlhf").lineage
    found = set()
    for seen in _tasks(lineage):
        dataset = seen["dataset"]
        same = dataset["name"] == task.spec.dataset.name
        if same and dataset.get("params", {}).get("split") != "meta":
            found.add("data")
        if seen["model"] == task.spec.model.model_dump():
            found.add("network")
    return sorted(found)


def _tasks(document: Any) -> Iterator[Mapping[str, Any]]:
    """Yield each object that has a model and a data set, at any depth."""
    if isinstance(document, Mapping):
        components = document.get("model"), document.get("dataset")
        if all(isinstance(each, Mapping) and "name" in each for each in components):
            yield document
        for value in document.values():
            yield from _tasks(value)
    elif isinstance(document, list | tuple):
        for value in document:
            yield from _tasks(value)
