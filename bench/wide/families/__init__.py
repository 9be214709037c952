"""The families, one a file. Each function returns a task of a version and a size.

``tiny`` is for tests: the same networks and data, smaller and shorter.
"""

from bench.wide.families import (
    autoencoder,
    contrastive,
    convnet,
    experts,
    full_batch,
    graphs,
    long_memory,
    modular,
    recurrent,
    sorting,
    surrogate,
    tabular,
    tied_language,
    unet,
)
from bench.wide.task import Size, Version, WideTask

FAMILIES = {
    "autoencoder": autoencoder.task,
    "surrogate": surrogate.task,
    "full-batch": full_batch.task,
    "modular": modular.task,
    "sorting": sorting.task,
    "recurrent": recurrent.task,
    "long-memory": long_memory.task,
    "unet": unet.task,
    "contrastive": contrastive.task,
    "tied-language": tied_language.task,
    "experts": experts.task,
    "graphs": graphs.task,
    "tabular": tabular.task,
    "convnet": convnet.task,
}


def tasks(version: Version, size: Size = "cpu") -> list[WideTask]:
    """Return the task of each family."""
    return [make(version, size) for make in FAMILIES.values()]
