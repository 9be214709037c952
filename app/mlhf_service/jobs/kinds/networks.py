"""A network on a data set, checked against what this deployment allows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlhf.core.config import Component
from mlhf.core.errors import SpecError, under
from mlhf.data.info import DataInfo
from mlhf.data.specs import DATASETS
from mlhf.losses.specs import network_info
from mlhf.models.graph.sizes import GraphSizes
from mlhf.models.graph.spec import GraphParams
from mlhf.models.pointwise import check_pointwise
from mlhf.models.specs import MODELS, ModelSummary, check_task, graph_summary
from mlhf_service.context import Context
from mlhf_service.datasets.installed import require_worker
from mlhf_service.datasets.resolve import identify, resolve_dataset
from mlhf_service.jobs.kinds.protocol import Estimate
from mlhf_service.networks.service import resolve


@dataclass(frozen=True)
class Network:
    """A model that fits its data.

    Attributes:
        model: Its name and its parameters, defaults written out.
        dataset: Its fixed name, of an upload its id, and its parameters.
        dataset_name: What people call it.
        info: Shapes and sizes of the data.
        summary: Sizes of the network.
        pointer: Where in the request the two stand; empty: at its top.
    """

    model: dict[str, Any]
    dataset: dict[str, Any]
    dataset_name: str
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
    loss: Component | None = None,
    *,
    residuals: bool = False,
) -> Network:
    """Check a model, its data and its loss. Raises SpecError.

    Args:
        loss: None: that of the data's task.
        batch_sizes: By where below ``pointer`` they stand.
        pointer: Where in the request the model and the data set stand.
        residuals: Whether equations are trained too.
    """
    with under(f"{pointer}/dataset"):
        identity, shown = identify(context, dataset.name)
        of_equation = is_equation(identity)
        if of_equation and not residuals:
            raise SpecError("/name", f"{identity} is for jobs of the kinds train and sweep only.")
        info = resolve_dataset(context, identity, dataset.params).info
        require_worker(context, identity)
    with under(f"{pointer}/loss"):
        needed = network_info(info, loss)
    with under(f"{pointer}/model"):
        params = MODELS.parse(model.name, model.params)
        check_task(model.name, info)
        if isinstance(params, GraphParams):
            summary = _summarize_upload(context, params, needed)
        else:
            summary = MODELS[model.name].summarize(params, needed)
        if of_equation:
            second = DATASETS.parse(identity, dataset.params).has_second
            check_pointwise(params, summary, second=second)
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
                f"{info.train_samples:,} samples: at most {info.train_samples:,} fit.",
            )
    written = {"name": model.name, "params": params.model_dump(mode="json")}
    fixed = {"name": identity, "params": dataset.params}
    return Network(written, fixed, shown, info, summary, pointer)


def is_equation(dataset: str) -> bool:
    """Whether a data set is an equation, whose residuals are trained on."""
    return dataset in DATASETS and DATASETS[dataset].residuals


def _summarize_upload(context: Context, params: GraphParams, info: DataInfo) -> ModelSummary:
    """The sizes of an uploaded network, as they were found at the upload. Raises SpecError."""
    if params.network is None:
        raise SpecError(
            "/params/graph",
            "Upload the graph (POST /v1/networks), and name it by its id as `network`.",
        )
    with under("/params/network"):
        row = resolve(context.session, params.network)
    if params.initial == "given" and not row.weights:
        raise SpecError(
            "/params/initial", "No weights came with this network; take `fresh`, or leave it out."
        )
    return graph_summary(GraphSizes.model_validate(row.sizes), params.output, info)
