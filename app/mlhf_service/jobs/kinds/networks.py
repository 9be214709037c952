"""A network on a data set, checked against what this deployment allows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlhf.core.config import Component
from mlhf.core.errors import SpecError, under
from mlhf.data.info import DataInfo
from mlhf.models.specs import MODELS, ModelSummary
from mlhf_service.context import Context
from mlhf_service.datasets.resolve import resolve_dataset
from mlhf_service.jobs.kinds.protocol import Estimate


@dataclass(frozen=True)
class Network:
    """A model that fits its data.

    Attributes:
        model: Its name and its parameters, defaults written out.
        info: Shapes and sizes of the data.
        summary: Sizes of the network.
        pointer: Where in the request the two stand; empty: at its top.
    """

    model: dict[str, Any]
    info: DataInfo
    summary: ModelSummary
    pointer: str

    def check_memory(self, context: Context, memory: int, of_batch: int = 0) -> int:
        """Return ``memory``; raises SpecError where a run must not need so many bytes.

        Args:
            of_batch: Those of the bytes that grow with the batch.
        """
        limit = context.settings.max_memory_bytes
        if memory > limit:
            place = "batch_size" if 2 * of_batch > memory else "model/params"
            raise SpecError(
                f"{self.pointer}/{place}",
                f"One run would need about {memory / 2**30:.1f} GiB; at most "
                f"{limit / 2**30:.1f} GiB are allowed here. Take a smaller network or batch.",
            )
        return memory

    def estimate(self, runs: int, memory: int, steps: int | None) -> Estimate:
        """Sum up a plan of ``runs`` runs of at most ``memory`` bytes each."""
        return Estimate(
            runs=runs,
            parameters=self.summary.parameters,
            activations_per_sample=self.summary.activations,
            memory_bytes=memory,
            input_shape=list(self.info.input_shape),
            outputs=self.info.outputs,
            train_samples=self.info.train_samples,
            test_samples=self.info.test_samples,
            total_steps=steps,
        )


def check_network(
    context: Context,
    model: Component,
    dataset: Component,
    batch_sizes: Mapping[str, int],
    pointer: str = "",
) -> Network:
    """Check a model and its data. Raises SpecError.

    Args:
        batch_sizes: By where below ``pointer`` they stand.
        pointer: Where in the request the model and the data set stand.
    """
    with under(f"{pointer}/dataset"):
        info = resolve_dataset(context, dataset.name, dataset.params).info
    with under(f"{pointer}/model"):
        params = MODELS.parse(model.name, model.params)
        summary = MODELS[model.name].summarize(params, info)
    limit = context.settings.max_parameters
    if summary.parameters > limit:
        raise SpecError(
            f"{pointer}/model/params",
            f"The network has {summary.parameters:,} parameters; at most "
            f"{limit:,} are allowed here.",
        )
    for place, size in batch_sizes.items():
        if size > info.train_samples:
            raise SpecError(
                pointer + place,
                f"A batch of {size:,} is larger than the training set of "
                f"{info.train_samples:,} samples.",
            )
    written = {"name": model.name, "params": params.model_dump(mode="json")}
    return Network(written, info, summary, pointer)
