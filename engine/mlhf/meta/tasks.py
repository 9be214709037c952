"""What a learned optimizer is trained on."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mlhf.core.errors import SpecError
from mlhf.curvature.protocol import Loss
from mlhf.data.loading import load
from mlhf.data.specs import digest
from mlhf.meta.config import TaskFamily
from mlhf.models.build import build
from mlhf.models.loss import make_loss
from mlhf.training.attempt import Attempt
from mlhf.training.evaluation import Samples


class Task(Protocol):
    """A network to train, from any initialisation, on random batches."""

    @property
    def name(self) -> str:
        """For the record."""
        ...

    @property
    def loss(self) -> Loss:
        """A loss's name, or a function (z, y) ↦ scalar."""
        ...

    @property
    def samples(self) -> int:
        """Samples of an epoch."""
        ...

    @property
    def batch_size(self) -> int:
        """Samples of a batch."""
        ...

    def model(self, seed: int) -> nn.Module:
        """Return a freshly initialised network in training mode."""
        ...

    def batch(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw a batch (x, y) from the training data by a generator of the CPU."""
        ...


@dataclass(frozen=True)
class DataTask:
    """A registered model on a data set's training split."""

    name: str
    loss: Loss
    samples: int
    batch_size: int
    component: tuple[str, dict[str, Any]]
    data: Any
    scale: float
    device: torch.device

    def model(self, seed: int) -> nn.Module:
        name, params = self.component
        network = build(name, params, self.data.info, seed)
        if self.scale != 1:
            with torch.no_grad():
                for p in network.parameters():
                    if p.ndim > 1:
                        p.mul_(self.scale)
        return network.to(self.device)

    def batch(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        source: Samples = self.data
        chosen = torch.randint(self.samples, (self.batch_size,), generator=generator)
        return source.batch("train", chosen, self.device)


def build_tasks(
    families: list[TaskFamily], device: torch.device, attempt: Attempt | None = None
) -> tuple[list[Task], list[dict[str, Any]]]:
    """Return every task of the families, and what the lineage says of each family.

    Args:
        attempt: Has the cache of decoded data sets, if there is one.

    Raises:
        SpecError: at ``/tasks/<i>/model`` or ``/tasks/<i>/dataset``.
        DataError: where a data set cannot be read.
    """
    attempt = attempt or Attempt()
    tasks: list[Task] = []
    lineage: list[dict[str, Any]] = []
    for i, family in enumerate(families):
        source = family.dataset
        try:
            data = load(
                source.name,
                source.params,
                source.root,
                sha256=source.sha256,
                cache=attempt.data_cache,
                warn=attempt.warn,
            )
        except SpecError as error:
            raise error.under(f"/tasks/{i}/dataset") from error
        samples = data.size("train")
        for batch_size in family.batch_sizes:
            if batch_size > samples:
                raise SpecError(
                    f"/tasks/{i}/batch_sizes", f"{batch_size} is more than the {samples} samples."
                )
            for scale in family.initial_scales:
                tasks.append(
                    DataTask(
                        name=f"{family.model.name} on {source.name}",
                        loss=make_loss(data.info),
                        samples=samples,
                        batch_size=batch_size,
                        component=(family.model.name, family.model.params),
                        data=data,
                        scale=scale,
                        device=device,
                    )
                )
        try:
            tasks[-1].model(0)
        except SpecError as error:
            raise error.under(f"/tasks/{i}/model") from error
        described = family.model_dump(mode="json")
        described["dataset"].pop("root")  # a path of the machine it ran on
        described["data_digest"] = data.sha256 or digest(source.name, source.params, source.root)
        lineage.append(described)
    return tasks, lineage
